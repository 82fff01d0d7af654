//! All settings, as values.

use super::asked::Asked;
use super::choices::Choices;
use super::router::Routed;
use super::values::{ProfileSource, Ram, StatsTo};
use crate::store::{Faults, QueueKind};
use std::path::PathBuf;
use std::time::Duration;

/// The policy used when none is named.
pub const DEFAULT_POLICY: &str = "adaptive";

/// All settings.
#[derive(Debug, Clone)]
pub struct Config {
    /// False: hotset installs nothing.
    pub enabled: bool,
    /// Memory for streamed experts; None: experts are not streamed.
    pub ram: Option<Ram>,
    /// That, as it was written; empty if nobody has.
    pub ram_text: String,
    /// A name that `policy::find` accepts.
    pub policy: String,
    /// Whether experts may be read before they are picked.
    pub prefetch: bool,
    /// When experts are rewritten as they suit the processor.
    pub repack: Repack,
    /// Whether a file of packed experts beside the model is used.
    pub packs: bool,
    /// Whether experts on a device are left aside where they cost more time than they save.
    pub guards_device: bool,
    /// Whether somebody has asked for a choice of how much devices keep.
    pub sizes_device: bool,
    /// How to read.
    pub io: QueueKind,
    /// Where the counters go.
    pub stats: StatsTo,
    /// Whether a server answers for its experts.
    pub answers: bool,
    /// What is known of the workload.
    pub profile: Option<ProfileSource>,
    /// Where a profile of the run goes.
    pub profile_save: Option<PathBuf>,
    /// How long reading a profile's experts may take before the first token; 0: none are read.
    pub prewarm: Duration,
    /// Where the routing is recorded, see `output::numbered`; None: nowhere.
    pub trace: Option<PathBuf>,
    /// Where a timeline of the run goes.
    pub timeline: Option<PathBuf>,
    /// Errors to inject.
    pub faults: Faults,
    /// Whose process this is, if a router has started it.
    pub routed: Option<Routed>,
    /// What the arguments of the program say of its memory.
    pub asked: Asked,
    /// Folders in which models of `auto` may tell each other what they have, the best one first; none: they do not.
    pub ledgers: Vec<PathBuf>,
    /// What somebody has chosen of where weights go.
    pub choices: Choices,
}

/// When experts are rewritten as stock llama.cpp has them in memory, where it would.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repack {
    /// When that pays.
    Auto,
    /// Always.
    On,
    /// Never.
    Off,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            enabled: true,
            ram: None,
            ram_text: String::new(),
            policy: DEFAULT_POLICY.to_string(),
            prefetch: true,
            repack: Repack::Auto,
            packs: true,
            guards_device: true,
            sizes_device: false,
            io: QueueKind::Auto,
            stats: StatsTo::Exit,
            answers: true,
            profile: None,
            profile_save: None,
            prewarm: Duration::from_secs(30),
            trace: None,
            timeline: None,
            faults: Faults::default(),
            routed: None,
            asked: Asked::default(),
            ledgers: Vec::new(),
            choices: Choices::default(),
        }
    }
}
