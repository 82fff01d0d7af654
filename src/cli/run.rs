//! `hotset run`: a program of llama.cpp with settings from options.

use super::knobs::Knobs;
use std::ffi::OsString;
use std::process::ExitCode;

/// Run llama-cli, or another program of llama.cpp, with experts streamed from disk
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    knobs: Knobs,
    /// The program
    #[arg(long, value_enum, default_value_t = Program::Cli)]
    tool: Program,
    /// Arguments of the program, as in `hotset run --ram auto -- -m model.gguf`
    #[arg(last = true)]
    args: Vec<OsString>,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Program {
    Cli,
    Server,
    Completion,
    Bench,
    Perplexity,
}

/// Whether a profile is kept without having been asked for: of what streams, unless something else was said.
#[cfg(feature = "llama")]
fn keeps_profile(config: &hotset::config::Config) -> bool {
    config.enabled && config.ram.is_some() && config.profile.is_none()
}

/// Runs the program to its end.
#[cfg(feature = "llama")]
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    use hotset::llama::tools::{Tool, main_with};
    let (tool, name) = match args.tool {
        Program::Cli => (Tool::Cli, "llama-cli"),
        Program::Server => (Tool::Server, "llama-server"),
        Program::Completion => (Tool::Completion, "llama-completion"),
        Program::Bench => (Tool::Bench, "llama-bench"),
        Program::Perplexity => (Tool::Perplexity, "llama-perplexity"),
    };
    let mut config = args.knobs.config()?;
    let mut given = args.knobs.given().to_vec();
    if keeps_profile(&config) && tool != Tool::Bench {
        let (name, value) = ("HOTSET_PROFILE", "auto");
        config.set(name, value)?;
        given.push((name, value.into()));
    }
    hotset::llama::tools::export(&given);
    let argv: Vec<_> = std::iter::once(name.into()).chain(args.args).collect();
    Ok(main_with(tool, &argv, config)?)
}

/// Checks the settings and says what is missing.
#[cfg(not(feature = "llama"))]
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    args.knobs.config()?;
    let _ = (args.tool, args.args);
    crate::cli::no_llama::no_llama("run")
}
