//! What the plan of a device costs for a routed expert: all that a policy, the counters and the log do between the
//! router's ids and the list of uploads. Upstream's own plan is a plain LRU; `benches/device.sh overhead` counts
//! the instructions of both in a run.

use criterion::Criterion;
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
    let mut criterion = Criterion::default().configure_from_args();
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
    let n_picks: usize = routing.iter().map(|(_, ids)| ids.len()).sum();
    for policy in ["lru", "adaptive"] {
        for percent in [100, 50, 20] {
            let pool = PoolOf {
                device: "none".to_string(),
                layers: (0..shape.n_layers() as usize).collect(),
                n_slots: (shape.n_total() * percent / 100) as u32,
                shape: shape.clone(),
            };
            let cache = DeviceCache::new(vec![pool], policy).expect("it is in the registry");
            pass(&cache, &routing);
            let mut best = f64::INFINITY;
            let mut n_misses = 0;
            let name = format!("plan/{policy}/{percent}%");
            criterion.bench_function(&name, |bencher| {
                bencher.iter_custom(|n| {
                    let start = Instant::now();
                    for _ in 0..n {
                        let start = Instant::now();
                        n_misses = pass(&cache, &routing);
                        best = best.min(start.elapsed().as_nanos() as f64 / n_picks as f64);
                    }
                    start.elapsed()
                });
            });
            if best.is_infinite() {
                continue; // filtered out on the command line
            }
            assert_eq!(n_misses == 0, percent == 100, "{name}: {n_misses} misses");
            let missing = 100.0 * n_misses as f64 / n_picks as f64;
            println!("{name}: {best:.1} ns per routed expert, {missing:.1} % of them missing");
            assert!(best < NS_MAX, "{name}: {best:.1} ns, limit {NS_MAX}");
        }
    }
    criterion.final_summary();
}
