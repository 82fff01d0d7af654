//! Every architecture of upstream's: the same logits with experts that stream as without hotset, to the bit.
//!
//! Upstream's own test of architectures makes a tiny random model of each. `known.txt` says of which it makes one with
//! experts, and what of that streams: an architecture that comes, goes or gets other tensors is noticed.

#![cfg(all(feature = "llama", feature = "cli"))]
#![allow(unsafe_code)]

mod models;
#[path = "../parts/mod.rs"]
mod parts;
#[path = "../runner/mod.rs"]
mod runner;

use hotset::config::Repack;
use hotset::gguf;
use hotset::llama::sys::*;
use models::{Maker, Weight, quantise};
use runner::{Options, same, streaming};
use std::collections::BTreeSet;
use std::path::Path;

const KNOWN: &str = include_str!("known.txt");

/// Batches of 1 and of 64, and two sequences in one.
const SHAPES: [Options; 3] = {
    const fn shape(n_batch: usize, n_tokens: usize, n_seq: usize) -> Options {
        Options {
            n_batch,
            n_ubatch: 64,
            n_tokens,
            n_generated: 2,
            n_seq,
            ..Options::DEFAULT
        }
    }
    [shape(1, 8, 1), shape(64, 128, 1), shape(4, 16, 2)]
};

/// All experts in memory, some, and none.
const PERCENTS: [f64; 3] = [100.0, 30.0, 0.0001];
/// And of other types: what they change is how an expert is read and computed, which some show.
const SOME: [f64; 1] = [30.0];

/// Compares a model whose experts are of this type with stock; returns how many runs were the same.
fn compare(path: &Path, ty: u32, percents: &[f64]) -> usize {
    let listed = gguf::list(path).unwrap().tensors.into_iter();
    let experts: Vec<_> = listed.filter(|tensor| is_streamed(&tensor.name)).collect();
    let expert_bytes: u64 = experts
        .iter()
        .map(|tensor| tensor.bare_bytes().unwrap())
        .sum();
    assert!(
        experts.iter().all(|tensor| tensor.ty == ty),
        "{}: {experts:?}",
        path.display()
    );
    for options in SHAPES {
        let (stock, none) = runner::run(path, None, options);
        assert!(none.is_none());
        let is_finite = |bits: &u32| f32::from_bits(*bits).is_finite();
        assert!(stock.logits.iter().all(is_finite), "{}", path.display());
        for &percent in percents {
            let stats = same(path, &streaming(percent, Repack::Off), options, &stock);
            assert_eq!(stats.expert_bytes, expert_bytes, "{}", path.display());
            assert_eq!(stats.n_slots == 0, percent < 1.0);
            let misses = stats.generation.misses + stats.prompt.misses;
            assert_eq!(misses > 0, percent < 100.0);
        }
    }
    SHAPES.len() * percents.len()
}

/// What `known.txt` says of an architecture with these weights: what a router picks from, and of that what stays in memory.
fn say(weights: &[Weight]) -> String {
    let of_layer = |name: &String| name.split('.').skip(2).collect::<Vec<_>>().join(".");
    let (streamed, others): (Vec<_>, Vec<_>) =
        weights.iter().partition(|(name, _)| is_streamed(name));
    let names = |weights: Vec<&Weight>| {
        let names: BTreeSet<_> = weights.iter().map(|(name, _)| of_layer(name)).collect();
        Vec::from_iter(names).join(" ")
    };
    match (streamed.is_empty(), others.is_empty()) {
        (true, true) => "no experts".to_owned(),
        (true, false) => format!("not streamed: {}", names(others)),
        (false, true) => format!("streamed: {}", names(streamed)),
        (false, false) => format!(
            "streamed: {}; in memory: {}",
            names(streamed),
            names(others)
        ),
    }
}

fn is_streamed(name: &str) -> bool {
    gguf::expert_part(name).is_some()
}

#[test]
fn every_architecture() {
    let Some(maker) = Maker::new() else {
        println!("skipped: this checkout of llama.cpp has no tests/test-llama-archs.cpp");
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let [plain, quantised] = ["plain.gguf", "quantised.gguf"].map(|name| dir.path().join(name));
    let (mut found, mut n_same) = (String::new(), 0);
    for name in maker.architectures() {
        let saved = maker.save(&name, &plain);
        let what = match &saved {
            Ok(weights) => say(weights),
            Err(why) => format!("upstream's test makes none: {why}"),
        };
        println!("{name}: {what}");
        found += &format!("{name}: {what}\n");
        let weights = saved.unwrap_or_default();
        if !weights.iter().any(|(name, _)| is_streamed(name)) {
            continue;
        }
        n_same += compare(&plain, GGML_TYPE_F32, &PERCENTS);
        for (ftype, ty) in [
            (LLAMA_FTYPE_MOSTLY_Q8_0, GGML_TYPE_Q8_0),
            (LLAMA_FTYPE_MOSTLY_Q4_0, GGML_TYPE_Q4_0),
        ] {
            quantise(&plain, &quantised, ftype);
            n_same += compare(&quantised, ty, &SOME);
        }
    }
    println!("{n_same} runs gave the logits of stock");
    if parts::is_pinned() {
        assert_eq!(found, KNOWN, "is not what known.txt says");
    }
}
