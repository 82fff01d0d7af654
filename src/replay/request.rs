//! What a grid is asked for, and what it answers for each cell.

use super::budget::{Budget, Scope};
use crate::error::{Error, Result};
use crate::policy::{self, REGISTRY};
use crate::trace::Trace;
use serde::Serialize;
use std::path::PathBuf;

/// The baseline, which every grid has.
pub const LRU: &str = "lru";
/// The name of the optimum of the same pools, which every grid has.
pub const BELADY: &str = "belady";
/// The name of the bound on what any pools of as many bytes can do; for models whose experts differ
/// in size. Its rates are of bytes.
pub const BELADY_BYTES: &str = "belady-bytes";

/// A trace with a name.
pub struct Named {
    /// Its own among those of a grid. The part before the first `-` names the model.
    pub name: String,
    /// Where it was read.
    pub path: PathBuf,
    /// What it holds.
    pub trace: Trace,
}

/// What to replay.
pub struct Request {
    /// Names of policies, see [`policies`].
    pub policies: Vec<String>,
    /// Budgets, each with the text it was read from.
    pub budgets: Vec<(String, Budget)>,
    /// Which layers share slots.
    pub scope: Scope,
    /// A recorded workload, which the policies are told of before the first event.
    pub prior: Option<Named>,
}

/// The policies that `all` or a list as `lru,decay:16` names, with [`LRU`] among them.
pub fn policies(text: &str) -> Result<Vec<String>> {
    let mut names: Vec<String> = match text {
        "all" => REGISTRY.iter().map(|spec| spec.name.to_string()).collect(),
        _ => text.split(',').map(str::to_string).collect(),
    };
    for name in &names {
        policy::find(name).map_err(|_| {
            Error::setting(
                "--policies",
                name.clone(),
                format!("must be all, or of {}", policy::choices()),
            )
        })?;
    }
    if !names.iter().any(|name| name == LRU) {
        names.insert(0, LRU.to_string());
    }
    let mut seen = std::collections::HashSet::new();
    names.retain(|name| seen.insert(name.clone()));
    Ok(names)
}

/// One trace under one policy with one budget.
#[derive(Debug, Clone, Serialize)]
pub struct Cell {
    /// Its name.
    pub trace: String,
    /// A name of the registry, [`BELADY`] or [`BELADY_BYTES`].
    pub policy: String,
    /// As it was given.
    pub budget: String,
    /// Which layers shared slots.
    pub scope: Scope,
    /// Slots of all pools.
    pub slots: u32,
    /// Slots for each expert of the model.
    pub slot_share: f64,
    /// Hits of picks, 0 to 1, over what [`Trace::warm`] counts.
    pub hit_rate: f64,
    /// The same over all tokens.
    pub hit_rate_cold: f64,
    /// Over all tokens. A bound in bytes has no such number, nor the next two.
    pub hits: Option<u64>,
    /// Over all tokens.
    pub misses: Option<u64>,
    /// Over all tokens.
    pub evictions: Option<u64>,
    /// What the misses read, in the report's unit.
    pub bytes: u64,
    /// Wall time of the replay for each pick; other cells may have run beside it.
    pub ns_per_expert: f64,
    /// Which part of the way from [`LRU`] to [`BELADY`] it goes; none where that is less than
    /// half a point.
    pub gap_closed: Option<f64>,
    /// The layer with the lowest hit rate over what [`Trace::warm`] counts.
    pub worst_layer: Option<WorstLayer>,
}

/// A layer and its hit rate.
#[derive(Debug, Clone, Serialize)]
pub struct WorstLayer {
    /// Its number.
    pub layer: u32,
    /// 0 to 1.
    pub hit_rate: f64,
}
