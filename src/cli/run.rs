//! `hotset run`, and a command for each program of llama.cpp: with settings from options.

use super::knobs::Knobs;
use std::ffi::OsString;
use std::process::ExitCode;

/// Run llama-cli, or another program of llama.cpp; a model that does not fit in memory is streamed
#[derive(clap::Args)]
#[command(after_help = AFTER_HELP)]
pub struct Args {
    /// The program
    #[arg(long, value_enum, default_value_t = Program::Cli)]
    tool: Program,
    #[command(flatten)]
    given: Given,
}

/// What a program is given.
#[derive(clap::Args)]
pub struct Given {
    #[command(flatten)]
    knobs: Knobs,
    /// Arguments of the program, as in `-m model.gguf -c 8192`
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<OsString>,
}

/// For the help of these commands.
pub const AFTER_HELP: &str = "A model that fits in memory is loaded as usual; of one that does not, experts are \
    streamed as with --ram auto. Options above may stand anywhere; all else goes to the program, and so does \
    everything after `--`. For the program's own help: -- --help";

/// A program of llama.cpp.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Program {
    /// llama-cli: a chat
    Cli,
    /// llama-server
    Server,
    /// llama-completion: a text goes on
    Completion,
    /// llama-bench: how fast a model is
    Bench,
    /// llama-perplexity
    Perplexity,
}

impl Program {
    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cli => "llama-cli",
            Self::Server => "llama-server",
            Self::Completion => "llama-completion",
            Self::Bench => "llama-bench",
            Self::Perplexity => "llama-perplexity",
        }
    }
}

/// Runs the program that is named to its end.
pub fn run(args: Args) -> anyhow::Result<ExitCode> {
    run_program(args.tool, args.given)
}

/// Runs `program` to its end.
#[cfg(feature = "llama")]
pub fn run_program(program: Program, given: Given) -> anyhow::Result<ExitCode> {
    use hotset::llama::tools::{Tool, main_with};
    let tool = match program {
        Program::Cli => Tool::Cli,
        Program::Server => Tool::Server,
        Program::Completion => Tool::Completion,
        Program::Bench => Tool::Bench,
        Program::Perplexity => Tool::Perplexity,
    };
    let mut config = given.knobs.config()?;
    let mut set = given.knobs.given().to_vec();
    for (name, value) in chosen(&config, program) {
        config.set(name, value)?;
        set.push((name, value.into()));
    }
    hotset::llama::placement::begin(&config, true);
    hotset::llama::tools::export(&set);
    let argv: Vec<_> = std::iter::once(program.name().into())
        .chain(given.args)
        .collect();
    Ok(main_with(tool, &argv, config)?)
}

/// Checks what can be checked, and says what is missing.
#[cfg(not(feature = "llama"))]
pub fn run_program(program: Program, given: Given) -> anyhow::Result<ExitCode> {
    given.knobs.config()?;
    let _ = given.args;
    super::no_llama::no_llama(&format!("run --tool {}", &program.name()["llama-".len()..]))
}

/// What is set here if nobody has said otherwise: what does not fit streams, and starts warm.
#[cfg(feature = "llama")]
fn chosen(config: &hotset::config::Config, program: Program) -> Vec<(&'static str, &'static str)> {
    if !config.enabled {
        return Vec::new();
    }
    let ram = config
        .ram
        .is_none()
        .then_some(("HOTSET_RAM", hotset::config::IF_NEEDED));
    let keeps_profile = config.profile.is_none() && program != Program::Bench;
    let profile = keeps_profile.then_some(("HOTSET_PROFILE", "auto"));
    [ram, profile].into_iter().flatten().collect()
}
