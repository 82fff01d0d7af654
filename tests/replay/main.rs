//! The replay against slow, obvious versions of the same thing, and against golden counts.

use hotset::expert::{Event, Shape};
use hotset::trace::Trace;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

mod golden;
#[cfg(feature = "cli")]
mod grid;
mod optimum;
mod policies;
mod pools;

/// Layer, tokens, experts (ascending), rows.
type Recorded = (u32, u32, Vec<u32>, Vec<u32>);

fn events(trace: &[Recorded]) -> impl Iterator<Item = Event<'_>> {
    trace.iter().map(|(layer, n_tokens, experts, rows)| Event {
        layer: *layer,
        n_tokens: *n_tokens,
        experts,
        rows,
        ..Event::default()
    })
}

/// Random numbers that are the same on any machine (splitmix64).
fn rng(seed: u64) -> impl FnMut(u32) -> u32 {
    let mut state = seed;
    move |limit| {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % u64::from(limit)) as u32
    }
}

/// Up to `k_max` picks per event; `scans` of 10 events are prompts.
fn random_trace(
    seed: u64,
    shape: &Shape,
    n_events: usize,
    k_max: u32,
    scans: u32,
) -> Vec<Recorded> {
    let mut below = rng(seed);
    let mut trace = Vec::new();
    for _ in 0..n_events {
        let layer = below(shape.n_layers());
        let is_prefill = below(10) < scans;
        let n_tokens = if is_prefill { 33 } else { 1 + below(3) };
        let n_picks = 1 + below(if is_prefill { 2 * k_max } else { k_max });
        let picks: BTreeSet<u32> = (0..n_picks)
            .map(|_| below(shape.n_experts(layer)))
            .collect();
        let rows = picks.iter().map(|_| 1 + below(n_tokens)).collect();
        trace.push((layer, n_tokens, picks.into_iter().collect(), rows));
    }
    trace
}

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data")
        .join(name)
}

/// A trace of this text.
fn trace(text: &str) -> Trace {
    Trace::read_text(Path::new("text"), text.as_bytes(), u32::MAX).unwrap()
}
