//! What a residency accepts, what it decides for one event, and the steps of a decision as types.
//!
//! ```text
//!             plan()             commit()
//!   Buffers ---------> Planned ------------> Committed
//!      ^                  |                      |
//!      +---- rollback() --+------ release() -----+
//! ```
//!
//! Each step takes the value of the step before, which cannot be copied and which nothing else makes. So
//! a plan that is committed twice, released before that, or rolled back after that is no program. What the
//! types cannot say: that a value goes back to the residency it came from, and that it goes back at all.
//! Whoever drops one leaves its slots pinned for ever, which is right where the residency is dropped too.

use crate::error::{Error, Result};
use crate::expert::{Event, ExpertId, Shape};
use std::ops::Deref;

/// Whether `event` keeps the promises of [`Event`] for a model of shape `shape`.
pub fn check(shape: &Shape, event: &Event) -> Result<()> {
    let Event {
        layer,
        n_tokens,
        experts,
        rows,
        ranks,
        sequences,
        positions,
        picks,
    } = *event;
    if layer >= shape.n_layers() {
        return Err(Error::LayerOutOfRange {
            layer,
            n_layers: shape.n_layers(),
        });
    }
    let broken = |why: String| Err(Error::Event { layer, why });
    if experts.len() != rows.len() {
        return broken(format!(
            "{} experts but {} row counts",
            experts.len(),
            rows.len()
        ));
    }
    if !ranks.is_empty() && ranks.len() != experts.len() {
        return broken(format!(
            "{} experts but {} ranks",
            experts.len(),
            ranks.len()
        ));
    }
    if let Some(pair) = experts.windows(2).find(|pair| pair[0] >= pair[1]) {
        return broken(format!(
            "expert {} is not above expert {}",
            pair[1], pair[0]
        ));
    }
    let n_experts = shape.n_experts(layer);
    if let Some(&id) = experts.last().filter(|&&id| id >= n_experts) {
        return Err(Error::ExpertOutOfRange {
            id: id.into(),
            n_experts,
        });
    }
    let n_known = sequences.len();
    let is_known = n_known == 0 || n_known == n_tokens as usize;
    let is_whole = picks.is_empty() || n_known > 1 && picks.len().is_multiple_of(n_known);
    if !is_known || positions.len() != n_known || !is_whole {
        return broken(format!(
            "{n_tokens} tokens in {n_known} sequences at {} positions have {} picks",
            positions.len(),
            picks.len()
        ));
    }
    if let Some(&id) = picks.iter().find(|&&id| id >= n_experts) {
        return Err(Error::ExpertOutOfRange {
            id: id.into(),
            n_experts,
        });
    }
    if n_tokens == 0 || rows.contains(&0) {
        return broken(format!(
            "{n_tokens} tokens and rows {rows:?} must be at least 1"
        ));
    }
    Ok(())
}

/// A slot gets a new expert.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fill {
    /// The expert, of the plan's layer.
    pub expert: u32,
    /// Where its bytes go.
    pub slot: u32,
    /// Whose bytes were there; it is no longer resident.
    pub victim: Option<ExpertId>,
}

/// Where an operation finds the experts of one event. Every expert of the event is in exactly one of the
/// three lists.
#[derive(Debug, Default)]
pub struct Plan {
    /// The layer of the event.
    pub layer: u32,
    /// Resident already: expert and slot, ascending.
    pub hits: Vec<(u32, u32)>,
    /// To be read into a slot: ascending, or hottest first if the event is large.
    pub fills: Vec<Fill>,
    /// To be used without a slot, ascending.
    pub staged: Vec<u32>,
    pub(super) n_tokens: u32,
    pub(super) is_prefill: bool,
}

/// Memory for the next plan of a lane, which so allocates once. It is a pointer, as the steps are, because
/// they move for each event.
#[derive(Debug, Default)]
pub struct Buffers(pub(super) Option<Box<Plan>>);

/// A plan whose slots are pinned, and which is not counted yet.
#[derive(Debug)]
#[must_use = "it holds pins until it is committed and released, or rolled back"]
pub struct Planned(pub(super) Box<Plan>);

/// A plan that is counted, and whose slots are pinned.
#[derive(Debug)]
#[must_use = "it holds pins until it is released"]
pub struct Committed(pub(super) Box<Plan>);

impl Buffers {
    /// A plan of nothing yet.
    pub(super) fn begin(self, event: &Event) -> Box<Plan> {
        let mut plan = self.0.unwrap_or_default();
        plan.layer = event.layer;
        plan.n_tokens = event.n_tokens;
        plan.is_prefill = event.is_prefill();
        plan.hits.clear();
        plan.fills.clear();
        plan.staged.clear();
        plan
    }
}

impl Plan {
    /// Of hits and fills.
    pub(super) fn slots(&self) -> impl Iterator<Item = u32> + '_ {
        let hits = self.hits.iter().map(|&(_, slot)| slot);
        hits.chain(self.fills.iter().map(|fill| fill.slot))
    }
}

impl Deref for Planned {
    type Target = Plan;

    fn deref(&self) -> &Plan {
        &self.0
    }
}

impl Deref for Committed {
    type Target = Plan;

    fn deref(&self) -> &Plan {
        &self.0
    }
}
