//! The command line of `hotset`: one file per subcommand.

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, Subcommand};
use hotset::error::Error;
use hotset::report::say;
use run::Program;
use signal_hook::consts::SIGXFSZ;
use signal_hook::flag;
use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;

mod bench;
mod cells;
mod completions;
mod curve;
mod demo;
mod doctor;
mod files;
mod knobs;
mod man;
#[cfg(not(feature = "llama"))]
mod no_llama;
mod number_args;
mod out;
mod pack;
mod plan;
mod policies;
mod profile;
mod replay;
mod run;
mod tiles;
mod top;
mod upstream;
mod widen;

/// Keeps the experts a mixture-of-experts model is about to use in fast memory
#[derive(Parser)]
#[command(version, after_help = knobs::help())]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Run(run::Args),
    /// Run llama-cli, as `hotset run --tool cli`
    #[command(visible_alias = "llama-cli", after_help = run::AFTER_HELP)]
    Cli(run::Given),
    /// Run llama-server, as `hotset run --tool server`
    #[command(visible_alias = "llama-server", after_help = run::AFTER_HELP)]
    Server(run::Given),
    /// Run llama-completion, as `hotset run --tool completion`
    #[command(visible_alias = "llama-completion", after_help = run::AFTER_HELP)]
    Completion(run::Given),
    /// Run llama-perplexity, as `hotset run --tool perplexity`
    #[command(visible_alias = "llama-perplexity", after_help = run::AFTER_HELP)]
    Perplexity(run::Given),
    /// Run llama-bench, as `hotset run --tool bench`; `hotset bench` compares stock llama.cpp with hotset
    #[command(after_help = run::AFTER_HELP)]
    LlamaBench(run::Given),
    Demo(demo::Args),
    Doctor(doctor::Args),
    Widen(widen::Args),
    Pack(pack::Args),
    Policies(policies::Args),
    Profile(profile::Args),
    Replay(replay::Args),
    Plan(plan::Args),
    Top(top::Args),
    Bench(bench::Args),
    Completions(completions::Args),
    Man(man::Args),
    #[command(hide = true)]
    BenchRow(bench::row::Args),
}

/// Status for input that is wrong: an option, a setting or a file.
const BAD_INPUT: u8 = 2;

/// The whole program.
pub fn main() -> ExitCode {
    // A package has one file for all programs, which differ in nothing but what they run.
    #[cfg(feature = "llama")]
    if let Some(tool) = hotset::llama::tools::Tool::called() {
        return hotset::llama::tools::main(tool);
    }
    // A limit on the size of files is an error of what is written, and no end of the program.
    let _ = flag::register(SIGXFSZ, Arc::default());
    // A llama-server that routes between models starts its own program again for each of them.
    #[cfg(feature = "llama")]
    if std::env::var_os("LLAMA_SERVER_ROUTER_PORT").is_some() {
        return hotset::llama::tools::main(hotset::llama::tools::Tool::Server);
    }
    let sorted = upstream::sorted(arguments(), &Cli::command());
    let command = match sorted.and_then(Cli::try_parse_from) {
        Ok(cli) => cli.command,
        Err(error) => return usage(&error),
    };
    let result = match command {
        Command::Run(args) => run::run(args),
        Command::Cli(given) => run::run_program(Program::Cli, given),
        Command::Server(given) => run::run_program(Program::Server, given),
        Command::Completion(given) => run::run_program(Program::Completion, given),
        Command::Perplexity(given) => run::run_program(Program::Perplexity, given),
        Command::LlamaBench(given) => run::run_program(Program::Bench, given),
        Command::Demo(args) => demo::run(&args),
        Command::Doctor(args) => doctor::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Pack(args) => pack::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Widen(args) => widen::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Policies(args) => policies::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Profile(args) => profile::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Replay(args) => replay::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Plan(args) => plan::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Top(args) => top::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Completions(args) => {
            completions::run(&args, &Cli::command()).map(|()| ExitCode::SUCCESS)
        }
        Command::Man(args) => man::run(&args, Cli::command()).map(|()| ExitCode::SUCCESS),
        Command::BenchRow(args) => bench::row::run(&args).map(|()| ExitCode::SUCCESS),
    };
    result.unwrap_or_else(|error| {
        if out::is_unread(&error) {
            return out::end_unread();
        }
        say(&format!("hotset: error: {error:#}"));
        match error.downcast_ref() {
            Some(
                Error::Setting { .. }
                | Error::File { .. }
                | Error::Unreadable { .. }
                | Error::Mismatch { .. },
            ) => ExitCode::from(BAD_INPUT),
            _ => ExitCode::FAILURE,
        }
    })
}

/// Options of two letters, as llama.cpp has them: the command, the option, what it is called here.
const TWO_LETTERS: [(&str, &str, &str); 2] =
    [("bench", "-ub", "--ubatch-size"), ("doctor", "-hf", "--hf")];

/// The arguments, with options that have two letters.
fn arguments() -> Vec<OsString> {
    let mut args: Vec<OsString> = std::env::args_os().collect();
    for (command, short, long) in TWO_LETTERS {
        if args.get(1).is_some_and(|given| given == command) {
            args.iter_mut()
                .filter(|arg| *arg == short)
                .for_each(|arg| *arg = long.into());
        }
    }
    args
}

/// Prints help where it was asked for, else one line: what is wrong, and what would be right.
fn usage(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() || error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        return help(error);
    }
    let text = error.to_string();
    let text = text.strip_prefix("error: ").unwrap_or(&text);
    let text = text.replace("\n  tip: ", "\n\n");
    let mut parts: Vec<String> = text
        .split("\n\n")
        .filter(|part| !part.starts_with("Usage:") && !part.starts_with("For more information"))
        .map(|part| part.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect();
    parts.extend(alternatives(error.kind()));
    say(&format!("hotset: error: {}", parts.join("; ")));
    ExitCode::from(BAD_INPUT)
}

/// Prints help, as it looks where it goes.
fn help(error: &clap::Error) -> ExitCode {
    let status = ExitCode::from(error.exit_code() as u8);
    match error.print().and_then(|()| std::io::stdout().flush()) {
        Ok(()) => status,
        Err(cause) if cause.kind() == std::io::ErrorKind::BrokenPipe => out::end_unread(),
        Err(cause) => {
            say(&format!("hotset: error: standard output: {cause}"));
            ExitCode::FAILURE
        }
    }
}

/// The commands or options there are, when one that there is not was asked for.
fn alternatives(kind: ErrorKind) -> Option<String> {
    let cli = Cli::command();
    let mut command = &cli;
    for name in std::env::args_os().skip(1) {
        match command.find_subcommand(&name) {
            Some(found) => command = found,
            None => break,
        }
    }
    match kind {
        ErrorKind::InvalidSubcommand => {
            let shown = command.get_subcommands().filter(|c| !c.is_hide_set());
            let names: Vec<_> = shown.map(|c| c.get_name()).collect();
            Some(format!("commands: {}", names.join(", ")))
        }
        ErrorKind::UnknownArgument => {
            let long = command.get_arguments().filter_map(|arg| arg.get_long());
            let names: Vec<_> = long.map(|name| format!("--{name}")).collect();
            let elsewhere = match command.get_name() {
                "bench" => "; llama-bench is `hotset llama-bench`",
                _ => "",
            };
            (!names.is_empty()).then(|| format!("options: {}{elsewhere}", names.join(", ")))
        }
        _ => None,
    }
}
