//! `hotset profile import`: a profile of an importance matrix.

use super::checks::{check_name, check_new};
use super::shown::write;
use hotset::gguf;
use hotset::profile::{self, Fingerprint};
use std::path::PathBuf;

/// Make a profile of an importance matrix, as llama-imatrix writes it
#[derive(clap::Args)]
pub struct Args {
    /// The importance matrix, a GGUF file
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The model that it was made with; without, the profile is of any model of that shape
    #[arg(short, long, value_name = "FILE")]
    model: Option<PathBuf>,
    /// The workload
    #[arg(long)]
    name: String,
    /// The profile to write
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// Replace a file that is there
    #[arg(long)]
    force: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> anyhow::Result<()> {
    check_name(&args.name)?;
    let read = std::iter::once(&args.file).chain(&args.model);
    check_new(&args.output, args.force, read)?;
    let model = match &args.model {
        Some(path) => Some(Fingerprint::of(&gguf::read(path)?)),
        None => None,
    };
    let profile = profile::import(&args.file, &args.name, model.as_ref())?;
    write(&profile, &args.output, args.json)
}
