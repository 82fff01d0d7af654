//! Prompts without llama.cpp: each expert is read once a batch, those of the next layer before it is routed, nothing
//! that is there has to go, and every address holds the right bytes, whoever is in between.

#![allow(unsafe_code)]

mod patterned;

use hotset::engine::{Batch, Engine, Inputs, Routing};
use hotset::pooled::Pooled;
use hotset::residency::Counts;
use hotset::trace::Picks;
use patterned::Source;
use std::fs::File;
use std::sync::Barrier;
use std::time::Instant;

const N_LAYERS: usize = 4;
const N_EXPERTS: usize = 16;
const N_PARTS: usize = 3;
const PART_BYTES: [usize; N_PARTS] = [3 * 4096, 4096, 5 * 4096 + 64];
/// A batch of a prompt.
const N_TOKENS: usize = 48;
const TOP_K: usize = 4;
/// More places than there are parts in a layer.
const MANY: usize = 100;

fn word(layer: usize, part: usize, expert: usize) -> u32 {
    0xabcd_0000 + ((layer * N_PARTS + part) * N_EXPERTS + expert) as u32
}

/// An engine with `n_slots` slots and a ring of up to `n_places`, and its file.
fn engine(policy: &str, n_slots: usize, n_places: usize, faults: &str) -> (Engine, File) {
    let source = Source {
        n_experts: N_EXPERTS,
        n_layers: N_LAYERS,
        part_bytes: &PART_BYTES,
        word,
    };
    patterned::engine(
        &source,
        policy,
        n_slots,
        Some(n_places.min(N_EXPERTS * N_PARTS)),
        8192,
        faults,
    )
}

/// The picks of tokens in a layer: of the first `n_used` experts after some.
fn picks(n_tokens: usize, n_used: usize, first: usize) -> Vec<i32> {
    let expert = |i: usize| ((first + i % n_used) % N_EXPERTS) as i32;
    (0..n_tokens)
        .flat_map(|t| (0..TOP_K).map(move |k| expert(t * TOP_K + k)))
        .collect()
}

/// Computes the first `n_parts` operations of an event in a lane of `n_threads`, from `first_part` on. Checks every
/// byte.
fn compute(
    engine: &Engine,
    key: usize,
    layer: usize,
    ids: &[i32],
    parts: impl Iterator<Item = usize>,
    n_threads: u32,
) {
    let mut n_rows = [0; N_EXPERTS];
    ids.iter().for_each(|&e| n_rows[e as usize] += 1);
    let routing = Routing {
        picks: Picks::new(ids, TOP_K, TOP_K),
        n_rows: &n_rows,
        batch: &Batch::default(),
        inputs: Inputs::default(),
    };
    for part in parts {
        engine.route(layer, part, key, n_threads, &routing).unwrap();
        let begin = Barrier::new(n_threads as usize);
        std::thread::scope(|scope| {
            for ith in 1..n_threads {
                let begin = &begin;
                scope.spawn(move || {
                    begin.wait();
                    look(engine, key, layer, part, ith, &n_rows);
                });
            }
            begin.wait();
            look(engine, key, layer, part, 0, &n_rows);
        });
    }
}

/// One thread of an operation.
fn look(
    engine: &Engine,
    key: usize,
    layer: usize,
    part: usize,
    ith: u32,
    n_rows: &[i64; N_EXPERTS],
) {
    let mut is_seen = [false; N_EXPERTS];
    for i in 0.. {
        let Some((expert, address)) = engine.acquire(layer, key, ith, i).unwrap() else {
            break;
        };
        let n_words = PART_BYTES[part] / 4;
        // SAFETY: the engine keeps the part at this address until the operation has ended.
        let words = unsafe { std::slice::from_raw_parts(address as *const u32, n_words) };
        let expected = word(layer, part, expert as usize);
        let wrong = words.iter().position(|&w| w != expected);
        assert_eq!(wrong, None, "layer {layer} part {part} expert {expert}");
        assert!(!is_seen[expert as usize], "expert {expert} comes twice");
        is_seen[expert as usize] = true;
    }
    assert_eq!(is_seen, n_rows.map(|n| n > 0));
}

fn all_parts(engine: &Engine, key: usize, layer: usize, ids: &[i32], n_threads: u32) {
    compute(engine, key, layer, ids, 0..N_PARTS, n_threads);
}

/// All layers for a batch of a prompt that picks all experts.
fn prompt(engine: &Engine, key: usize, n_threads: u32) {
    for layer in 0..N_LAYERS {
        let ids = picks(N_TOKENS, N_EXPERTS, 0);
        all_parts(engine, key, layer, &ids, n_threads);
    }
}

/// All layers for a token of generation.
fn token(engine: &Engine, key: usize, n: usize) {
    for layer in 0..N_LAYERS {
        let ids = picks(1, TOP_K, n * 5 + layer);
        all_parts(engine, key, layer, &ids, 1);
    }
}

fn wait_until_idle(engine: &Engine) {
    let begin = Instant::now();
    while engine.queue().stats().n_in_flight > 0 {
        assert!(begin.elapsed().as_secs() < 60, "a read does not end");
        std::thread::yield_now();
    }
    // That falls just before the engine is told.
    std::thread::sleep(std::time::Duration::from_micros(200));
}

fn n_reads(engine: &Engine) -> u64 {
    wait_until_idle(engine);
    engine.queue().stats().n_reads
}

fn counts(engine: &Engine) -> Counts {
    let mut counts = Counts::default();
    let looked = engine.inspect(|_, Pooled { residency, .. }| {
        residency.validate();
        counts = residency.counts();
    });
    looked.expect("nobody plans");
    counts
}

/// Experts that are resident, by dense index.
fn residents(engine: &Engine) -> Vec<bool> {
    let mut all = Vec::new();
    engine.inspect(|_, Pooled { residency, .. }| {
        let ids = (0..residency.shape().n_total()).map(|i| residency.shape().id(i));
        all.extend(ids.map(|id| residency.is_resident(id)));
    });
    all
}

/// Cold and warm, through rings of two places and of more than a layer needs.
#[test]
fn each_expert_is_read_once_a_batch() {
    for n_places in [2, 3, 7, 20, MANY] {
        for n_slots in [0, 10, 30, 50, 63] {
            for n_threads in [1, 2] {
                let (engine, _) = engine("lru", n_slots, n_places, "short=5");
                let about = format!("{n_places} places, {n_slots} slots, {n_threads} threads");
                let mut before = 0;
                for _ in 0..3 {
                    prompt(&engine, 1, n_threads);
                    let misses = counts(&engine).prefill.misses;
                    // The last layer is not read in advance before one of a prompt was seen.
                    assert_eq!(n_reads(&engine), misses * N_PARTS as u64, "{about}");
                    assert!(misses > before, "{about}");
                    before = misses;
                }
                let resident = residents(&engine).iter().filter(|is| **is).count();
                assert_eq!(resident, n_slots, "{about}");
                // What was copied to slots is right.
                (0..40).for_each(|n| token(&engine, 1, n));
            }
        }
    }
}

#[test]
fn nothing_that_is_there_goes() {
    let (engine, _) = engine("lru", 20, MANY, "");
    (0..20).for_each(|n| token(&engine, 1, n));
    let before = residents(&engine);
    for _ in 0..3 {
        prompt(&engine, 1, 2);
        assert_eq!(residents(&engine), before);
    }
    assert_eq!(counts(&engine).prefill.evictions, 0);
}

/// The reads of the next layer are there, as far as there is room, before anybody has said what it picks.
#[test]
fn the_next_layer_is_read_before_it_is_routed() {
    for (n_places, n_slots) in [(2, 0), (10, 20), (MANY, 20)] {
        let (engine, _) = engine("lru", n_slots, n_places, "delay_ms=1");
        let n_places = engine.layout().ring.n_places as u64;
        let ids = picks(N_TOKENS, N_EXPERTS, 0);
        all_parts(&engine, 1, 0, &ids, 1);
        let of_layer = (N_EXPERTS * N_PARTS) as u64;
        let n_ahead = n_reads(&engine) - of_layer;
        assert_eq!(n_ahead, n_places.min(of_layer), "{n_places} places");
        all_parts(&engine, 1, 1, &ids, 1);
        assert!(n_reads(&engine) >= 2 * of_layer + n_ahead.min(of_layer));
        prompt(&engine, 1, 1);
    }
}

/// Nobody reads ahead of one token, or after the last layer, or for a layer that a prompt leaves out.
#[test]
fn what_will_not_be_picked_is_not_read() {
    let (engine, _) = engine("lru", 0, MANY, "");
    let of_layer = (N_EXPERTS * N_PARTS) as u64;
    token(&engine, 1, 0);
    let before = n_reads(&engine);
    assert_eq!(before, (N_LAYERS * TOP_K * N_PARTS) as u64);
    let ids = picks(N_TOKENS, N_EXPERTS, 0);
    for layer in 0..N_LAYERS - 1 {
        all_parts(&engine, 1, layer, &ids, 1);
    }
    // The last layer is computed for one token.
    let one = picks(1, TOP_K, 0);
    assert_eq!(n_reads(&engine), before + (N_LAYERS as u64 - 1) * of_layer);
    all_parts(&engine, 1, N_LAYERS - 1, &one, 1);
    // Where prompts go on to the end, that is learnt.
    prompt(&engine, 1, 1);
    let before = n_reads(&engine);
    (0..N_LAYERS - 1).for_each(|layer| all_parts(&engine, 1, layer, &ids, 1));
    assert_eq!(n_reads(&engine), before + N_LAYERS as u64 * of_layer);
    // Experts that prompts leave alone are not expected any more.
    let half = picks(N_TOKENS, N_EXPERTS / 2, 0);
    for _ in 0..40 {
        (0..N_LAYERS).for_each(|layer| all_parts(&engine, 1, layer, &half, 1));
    }
    let before = n_reads(&engine);
    (0..N_LAYERS).for_each(|layer| all_parts(&engine, 1, layer, &half, 1));
    assert_eq!(n_reads(&engine), before + N_LAYERS as u64 * of_layer / 2);
}

/// What the next layer picks is another thing than was expected, or the same in another order of the parts.
#[test]
fn wrong_expectations_do_no_harm() {
    for n_places in [2, 5, MANY] {
        for n_slots in [0, 9, 40] {
            let (engine, _) = engine("adaptive", n_slots, n_places, "delay_ms=1");
            for n in 0..12 {
                for layer in 0..N_LAYERS {
                    let n_used = [N_EXPERTS, 5, 9, 1 + n % N_EXPERTS][(n + layer) % 4].max(TOP_K);
                    let ids = picks(N_TOKENS, n_used, 3 * n + layer);
                    let turn = (n + layer) % N_PARTS;
                    let parts = (0..N_PARTS).map(|part| (part + turn) % N_PARTS);
                    compute(&engine, 1, layer, &ids, parts, 1);
                }
                counts(&engine);
            }
        }
    }
}

/// Prompts end between two operations, and what comes after is right; slots that were not filled are.
#[test]
fn prompts_that_are_cut_short_leave_no_wrong_bytes() {
    for n_places in [2, 6, MANY] {
        for n_slots in [0, 12, 40] {
            let (engine, _) = engine("lru", n_slots, n_places, "short=3");
            for n in 0..24 {
                let last = n % N_LAYERS;
                let ids = picks(N_TOKENS, N_EXPERTS, n);
                (0..last).for_each(|layer| all_parts(&engine, 1, layer, &ids, 1));
                compute(&engine, 1, last, &ids, 0..n % N_PARTS, 1);
                match n % 3 {
                    0 => token(&engine, 1, n),
                    1 => prompt(&engine, 1, 2),
                    // Somebody else goes on.
                    _ => std::thread::scope(|scope| {
                        scope.spawn(|| token(&engine, 2, n)).join().unwrap();
                        scope.spawn(|| prompt(&engine, 3, 1));
                    }),
                }
            }
            wait_until_idle(&engine);
            counts(&engine);
        }
    }
}

#[test]
fn lanes_do_not_get_into_each_others_way() {
    for (n, n_places) in [2, 3, 9, MANY].into_iter().enumerate() {
        let policy = ["lru", "adaptive"][n % 2];
        let faults = ["delay_ms=1", "short=3", ""][n % 3];
        let (engine, _) = engine(policy, [4, 16, 40, 64][n], n_places, faults);
        std::thread::scope(|scope| {
            for key in 1..6 {
                let engine = &engine;
                scope.spawn(move || {
                    for n in 0..6 {
                        match key {
                            1 | 2 => prompt(engine, key, key as u32),
                            3 => (0..4).for_each(|i| token(engine, key, 4 * n + i)),
                            _ => {
                                let ids = picks(N_TOKENS, 4 + n, key);
                                (0..n % N_LAYERS)
                                    .for_each(|layer| all_parts(engine, key, layer, &ids, 1));
                                compute(engine, key, n % N_LAYERS, &ids, 0..n % N_PARTS, 1);
                            }
                        }
                    }
                });
            }
        });
        counts(&engine);
    }
}
