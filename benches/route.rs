//! What a routed expert costs the thread that reports it, when everything it needs is resident.

use criterion::Criterion;
use hotset::expert::{Event, Shape};
use hotset::policy::{self, REGISTRY};
use hotset::residency::{Plan, Residency};
use std::hint::black_box;
use std::time::{Duration, Instant};

const N_LAYERS: u32 = 48;
const N_EXPERTS: u32 = 128;
const TOP_K: u32 = 8;
const NS_MAX: f64 = 200.0;

/// The experts of 64 tokens, by token and layer: ascending and spread over the layer.
fn routing() -> Vec<(u32, Vec<u32>)> {
    let spread = N_EXPERTS / TOP_K;
    let picks = |token: u32, layer: u32| {
        (0..TOP_K).map(move |i| i * spread + (token * 7 + layer * 3 + i) % spread)
    };
    (0..64)
        .flat_map(|token| (0..N_LAYERS).map(move |layer| (layer, picks(token, layer).collect())))
        .collect()
}

/// Plans, commits and releases the whole routing once.
fn pass(residency: &mut Residency, plan: &mut Plan, routing: &[(u32, Vec<u32>)]) {
    for (layer, experts) in routing {
        let event = Event {
            layer: *layer,
            n_tokens: 1,
            experts,
            rows: &[1; TOP_K as usize],
        };
        residency
            .plan(black_box(&event), plan)
            .expect("the events are valid");
        residency.commit(plan);
        residency.release(plan);
    }
}

fn route(criterion: &mut Criterion) {
    let shape = Shape::uniform(N_LAYERS, N_EXPERTS);
    let routing = routing();
    let n_picks = routing.len() as u64 * u64::from(TOP_K);
    for spec in REGISTRY {
        let policy = policy::by_name(spec.name, &shape).expect("it is in the registry");
        let mut residency = Residency::new(shape.clone(), shape.n_total() as u32, policy);
        let mut plan = Plan::default();
        pass(&mut residency, &mut plan, &routing);
        let n_misses = residency.counts().decode.misses;
        let mut elapsed = Duration::ZERO;
        let mut n_passes = 0;
        criterion.bench_function(&format!("route/{}", spec.name), |bencher| {
            bencher.iter_custom(|n| {
                let start = Instant::now();
                for _ in 0..n {
                    pass(&mut residency, &mut plan, &routing);
                }
                elapsed += start.elapsed();
                n_passes += n;
                start.elapsed()
            });
        });
        if n_passes == 0 {
            continue; // filtered out on the command line
        }
        let tally = residency.counts().decode;
        assert_eq!(tally.misses, n_misses, "{}: all was resident", spec.name);
        assert_eq!(tally.hits + tally.misses, n_picks * (n_passes + 1));
        let ns = elapsed.as_nanos() as f64 / (n_picks * n_passes) as f64;
        println!("{}: {ns:.1} ns per routed expert", spec.name);
        assert!(ns < NS_MAX, "{}: {ns:.1} ns, limit {NS_MAX}", spec.name);
    }
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    route(&mut criterion);
    criterion.final_summary();
}
