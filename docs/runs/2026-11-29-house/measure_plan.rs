//! What it costs the pools of a device: `measure_plan PASSES POLICY PERCENT`, made of benches/plan.rs.

use hotset::device::{DeviceCache, PoolOf};
use hotset::draft_tokens::Batch;
use hotset::trace::{Picks, Trace};
use std::hint::black_box;
use std::path::Path;
use std::time::Instant;

const TRACE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/mixed.trace.gz");
/// Tokens of the trace.
const N_TOKENS: u32 = 512;
/// More than upstream's plan takes.
const NS_MAX: f64 = 1000.0;

/// Plans the whole routing once; returns how many experts were missing.
fn pass(cache: &DeviceCache, routing: &[(usize, Vec<i32>)]) -> u64 {
    let batch = Batch::default();
    let plan = |(layer, ids): &(usize, Vec<i32>)| {
        let picks = Picks::new(black_box(ids), ids.len(), ids.len());
        let n_misses = cache.plan(*layer, picks, &batch, |plan| Ok(plan.fills.len() as u64));
        n_misses.expect("the routing is valid") as u64
    };
    routing.iter().map(plan).sum()
}

fn main() {
    let trace = Trace::open(Path::new(TRACE), N_TOKENS).expect("a recording of ours");
    let shape = trace.header().shape();
    let routing: Vec<(usize, Vec<i32>)> = trace
        .events()
        .filter(|(_, event)| event.n_tokens == 1)
        .map(|(_, event)| {
            let ids = event.experts.iter().map(|&expert| expert as i32);
            (event.layer as usize, ids.collect())
        })
        .collect();
    let args: Vec<String> = std::env::args().collect();
    let n: u32 = args[1].parse().unwrap();
    let percent: usize = args[3].parse().unwrap();
    let pool = PoolOf {
        device: "none".to_string(),
        layers: (0..shape.n_layers() as usize).collect(),
        n_slots: (shape.n_total() * percent / 100) as u32,
        shape: shape.clone(),
    };
    let cache = DeviceCache::new(vec![pool], &args[2]).expect("it is in the registry");
    let mut misses = 0;
    for _ in 0..n {
        misses += pass(&cache, &routing);
    }
    let n_picks: usize = routing.iter().map(|(_, ids)| ids.len()).sum();
    println!("{n_picks} {misses}");
}
