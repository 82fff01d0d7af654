//! What a routed expert costs in the memory under a device, where what is missing takes the place of a spare. It
//! has a program of its own: in that of `route` it would slow down what is measured there.

use criterion::Criterion;
use hotset::expert::{Event, ExpertId, Shape};
use hotset::policy;
use hotset::residency::{Buffers, Residency};
use std::hint::black_box;
use std::time::Instant;

const N_LAYERS: u32 = 60;
const N_EXPERTS: u32 = 256;
const TOP_K: u32 = 8;
/// A walk over all residents, which are half of all experts, takes several times as long.
const NS_MAX: f64 = 2_000.0;

/// Plans, commits and releases a token, all of whose picks are spare then.
fn pass(residency: &mut Residency, buffers: &mut Buffers, token: u32) {
    let spread = N_EXPERTS / TOP_K;
    for layer in 0..N_LAYERS {
        let pick = |i| i * spread + (token * 7 + layer * 3 + i) % spread;
        let experts: [u32; TOP_K as usize] = std::array::from_fn(|i| pick(i as u32));
        let event = Event {
            layer,
            n_tokens: 1,
            experts: black_box(&experts),
            rows: &[1; TOP_K as usize],
            ..Event::default()
        };
        let planned = residency.plan(&event, std::mem::take(buffers));
        let committed = residency.commit(planned.expect("the events are valid"));
        *buffers = residency.release(committed);
        for expert in experts {
            residency.spare(ExpertId { layer, expert });
        }
    }
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let shape = Shape::uniform(N_LAYERS, N_EXPERTS);
    for name in ["lru", "adaptive"] {
        let policy = policy::by_name(name, &shape).expect("it is in the registry");
        let mut residency = Residency::new(shape.clone(), shape.n_total() as u32 / 2, policy);
        let mut buffers = Buffers::default();
        (0..64).for_each(|token| pass(&mut residency, &mut buffers, token));
        let before = residency.counts().decode;
        let mut token = 64;
        let mut best = f64::INFINITY;
        criterion.bench_function(&format!("spares/{name}"), |bencher| {
            bencher.iter_custom(|n| {
                let start = Instant::now();
                for _ in 0..n {
                    let start = Instant::now();
                    pass(&mut residency, &mut buffers, token);
                    token += 1;
                    let ns = start.elapsed().as_nanos() as f64;
                    best = best.min(ns / f64::from(N_LAYERS * TOP_K));
                }
                start.elapsed()
            });
        });
        if best.is_infinite() {
            continue; // filtered out on the command line
        }
        let after = residency.counts().decode;
        let missing =
            (after.misses - before.misses) as f64 / (after.picks() - before.picks()) as f64;
        assert!(missing > 0.5 && after.evictions > before.evictions);
        println!(
            "{name}: {best:.1} ns per routed expert, {:.0} % of them missing",
            100.0 * missing
        );
        assert!(best < NS_MAX, "{name}: {best:.1} ns, limit {NS_MAX}");
    }
    criterion.final_summary();
}
