//! Profiles in files: what is written is read again, whatever happens to the writer, and nothing damaged is taken for
//! a profile.

use hotset::profile::{Fingerprint, Profile};
use hotset::tracker::Phase;
use mutant::rng;
use std::path::Path;

mod choose;
mod file;
mod fuzz;
mod import;
mod kills;
#[path = "../mutant/mod.rs"]
mod mutant;
mod refused;

/// A profile of layers of so many experts, all of it random; its weights have four digits.
fn random(n_experts: &[u32], seed: u64) -> Profile {
    let model = Fingerprint {
        architecture: "qwen3moe".to_string(),
        name: "Some \"Model\" A3B".to_string(),
        n_layers: n_experts.len() as u32,
        n_experts: *n_experts.iter().max().unwrap(),
        top_k: 1,
    };
    let mut profile = Profile::new("workload", model, n_experts);
    let mut below = rng(seed);
    profile.tokens.prompt = below(1_000_000) as u64;
    profile.tokens.generation = below(1_000_000) as u64;
    for layer in &mut profile.layers {
        for phase in Phase::ALL {
            let heat = layer.heat_mut(phase);
            heat.weight
                .fill_with(|| (below(9000) + 1000) as f64 / 100.0);
            heat.count.fill_with(|| below(100_000) as u64);
        }
    }
    profile
}

/// The files of a folder, sorted.
fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}
