//! Profiles from importance matrices, which llama.cpp's `llama-imatrix` writes as GGUF files.
//!
//! It runs texts through a model and counts, for each expert, the tokens that picked it. All are read as prompts.

use super::format::{Fingerprint, Profile};
use crate::error::{Error, Result};
use crate::gguf::{self, Listing};
use crate::trace::Header;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Largest count. Those above it are damage.
const COUNT_MAX: f32 = (1u64 << 53) as f32;
/// How far the picks of a token, as counts tell them, may be from a whole number.
const TOLERANCE: f64 = 0.05;

type Checked<T> = std::result::Result<T, String>;

/// Reads an importance matrix as a profile `name`.
///
/// Without `model`, whose layers and experts the file must have, the profile is of any model that has the shape of the
/// file: its architecture and name are empty.
///
/// Errors: [`Error::File`] if the file is of another kind, damaged or of another model, or if there is no `model` and
/// it does not say how many experts a token picks.
pub fn import(path: &Path, name: &str, model: Option<&Fingerprint>) -> Result<Profile> {
    check_format(path)?;
    let listing = gguf::list(path)?;
    let layers = layers(path, &listing)?;
    let (model, n_tokens) =
        identify(&layers, &listing, model).map_err(|why| Error::file(path, why))?;
    let n_experts: Vec<u32> = layers.iter().map(|counts| counts.len() as u32).collect();
    let mut profile = Profile::new(name, model, &n_experts);
    profile.tokens.prompt = n_tokens;
    for (layer, counts) in profile.layers.iter_mut().zip(layers) {
        layer.prompt.weight = counts.iter().map(|&n| n as f64).collect();
        layer.prompt.count = counts;
    }
    Ok(profile)
}

/// The format before GGUF has no mark to know it by. It has one count for all experts of a layer, so converting it
/// does not help.
fn check_format(path: &Path) -> Result<()> {
    // What is no file at all is for the reader to tell.
    if !path.is_file() {
        return Ok(());
    }
    let mut magic = Vec::new();
    File::open(path)
        .and_then(|file| file.take(4).read_to_end(&mut magic))
        .map_err(|cause| Error::file(path, cause.to_string()))?;
    if magic != b"GGUF" {
        let why = "it is not a GGUF file. If it is an importance matrix of the old format, which does \
                   not count by expert, record it again: llama-imatrix -m MODEL -f TEXT -o NEW.gguf";
        return Err(Error::file(path, why.to_string()));
    }
    Ok(())
}

/// The counts of each layer with experts, in the order of their blocks.
fn layers(path: &Path, listing: &Listing) -> Result<Vec<Vec<u64>>> {
    let kind = listing.values.text("general.type").unwrap_or_default();
    if kind != "imatrix" {
        let why = format!("general.type is {kind:?}: an importance matrix has \"imatrix\"");
        return Err(Error::file(path, why));
    }
    let mut blocks: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
    for tensor in &listing.tensors {
        let weight = tensor.name.strip_suffix(".counts");
        let Some((block, _)) = weight.and_then(gguf::expert_part) else {
            continue;
        };
        let counts = whole_numbers(&gguf::floats(path, tensor)?);
        let counts =
            counts.map_err(|why| Error::file(path, format!("'{}': {why}", tensor.name)))?;
        let kept = blocks.entry(block).or_insert_with(|| vec![0; counts.len()]);
        if kept.len() != counts.len() {
            let (n, others) = (counts.len(), kept.len());
            let why = format!("'{}' is of {n} experts, others of {others}", tensor.name);
            return Err(Error::file(path, why));
        }
        // They are alike, unless parts of the network were left out of some texts.
        if counts.iter().sum::<u64>() > kept.iter().sum() {
            *kept = counts;
        }
    }
    let n_total: usize = blocks.values().map(Vec::len).sum();
    match n_total {
        0 => Err(Error::file(path, "it has no routed experts".to_string())),
        n if n > Header::N_TOTAL_MAX as usize => {
            let why = format!("{n} experts are more than {}", Header::N_TOTAL_MAX);
            Err(Error::file(path, why))
        }
        _ => Ok(blocks.into_values().collect()),
    }
}

/// The counts of a layer.
fn whole_numbers(counts: &[f32]) -> Checked<Vec<u64>> {
    if counts.len() < 2 {
        return Err(format!(
            "{} counts do not tell experts apart: record it again, it was converted from the old format",
            counts.len()
        ));
    }
    match counts.iter().find(|n| !(0.0..=COUNT_MAX).contains(*n)) {
        Some(n) => Err(format!("a count of {n} is not in 0..={COUNT_MAX}")),
        None => Ok(counts.iter().map(|n| n.round() as u64).collect()),
    }
}

/// The model and the number of tokens.
fn identify(
    layers: &[Vec<u64>],
    listing: &Listing,
    model: Option<&Fingerprint>,
) -> Checked<(Fingerprint, u64)> {
    let n_layers = layers.len() as u32;
    let n_experts = layers.iter().map(|counts| counts.len() as u32).max();
    let n_experts = n_experts.unwrap_or(0);
    let mut totals: Vec<u64> = layers.iter().map(|counts| counts.iter().sum()).collect();
    totals.sort_unstable();
    // Not the mean: of the last layer, llama.cpp may compute only what its caller asks for.
    let n_picks = totals[totals.len() / 2];
    let number = |key| listing.values.number(key).unwrap_or(0);
    let (n_chunks, chunk_size) = (number("imatrix.chunk_count"), number("imatrix.chunk_size"));
    let n_tokens = n_chunks.saturating_mul(chunk_size);
    if let Some(model) = model {
        for (what, n, expected) in [
            ("layers with experts", n_layers, model.n_layers),
            ("experts in a layer", n_experts, model.n_experts),
        ] {
            if n != expected {
                return Err(format!("it has {n} {what}, the model has {expected}"));
            }
        }
        return match n_tokens {
            0 => Ok((model.clone(), n_picks / u64::from(model.top_k.max(1)))),
            _ => Ok((model.clone(), n_tokens)),
        };
    }
    let top_k = n_picks as f64 / n_tokens as f64;
    let is_clear = (top_k - top_k.round()).abs() <= TOLERANCE;
    if !is_clear || !(1.0..=f64::from(n_experts)).contains(&top_k.round()) {
        return Err(format!(
            "it does not say how many experts a token picks: {n_picks} picks of {n_tokens} tokens \
             (imatrix.chunk_count {n_chunks} times imatrix.chunk_size {chunk_size}); name its model with -m"
        ));
    }
    let model = Fingerprint {
        architecture: String::new(),
        name: String::new(),
        n_layers,
        n_experts,
        top_k: top_k.round() as u32,
    };
    Ok((model, n_tokens))
}
