//! `hotset bench`: stock llama.cpp and hotset side by side, under limits on memory.

mod args;
#[cfg(feature = "llama")]
mod chart;
#[cfg(feature = "llama")]
mod child;
#[cfg(feature = "llama")]
mod measure;
#[cfg(feature = "llama")]
mod report;
pub mod row;
#[cfg(feature = "llama")]
mod table;
#[cfg(feature = "llama")]
mod variants;

pub use args::Args;
use std::process::ExitCode;

/// Says what is missing.
#[cfg(not(feature = "llama"))]
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let _ = format!("{args:?}");
    crate::cli::no_llama::no_llama("bench")
}

/// Checks everything, measures, reports. The status is 1 if runs of a workload wrote different tokens. A run
/// that fails ends the benchmark after a report of those before it.
#[cfg(feature = "llama")]
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let plan = variants::Comparison::new(args)?;
    let measured = measure::measure(&plan)?;
    let status = report::write(&plan, &measured)?;
    match measured.failure {
        None => Ok(status),
        Some(error) => Err(error),
    }
}
