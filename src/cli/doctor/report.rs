//! All that was found out, as JSON has it. Names of fields stay; new ones may come.

use super::advice::{Advice, Verdict};
use super::compute::Compute;
use super::disk::Disk;
use super::expect::Expectation;
use super::machine::Machine;
use super::model::Model;
use super::plan::Plan;
use serde::Serialize;

/// The whole report.
#[derive(Serialize)]
pub struct Report {
    /// Of this program.
    pub version: &'static str,
    pub machine: Machine,
    /// Null where no model was named: then nothing was measured.
    pub compute: Option<Compute>,
    /// Null if no model is on this machine.
    pub disk: Option<Disk>,
    /// Whether the system lets programs read with io_uring, and why not.
    pub io_uring: bool,
    pub no_io_uring_because: Option<String>,
    /// What was named, and where it was found; null without a model.
    pub source: Option<Source>,
    pub model: Option<Model>,
    /// What to run; null for files that are not whole.
    pub run: Option<Plan>,
    pub expect: Option<Expectation>,
    pub verdict: Option<Verdict>,
    pub advice: Vec<Advice>,
    /// What says it for certain.
    pub measure: String,
}

/// Where a model is.
#[derive(Debug, Clone, Serialize)]
pub struct Source {
    /// As it was named.
    pub named: String,
    /// The file; null for one that is not on this machine.
    pub path: Option<String>,
}
