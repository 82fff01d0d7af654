//! How profiles are shown.

use crate::cli::out;
use clap::ValueEnum;
use comfy_table::{CellAlignment, Table, presets};
use hotset::profile::Profile;
use hotset::tracker::Phase;
use serde_json::Value;
use std::path::Path;

#[derive(Clone, Copy, ValueEnum)]
pub enum PhaseName {
    Generation,
    Prompt,
}

impl PhaseName {
    /// What was asked for; else generation, unless a profile knows nothing of it and all know prompts.
    pub fn or_known(asked: Option<Self>, profiles: &[&Profile]) -> Phase {
        let is_known = |phase| profiles.iter().all(|profile| knows(profile, phase));
        match asked {
            Some(Self::Generation) => Phase::Decode,
            Some(Self::Prompt) => Phase::Prefill,
            None if !is_known(Phase::Decode) && is_known(Phase::Prefill) => Phase::Prefill,
            None => Phase::Decode,
        }
    }
}

/// Whether a profile has picks of `phase`.
pub fn knows(profile: &Profile, phase: Phase) -> bool {
    let mut layers = profile.layers.iter();
    layers.any(|layer| layer.heat(phase).total() > 0.0)
}

/// As in the format and as an option.
pub fn name_of(phase: Phase) -> &'static str {
    match phase {
        Phase::Decode => "generation",
        Phase::Prefill => "prompt",
    }
}

/// Prints one of the two.
pub fn print(is_json: bool, value: &Value, text: &str) -> anyhow::Result<()> {
    out::print(&match is_json {
        true => serde_json::to_string_pretty(value)? + "\n",
        false => format!("{}\n", text.trim_end()),
    })
}

/// A table whose first `n_numbers` columns are numbers.
pub fn table(header: &[&str], n_numbers: usize, rows: Vec<Vec<String>>) -> String {
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

/// Workload, model, tokens and dates.
pub fn summary(profile: &Profile) -> String {
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

/// Writes a profile and says so.
pub fn write(profile: &Profile, path: &Path, is_json: bool) -> anyhow::Result<()> {
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
