//! What a routed expert costs an engine whose experts are all in memory: `measure PASSES POLICY BYTES`, made of
//! benches/route.rs. Copy it to examples/ to build it.

use hotset::engine::layout::{Layout, Tensor};
use hotset::engine::{Batch, Engine, Inputs, Routing};
use hotset::expert::{Event, Shape};
use hotset::policy::{self, REGISTRY};
use hotset::residency::{Buffers, Residency};
use hotset::store::{Faults, ModelFile, QueueDepth, QueueKind, QueueOptions};
use hotset::trace::Picks;
use hotset::tracker::{Phase, Tracker};
use std::hint::black_box;
use std::io::Write;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

const N_LAYERS: u32 = 48;
const N_EXPERTS: u32 = 128;
const TOP_K: u32 = 8;
const NS_MAX: f64 = 200.0;
/// Of it, what the tracker may take.
const TRACK_NS_MAX: f64 = 20.0;

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
fn pass(residency: &mut Residency, buffers: &mut Buffers, routing: &[(u32, Vec<u32>)]) {
    for (layer, experts) in routing {
        let event = Event {
            layer: *layer,
            n_tokens: 1,
            experts,
            rows: &[1; TOP_K as usize],
            ranks: &[],
        };
        let planned = residency
            .plan(black_box(&event), std::mem::take(buffers))
            .expect("the events are valid");
        let committed = residency.commit(planned);
        *buffers = residency.release(committed);
    }
}


/// Counts the whole routing, over and over: the windows are full after a few passes.

const N_PARTS: usize = 3;
const PART_BYTES: usize = 512;

/// An engine over a file of small experts, all of which fit.
fn engine(policy: &str) -> Engine {
    let mut file = tempfile::tempfile().expect("a temporary file");
    let n_bytes = N_PARTS * PART_BYTES * (N_LAYERS * N_EXPERTS) as usize;
    file.write_all(&vec![1; n_bytes]).expect("room for it");
    let tensors: Vec<_> = (0..N_LAYERS as usize * N_PARTS)
        .map(|i| Tensor {
            name: format!("blk.{}.part{}", i / N_PARTS, i % N_PARTS),
            block: (i / N_PARTS) as u32,
            n_experts: N_EXPERTS,
            n_bytes: PART_BYTES,
            file: 0,
            offset: (i * PART_BYTES * N_EXPERTS as usize) as u64,
        })
        .collect();
    let file = ModelFile::open(file.as_fd()).expect("it is open");
    let layout = Layout::new(&tensors, &[file.align()], std::env::args().nth(3).unwrap().parse::<u64>().unwrap()).expect("it fits");
    let options = QueueOptions {
        kind: QueueKind::Auto,
        queue_depth: QueueDepth {
            depth: 16,
            ..QueueDepth::default()
        },
        faults: Faults::default(),
    };
    Engine::new(layout, vec![file], policy, options).expect("the arena is small")
}

/// What a compute thread does for a token: three operations per layer, each routed and then read
/// expert by expert.
fn token(engine: &Engine, layer: usize, ids: &[i32], rows: &[i64]) {
    let routing = Routing {
        picks: Picks::new(ids, ids.len(), ids.len()),
        n_rows: rows,
        batch: &Batch::default(),
        inputs: Inputs::default(),
    };
    for part in 0..N_PARTS {
        let event = engine.route(layer, part, 1, 1, black_box(&routing));
        event.expect("nothing can fail");
        for i in 0.. {
            match engine.acquire(layer, 1, 0, i).expect("nothing can fail") {
                Some(found) => black_box(found),
                None => break,
            };
        }
    }
}


fn main() {
    let args: Vec<String> = std::env::args().collect();
    let n: u32 = args[1].parse().unwrap();
    let engine = engine(&args[2]);
    let routing: Vec<(usize, Vec<i32>, Vec<i64>)> = routing()
        .into_iter()
        .map(|(layer, experts)| {
            let mut rows = vec![0; N_EXPERTS as usize];
            experts.iter().for_each(|e| rows[*e as usize] = 1);
            let ids = experts.iter().map(|&e| e as i32).collect();
            (layer as usize, ids, rows)
        })
        .collect();
    for _ in 0..n {
        for (layer, ids, rows) in &routing {
            token(&engine, *layer, ids, rows);
        }
    }
    println!("{} {}", routing.len() * TOP_K as usize, engine.meter().n_reads.load(std::sync::atomic::Ordering::Relaxed));
}
