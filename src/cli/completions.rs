//! `hotset completions`: what a shell completes.

use super::out::print;
use clap::Command;
use clap_complete::Shell;

/// Print what lets a shell complete commands and options, as in `source <(hotset completions bash)`
#[derive(clap::Args)]
pub struct Args {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

/// Prints it, of the program `cli`.
pub fn run(args: &Args, cli: &Command) -> anyhow::Result<()> {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut shown(cli), "hotset", &mut text);
    print(&String::from_utf8(text)?)
}

/// All commands but those that are hidden, which shells would be told of, too.
fn shown(cli: &Command) -> Command {
    let commands = cli
        .get_subcommands()
        .filter(|command| !command.is_hide_set());
    Command::new("hotset")
        .version(env!("CARGO_PKG_VERSION"))
        .subcommands(commands.cloned())
}
