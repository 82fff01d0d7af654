//! `hotset profile`: looks at activation profiles, and makes one of others.

use super::{files, out};
use anyhow::bail;
use clap::{Subcommand, ValueEnum};
use comfy_table::{CellAlignment, Table, presets};
use hotset::error::{Error, Result};
use hotset::profile::{Profile, is_named_so};
use hotset::tracker::Phase;
use serde_json::Value;
use std::path::{Path, PathBuf};

mod diff;
mod import;
mod merge;
mod plot;
mod record;
mod show;
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

#[derive(Clone, Copy, ValueEnum)]
enum PhaseName {
    Generation,
    Prompt,
}

impl PhaseName {
    /// What was asked for; else generation, unless a profile knows nothing of it and all know prompts.
    fn or_known(asked: Option<Self>, profiles: &[&Profile]) -> Phase {
        let is_known = |phase| profiles.iter().all(|profile| knows(profile, phase));
        match asked {
            Some(Self::Generation) => Phase::Generation,
            Some(Self::Prompt) => Phase::Prompt,
            None if !is_known(Phase::Generation) && is_known(Phase::Prompt) => Phase::Prompt,
            None => Phase::Generation,
        }
    }
}

/// Whether a profile has picks of `phase`.
fn knows(profile: &Profile, phase: Phase) -> bool {
    let mut layers = profile.layers.iter();
    layers.any(|layer| layer.heat(phase).total() > 0.0)
}

/// As in the format and as an option.
fn name_of(phase: Phase) -> &'static str {
    match phase {
        Phase::Generation => "generation",
        Phase::Prompt => "prompt",
    }
}

/// Prints one of the two.
fn print(is_json: bool, value: &Value, text: &str) -> anyhow::Result<()> {
    out::print(&match is_json {
        true => serde_json::to_string_pretty(value)? + "\n",
        false => format!("{}\n", text.trim_end()),
    })
}

/// A table whose first `n_numbers` columns are numbers.
fn table(header: &[&str], n_numbers: usize, rows: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header(header);
    table.add_rows(rows);
    for (number, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 2));
        if number < n_numbers {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.trim_fmt()
}

/// Refuses a profile that is not of the model of `first`.
fn check_same(first: &Profile, path: &Path, profile: &Profile) -> Result<()> {
    let why = match profile.model.difference(&first.model) {
        Some(why) => format!("it is of another model: {why}"),
        None if profile.n_experts() == first.n_experts() => return Ok(()),
        None => "its layers have other numbers of experts".to_string(),
    };
    Err(Error::File {
        path: path.to_path_buf(),
        why,
    })
}

/// Refuses, before any work, the name of a profile that could not be written, is there already, or is one of `read`.
fn check_new<'a>(
    path: &Path,
    force: bool,
    read: impl IntoIterator<Item = &'a PathBuf>,
) -> Result<()> {
    files::check_outputs(&[("--output", path)], read)?;
    let allowed = if !is_named_so(path) {
        "a profile's name ends in .json or .json.gz"
    } else if path.exists() && !force {
        "it is there already; --force replaces it"
    } else {
        return Ok(());
    };
    Err(Error::Setting {
        name: "--output".to_string(),
        value: path.display().to_string(),
        allowed: allowed.to_string(),
    })
}

/// Writes a profile and says so.
fn write(profile: &Profile, path: &Path, is_json: bool) -> anyhow::Result<()> {
    profile.write(path)?;
    let value = serde_json::json!({
        "output": path.display().to_string(),
        "name": profile.name,
        "model": profile.model,
        "tokens": profile.tokens,
    });
    let text = format!("{}: {}", path.display(), summary(profile));
    print(is_json, &value, &text)
}

/// Workload, model, tokens and dates.
fn summary(profile: &Profile) -> String {
    let model = &profile.model;
    let names = [&model.architecture, &model.name];
    let known: Vec<&str> = names
        .into_iter()
        .map(String::as_str)
        .filter(|n| !n.is_empty())
        .collect();
    let model = match known.is_empty() {
        true => "any model of this shape".to_string(),
        false => known.join(" "),
    };
    format!(
        "{} ({model}), {} tokens of generation, {} of prompts, {} to {}",
        profile.name,
        profile.tokens.generation,
        profile.tokens.prompt,
        profile.created,
        profile.updated
    )
}

/// Refuses the name of a workload that no file can have.
fn check_name(name: &str) -> anyhow::Result<()> {
    if name.is_empty() {
        bail!(Error::Setting {
            name: "--name".to_string(),
            value: String::new(),
            allowed: "a workload has a name".to_string(),
        });
    }
    Ok(())
}
