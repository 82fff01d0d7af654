//! `hotset profile diff`: how alike two profiles are, and what is hot in one of them only.

use super::checks::check_same;
use super::shown::{PhaseName, name_of, print, table};
use crate::cli::number_args::percent;
use hotset::profile::{Heat, Profile, layer_similarities, similarity};
use hotset::tracker::Phase;
use serde_json::json;
use std::path::PathBuf;

/// Experts of a layer that the table names; JSON has all.
const N_NAMED: usize = 8;

/// Compare two profiles of a model
#[derive(clap::Args)]
#[command(
    after_help = "Similarity is 1 less the Jensen-Shannon divergence: 100 % = the same picks, 0 % = no expert in \
    common. Hot is the quarter of a layer's experts that is picked most."
)]
pub struct Args {
    /// A profile
    a: PathBuf,
    /// Another
    b: PathBuf,
    /// In what experts are hot [default: generation, if both have any]
    #[arg(long)]
    phase: Option<PhaseName>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> anyhow::Result<()> {
    let (a, b) = (Profile::read(&args.a)?, Profile::read(&args.b)?);
    check_same(&a, &args.b, &b)?;
    let phase = PhaseName::or_known(args.phase, &[&a, &b]);
    // As `Phase::ALL`.
    let all = Phase::ALL.map(|phase| similarity(&a, &b, phase));
    let by_layer = Phase::ALL.map(|phase| layer_similarities(&a, &b, phase));
    let (mut values, mut lines) = (Vec::new(), Vec::new());
    for (number, (in_a, in_b)) in a.layers.iter().zip(&b.layers).enumerate() {
        let (hot_a, hot_b) = (hottest(in_a.heat(phase)), hottest(in_b.heat(phase)));
        let (only_a, only_b) = (without(&hot_a, &hot_b), without(&hot_b, &hot_a));
        let similarities = [0, 1].map(|phase| by_layer[phase][number]);
        values.push(json!({
            "generation": similarities[0],
            "prompt": similarities[1],
            "only_hot_in_a": only_a,
            "only_hot_in_b": only_b,
        }));
        let mut line = vec![number.to_string()];
        line.extend(similarities.map(percent));
        line.extend([list(&only_a), list(&only_b)]);
        lines.push(line);
    }
    let mut last = vec!["mean".to_string()];
    last.extend(all.map(percent));
    lines.push(last);
    let value = json!({
        "a": a.name,
        "b": b.name,
        "phase": name_of(phase),
        "similarity": { "generation": all[0], "prompt": all[1] },
        "layers": values,
    });
    let only = |name| format!("ONLY HOT IN {name}");
    let (only_a, only_b) = (only(&a.name), only(&b.name));
    let header = ["LAYER", "GENERATION", "PROMPT", &only_a, &only_b];
    let text = format!(
        "similarity of {} and {}; experts that are hot in one only, {}\n{}",
        a.name,
        b.name,
        name_of(phase),
        table(&header, 3, lines)
    );
    print(args.json, &value, &text)
}

/// The quarter of the experts that is picked most, ascending; none that is not picked.
fn hottest(heat: &Heat) -> Vec<usize> {
    let mut experts: Vec<usize> = (0..heat.weight.len()).collect();
    experts.sort_by(|&a, &b| heat.weight[b].total_cmp(&heat.weight[a]));
    experts.truncate(heat.weight.len().div_ceil(4));
    experts.retain(|&expert| heat.weight[expert] > 0.0);
    experts.sort_unstable();
    experts
}

fn without(all: &[usize], others: &[usize]) -> Vec<usize> {
    let mut kept = all.to_vec();
    kept.retain(|expert| !others.contains(expert));
    kept
}

/// `1,5,9`, the first of them.
fn list(experts: &[usize]) -> String {
    let named = experts.iter().take(N_NAMED);
    let text = named.map(usize::to_string).collect::<Vec<_>>().join(",");
    match experts.len().saturating_sub(N_NAMED) {
        0 => text,
        more => format!("{text} and {more} more"),
    }
}
