//! `hotset profile merge`: one profile of several.

use super::checks::{check_name, check_new, check_same};
use super::shown::write;
use clap::builder::{OsStringValueParser, TypedValueParser};
use hotset::profile::{self, Profile};
use std::path::{Path, PathBuf};

/// Make one profile of several
#[derive(clap::Args)]
#[command(
    after_help = "A profile counts by its weight, not by how many tokens it was recorded from."
)]
pub struct Args {
    /// Profiles of one model; the weight, above 0 and at most 1000, is 1 if there is none
    #[arg(required = true, value_name = "FILE[:WEIGHT]", value_parser = OsStringValueParser::new().try_map(|text| profile::path_and_weight(&text)))]
    parts: Vec<(PathBuf, f64)>,
    /// The profile to write
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// The workload [default: the name of the file]
    #[arg(long)]
    name: Option<String>,
    /// Replace a file that is there
    #[arg(long)]
    force: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> anyhow::Result<()> {
    // With --force a profile may take in others: it is read before it is replaced.
    check_new(&args.output, args.force, [])?;
    let name = args.name.clone().unwrap_or_else(|| stem(&args.output));
    check_name(&name)?;
    let read = |(path, _): &(PathBuf, f64)| Profile::read(path);
    let profiles: Vec<Profile> = args.parts.iter().map(read).collect::<Result<_, _>>()?;
    for ((path, _), profile) in args.parts.iter().zip(&profiles) {
        check_same(&profiles[0], path, profile)?;
    }
    let weights = args.parts.iter().map(|(_, weight)| *weight);
    let parts: Vec<(&Profile, f64)> = profiles.iter().zip(weights).collect();
    write(&profile::merge(&name, &parts)?, &args.output, args.json)
}

/// `mail` of `folder/mail.json.gz`.
fn stem(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let plain = name.strip_suffix(".gz").unwrap_or(&name);
    plain.strip_suffix(".json").unwrap_or(plain).to_string()
}
