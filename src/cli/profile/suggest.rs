//! `hotset profile suggest`: which profile of a folder a workload is most like.

use super::super::files::open_trace;
use super::shown::{print, table};
use crate::cli::number_args::percent;
use hotset::error::{Error, Result};
use hotset::profile::{Chooser, Profile, is_named_so, read_folder, similarity};
use hotset::statistics::mean;
use hotset::trace::Header;
use hotset::tracker::Phase;
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};

/// Say which profile of a folder fits a profile or a trace best
#[derive(clap::Args)]
pub struct Args {
    /// Profiles, *.json and *.json.gz; those of other models are left out
    folder: PathBuf,
    /// A profile, or a trace as HOTSET_TRACE records it
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Of a damaged trace, read what comes before the damage
    #[arg(long)]
    salvage: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

type Shelved = (PathBuf, Profile);

/// Profiles with what they are ranked by, the best first, and what to make of them.
struct Ranking {
    /// What the numbers of `rows` are.
    columns: &'static [&'static str],
    rows: Vec<(Shelved, Vec<Option<f64>>)>,
    /// Formats the numbers.
    format: fn(usize, Option<f64>) -> String,
    /// Whether the best is any good.
    is_use: bool,
    /// How sure that is, in words.
    why: String,
}

pub fn run(args: &Args) -> anyhow::Result<()> {
    let shelf = read_folder(&args.folder)?;
    let ranking = match is_named_so(&args.file) {
        true => by_similarity(&args.folder, shelf, &args.file)?,
        false => by_evidence(&args.folder, shelf, args)?,
    };
    let best = &ranking.rows[0].0;
    let suggestion = ranking.is_use.then(|| best.0.display().to_string());
    let value = |((path, profile), numbers): &(Shelved, Vec<Option<f64>>)| {
        let mut value = Map::new();
        value.insert("file".to_string(), path.display().to_string().into());
        value.insert("name".to_string(), profile.name.clone().into());
        for (column, number) in ranking.columns.iter().zip(numbers) {
            value.insert(column.to_string(), (*number).into());
        }
        Value::Object(value)
    };
    let value = json!({
        "use": suggestion,
        "profiles": ranking.rows.iter().map(value).collect::<Vec<_>>(),
    });
    let line = |((path, profile), numbers): &(Shelved, Vec<Option<f64>>)| {
        let numbers = numbers
            .iter()
            .enumerate()
            .map(|(i, n)| (ranking.format)(i, *n));
        let mut line: Vec<String> = numbers.collect();
        line.extend([profile.name.clone(), path.display().to_string()]);
        line
    };
    let mut header: Vec<String> = ranking.columns.iter().map(|c| c.to_uppercase()).collect();
    header.extend(["NAME", "FILE"].map(str::to_string));
    let header: Vec<&str> = header.iter().map(String::as_str).collect();
    let lines = ranking.rows.iter().map(line).collect();
    let advice = match &suggestion {
        Some(file) => format!("use {file}: {}", ranking.why),
        None => format!("use none: {}", ranking.why),
    };
    let text = format!("{}\n{advice}", table(&header, ranking.columns.len(), lines));
    print(args.json, &value, &text)
}

fn by_similarity(folder: &Path, shelf: Vec<Shelved>, file: &Path) -> Result<Ranking> {
    let profile = Profile::read(file)?;
    let own = file.canonicalize().ok();
    let is_other = |(path, other): &Shelved| {
        path.canonicalize().ok() != own
            && other.model.difference(&profile.model).is_none()
            && has_sizes(other, &sizes(&profile))
    };
    let shelf = of_model(folder, shelf, file, is_other)?;
    let rank = |shelved: Shelved| {
        let phases = Phase::ALL.map(|phase| similarity(&profile, &shelved.1, phase));
        let all = mean(phases.into_iter().flatten());
        (shelved, vec![all, phases[0], phases[1]])
    };
    let mut rows: Vec<_> = shelf.into_iter().map(rank).collect();
    sort(&mut rows);
    let similarity = |row: &(Shelved, Vec<Option<f64>>)| percent(row.1[0]);
    let next = rows
        .get(1)
        .map(|row| format!(", the next one {}", similarity(row)));
    Ok(Ranking {
        columns: &["similarity", "generation", "prompt"],
        format: |_, number| percent(number),
        is_use: rows[0].1[0].is_some(),
        why: match rows[0].1[0] {
            Some(_) => format!(
                "similarity {}{}",
                similarity(&rows[0]),
                next.unwrap_or_default()
            ),
            None => "no two know the same phase".to_string(),
        },
        rows,
    })
}

fn by_evidence(folder: &Path, shelf: Vec<Shelved>, args: &Args) -> Result<Ranking> {
    let file = &args.file;
    let trace = open_trace(file, u32::MAX, args.salvage)?;
    let Header {
        n_layers,
        n_experts,
        top_k,
        ..
    } = *trace.header();
    let is_same = |(_, profile): &Shelved| {
        let model = &profile.model;
        model.top_k == top_k && has_sizes(profile, &vec![n_experts as usize; n_layers as usize])
    };
    let shelf = of_model(folder, shelf, file, is_same)?;
    let profiles: Vec<&Profile> = shelf.iter().map(|(_, profile)| profile).collect();
    let mut chooser = Chooser::new(&profiles);
    let mut chosen = Vec::new();
    for (_, event) in trace.events() {
        let (layer, phase) = (event.layer as usize, Phase::of(&event));
        let verdict = chooser.observe(layer, phase, event.n_tokens, event.experts, event.rows);
        chosen.extend(verdict.map(|verdict| verdict.profile));
    }
    chosen.extend(chooser.finish().map(|verdict| verdict.profile));
    chosen.sort_unstable();
    chosen.dedup();
    let names: Vec<&str> = chosen.iter().map(|&i| &*profiles[i].name).collect();
    let none = match names.is_empty() {
        true => "none explains the trace better than knowing nothing does".to_string(),
        false => format!(
            "none explains all of the trace; parts of it are like {}",
            names.join(", ")
        ),
    };
    let numbers = chooser.scores().into_iter().zip(chooser.confidences());
    let rows = shelf.into_iter().zip(numbers);
    let mut rows: Vec<_> = rows
        .map(|(shelved, (score, sure))| (shelved, vec![Some(score), Some(sure)]))
        .collect();
    sort(&mut rows);
    let numbers = &rows[0].1;
    // A trace of no tokens has scores of 0, too.
    let is_use = numbers[0] > Some(0.0);
    Ok(Ranking {
        columns: &["score", "confidence"],
        format: |column, number| match column {
            0 => number.map_or("-".to_string(), |nats| format!("{nats:.3}")),
            _ => percent(number),
        },
        is_use,
        why: match is_use {
            true => format!(
                "{} sure, over {} tokens; a score above 0 beats knowing nothing, in nats per pick",
                percent(numbers[1]),
                trace.n_tokens()
            ),
            false => none,
        },
        rows,
    })
}

/// The profiles that are kept, at least one.
fn of_model(
    folder: &Path,
    shelf: Vec<Shelved>,
    file: &Path,
    is_kept: impl Fn(&Shelved) -> bool,
) -> Result<Vec<Shelved>> {
    let n_found = shelf.len();
    let kept: Vec<Shelved> = shelf.into_iter().filter(is_kept).collect();
    match kept.is_empty() {
        false => Ok(kept),
        true => Err(Error::file(
            folder,
            format!(
                "none of its {n_found} profiles is another one of the model of {}",
                file.display()
            ),
        )),
    }
}

fn sizes(profile: &Profile) -> Vec<usize> {
    let layers = profile.layers.iter();
    layers.map(|layer| layer.generation.count.len()).collect()
}

fn has_sizes(profile: &Profile, expected: &[usize]) -> bool {
    sizes(profile) == expected
}

/// The highest first number first; equal ones stay in the order of their files.
fn sort(rows: &mut [(Shelved, Vec<Option<f64>>)]) {
    let key = |row: &(Shelved, Vec<Option<f64>>)| row.1[0].unwrap_or(-1.0);
    rows.sort_by(|a, b| key(b).total_cmp(&key(a)));
}
