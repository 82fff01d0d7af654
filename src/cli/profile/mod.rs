//! `hotset profile`: looks at activation profiles, and makes one of others.

use clap::Subcommand;

mod checks;
mod diff;
mod import;
mod merge;
mod plot;
mod record;
mod show;
mod shown;
mod suggest;

/// Look at what workloads pick of a model's experts, as HOTSET_PROFILE_SAVE keeps it
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Record(record::Args),
    Show(show::Args),
    Diff(diff::Args),
    Merge(merge::Args),
    Plot(plot::Args),
    Suggest(suggest::Args),
    Import(import::Args),
}

pub fn run(args: &Args) -> anyhow::Result<()> {
    match &args.command {
        Command::Record(args) => record::run(args),
        Command::Show(args) => show::run(args),
        Command::Diff(args) => diff::run(args),
        Command::Merge(args) => merge::run(args),
        Command::Plot(args) => plot::run(args),
        Command::Suggest(args) => suggest::run(args),
        Command::Import(args) => import::run(args),
    }
}
