//! `hotset bench-row`: one run, in a process that `hotset bench` starts. Settings come from the environment.

use std::path::PathBuf;

/// One run of `hotset bench`
#[derive(Debug, clap::Args)]
pub struct Args {
    #[arg(long)]
    pub model: PathBuf,
    /// The text of a turn
    #[arg(long, required = true)]
    pub prompt: Vec<PathBuf>,
    #[arg(long)]
    pub prompt_tokens: u32,
    #[arg(short)]
    pub n: u32,
    #[arg(long)]
    pub seed: u32,
    #[arg(long)]
    pub threads: u32,
    #[arg(long)]
    pub ctx_size: u32,
    #[arg(long)]
    pub ubatch_size: u32,
    /// Show what computing alone takes, and what it takes while the disk is read
    #[arg(long)]
    pub reference: bool,
    /// The control group to move into first
    #[arg(long)]
    pub group: Option<PathBuf>,
}

#[cfg(not(feature = "llama"))]
pub fn run(args: &Args) -> anyhow::Result<()> {
    let _ = format!("{args:?}");
    crate::cli::no_llama::no_llama("bench-row")
}

/// Prints what was measured, as JSON.
#[cfg(feature = "llama")]
pub fn run(args: &Args) -> anyhow::Result<()> {
    use anyhow::Context;
    use hotset::config::{Config, ProfileSource};
    use hotset::llama::measured_run::{Job, run};
    use hotset::llama::session::Sizes;

    // Before anything is allocated that should count.
    if let Some(group) = &args.group {
        hotset::measuring::limited::join(group)?;
    }
    let mut config = Config::from_env()?;
    // Each run is to begin as the first one.
    config
        .profile
        .take_if(|profile| matches!(profile, ProfileSource::Auto(_)));
    let read =
        |path: &PathBuf| std::fs::read_to_string(path).with_context(|| path.display().to_string());
    let turns: Vec<_> = args.prompt.iter().map(read).collect::<Result<_, _>>()?;
    let job = Job {
        model: &args.model,
        turns: &turns,
        n_prompt: args.prompt_tokens as usize,
        n_generate: args.n as usize,
        seed: args.seed,
        sizes: Sizes {
            n_context: args.ctx_size as usize,
            n_batch: args.ubatch_size as usize,
            n_threads: args.threads as usize,
        },
        is_reference: args.reference,
    };
    let run = run(&job, config)?;
    crate::cli::out::print(&(serde_json::to_string(&run)? + "\n"))
}
