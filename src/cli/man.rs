//! `hotset man`: manual pages.

use super::{Cli, out::print};
use clap::CommandFactory;
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

pub fn run(args: &Args) -> anyhow::Result<()> {
    let Some(dir) = &args.dir else {
        let mut text = Vec::new();
        Man::new(Cli::command()).render(&mut text)?;
        return print(&String::from_utf8(text)?);
    };
    let written =
        fs::create_dir_all(dir).and_then(|()| clap_mangen::generate_to(Cli::command(), dir));
    Ok(written.map_err(|cause| Error::file(dir, cause))?)
}
