//! `hotset profile show`: how uneven the picks of each layer are.

use super::shown::{PhaseName, name_of, print, summary, table};
use crate::cli::number_args::percent;
use hotset::profile::{Heat, Profile};
use hotset::statistics::mean;
use hotset::tracker::LayerCounts;
use serde_json::{Value, json};
use std::path::PathBuf;

/// Shares of the experts, in percent, whose picks are shown.
const HOTTEST: [u32; 3] = [10, 25, 50];

/// Show how much of a layer's picks its hottest experts get
#[derive(clap::Args)]
pub struct Args {
    /// The profile
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// What to show [default: generation, if it has any]
    #[arg(long)]
    phase: Option<PhaseName>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What there is to say of a layer.
struct Row {
    n_experts: usize,
    n_tokens: u64,
    /// As [`HOTTEST`].
    coverage: [Option<f64>; 3],
    /// Bits.
    entropy: Option<f64>,
}

impl Row {
    fn of(heat: &Heat, top_k: u64) -> Self {
        let n_tokens = heat.count.iter().sum::<u64>() / top_k;
        let counts = LayerCounts {
            n_tokens: n_tokens as f64,
            picks: heat.weight.clone(),
        };
        Self {
            n_experts: heat.weight.len(),
            n_tokens,
            coverage: HOTTEST.map(|percent| counts.coverage(percent)),
            entropy: counts.entropy(),
        }
    }

    /// The entropy of a router that picks all experts alike, in bits.
    fn flat(&self) -> f64 {
        (self.n_experts as f64).log2()
    }

    fn value(&self) -> Value {
        json!({
            "n_experts": self.n_experts,
            "n_tokens": self.n_tokens,
            "coverage": coverage_value(self.coverage),
            "entropy": self.entropy,
            "entropy_flat": self.flat(),
        })
    }
}

pub fn run(args: &Args) -> anyhow::Result<()> {
    let profile = Profile::read(&args.file)?;
    let phase = PhaseName::or_known(args.phase, &[&profile]);
    let top_k = u64::from(profile.model.top_k.max(1));
    let layers = profile.layers.iter();
    let rows: Vec<Row> = layers
        .map(|layer| Row::of(layer.heat(phase), top_k))
        .collect();
    let number = [0, 1, 2];
    let means = number.map(|i| mean(rows.iter().filter_map(|row| row.coverage[i])));
    let entropy = mean(rows.iter().filter_map(|row| row.entropy));
    let value = json!({
        "name": profile.name,
        "model": profile.model,
        "tokens": profile.tokens,
        "created": profile.created,
        "updated": profile.updated,
        "phase": name_of(phase),
        "layers": rows.iter().map(Row::value).collect::<Vec<_>>(),
        "mean": { "coverage": coverage_value(means), "entropy": entropy },
    });
    let flat = mean(rows.iter().map(Row::flat));
    let mut lines: Vec<Vec<String>> = rows
        .iter()
        .enumerate()
        .map(|(number, row)| {
            line(
                number.to_string(),
                row.coverage,
                row.entropy,
                Some(row.flat()),
                row.n_tokens.to_string(),
            )
        })
        .collect();
    lines.push(line(
        "mean".to_string(),
        means,
        entropy,
        flat,
        String::new(),
    ));
    let header = [
        "LAYER",
        "HOTTEST 10 %",
        "25 %",
        "50 %",
        "ENTROPY",
        "FLAT",
        "TOKENS",
    ];
    let text = format!(
        "{}\n{}: share of the picks that the hottest experts of a layer get, entropy in bits\n{}",
        summary(&profile),
        name_of(phase),
        table(&header, header.len(), lines)
    );
    print(args.json, &value, &text)
}

fn coverage_value(coverage: [Option<f64>; 3]) -> Value {
    let pairs = HOTTEST.iter().zip(coverage);
    pairs
        .map(|(percent, share)| (percent.to_string(), json!(share)))
        .collect()
}

fn line(
    name: String,
    coverage: [Option<f64>; 3],
    entropy: Option<f64>,
    flat: Option<f64>,
    tokens: String,
) -> Vec<String> {
    let bits = |bits: Option<f64>| bits.map_or("-".to_string(), |bits| format!("{bits:.2}"));
    let mut line = vec![name];
    line.extend(coverage.map(percent));
    line.extend([bits(entropy), bits(flat), tokens]);
    line
}
