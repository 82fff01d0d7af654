//! `hotset completions`: what a shell completes.

use super::{Cli, out::print};
use clap::CommandFactory;
use clap_complete::Shell;

/// Print what lets a shell complete commands and options, as in `source <(hotset completions bash)`
#[derive(clap::Args)]
pub struct Args {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

pub fn run(args: &Args) -> anyhow::Result<()> {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "hotset", &mut text);
    print(&String::from_utf8(text)?)
}
