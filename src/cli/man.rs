//! `hotset man`: manual pages.

use super::out::print;
use clap::Command;
use clap_mangen::Man;
use hotset::error::Error;
use std::fs;
use std::path::PathBuf;

/// Print the manual page, or write those of all commands to a folder
#[derive(clap::Args)]
pub struct Args {
    /// The folder, as ~/.local/share/man/man1; it is made if it is not there
    dir: Option<PathBuf>,
}

/// Prints or writes those of the program `cli`.
pub fn run(args: &Args, cli: Command) -> anyhow::Result<()> {
    let Some(dir) = &args.dir else {
        let mut text = Vec::new();
        Man::new(cli).render(&mut text)?;
        return print(&String::from_utf8(text)?);
    };
    let written = fs::create_dir_all(dir).and_then(|()| clap_mangen::generate_to(cli, dir));
    Ok(written.map_err(|cause| Error::file(dir, cause))?)
}
