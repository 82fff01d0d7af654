//! Parts that are rewritten before they are computed, without llama.cpp: every thread of every lane sees them rewritten
//! once and as a whole, in slots and in the ring, whatever is evicted meanwhile.

#![allow(unsafe_code)]

mod patterned;

use hotset::engine::{Batch, Engine, Inputs, Rewrite, Routing};
use hotset::policy::REGISTRY;
use hotset::trace::Picks;
use patterned::Source;
use std::fs::File;
use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

const N_EXPERTS: usize = 16;
const N_LAYERS: usize = 3;
const N_THREADS: usize = 3;
const PART_BYTES: [usize; 3] = [4096, 6 * 512 + 4, 2048];
const CHUNK_BYTES: usize = 1024;

fn word(layer: usize, part: usize, expert: usize) -> u32 {
    0x7000_0000 + ((layer * PART_BYTES.len() + part) * N_EXPERTS + expert) as u32
}

/// Doubles each word, which tells once from twice and from not at all, and is late with some chunks. Of the middle layer the
/// last part is left as it is.
struct Doubles {
    delay: Duration,
    n_bytes: &'static AtomicU64,
}

impl Rewrite for Doubles {
    fn chunk_bytes(&self, layer: usize, part: usize) -> usize {
        if is_rewritten(layer, part) {
            CHUNK_BYTES
        } else {
            0
        }
    }

    fn rewrite(&self, layer: usize, part: usize, address: usize, n_bytes: usize) {
        assert!(is_rewritten(layer, part) && n_bytes <= CHUNK_BYTES);
        if !self.delay.is_zero() && address % (3 * CHUNK_BYTES) < CHUNK_BYTES {
            thread::sleep(self.delay);
        }
        // SAFETY: the engine keeps these bytes for us.
        let words = unsafe { std::slice::from_raw_parts_mut(address as *mut u32, n_bytes / 4) };
        words
            .iter_mut()
            .for_each(|word| *word = word.wrapping_mul(2));
        self.n_bytes.fetch_add(n_bytes as u64, Ordering::Relaxed);
    }
}

fn is_rewritten(layer: usize, part: usize) -> bool {
    (layer, part) != (1, 2)
}

/// An engine, its file, and how many bytes it has rewritten.
fn engine(
    policy: &str,
    n_slots: usize,
    delay_ms: u64,
    faults: &str,
) -> (Engine, File, &'static AtomicU64) {
    let source = Source {
        n_experts: N_EXPERTS,
        n_layers: N_LAYERS,
        part_bytes: &PART_BYTES,
        word,
    };
    let (engine, file) = patterned::engine(&source, policy, n_slots, Some(4), 1 << 20, faults);
    let n_bytes: &_ = Box::leak(Box::default());
    let delay = Duration::from_millis(delay_ms);
    engine.rewrite_with(Box::new(Doubles { delay, n_bytes }));
    (engine, file, n_bytes)
}

/// Computes an event of lane `key` with some threads: `rows` has the experts of each token. Checks every byte.
fn compute(engine: &Engine, key: usize, layer: usize, rows: &[Vec<i32>]) {
    let ids = rows.concat();
    let mut n_rows = [0; N_EXPERTS];
    ids.iter().for_each(|&e| n_rows[e as usize] += 1);
    let barrier = Barrier::new(N_THREADS);
    thread::scope(|scope| {
        for ith in 0..N_THREADS {
            let (ids, n_rows, barrier) = (&ids, &n_rows, &barrier);
            scope.spawn(move || {
                for (part, n_bytes) in PART_BYTES.into_iter().enumerate() {
                    if ith == 0 {
                        let routing = Routing {
                            picks: Picks::new(ids, rows[0].len(), rows[0].len()),
                            n_rows,
                            batch: &Batch::default(),
                            inputs: Inputs::default(),
                        };
                        engine
                            .route(layer, part, key, N_THREADS as u32, &routing)
                            .unwrap();
                    }
                    barrier.wait();
                    for i in 0.. {
                        let Some((expert, address)) =
                            engine.acquire(layer, key, ith as u32, i).unwrap()
                        else {
                            break;
                        };
                        check(layer, part, expert, address, n_bytes);
                    }
                    barrier.wait();
                }
            });
        }
    });
}

fn check(layer: usize, part: usize, expert: u32, address: usize, n_bytes: usize) {
    // SAFETY: the engine keeps the part at this address until the operation has ended.
    let words = unsafe { std::slice::from_raw_parts(address as *const u32, n_bytes / 4) };
    let factor = if is_rewritten(layer, part) { 2 } else { 1 };
    let expected = word(layer, part, expert as usize).wrapping_mul(factor);
    let wrong = words.iter().position(|&w| w != expected);
    assert_eq!(
        wrong,
        None,
        "layer {layer} part {part} expert {expert}: {:#x}",
        words[wrong.unwrap_or(0)]
    );
}

/// What a token picks: another handful for each token and layer.
fn picks(token: usize, layer: usize, top_k: usize) -> Vec<i32> {
    let pick = |k| ((token * 5 + layer * 3 + k * (1 + token % 2)) % N_EXPERTS) as i32;
    (0..top_k).map(pick).collect()
}

/// All layers for some tokens.
fn pass(engine: &Engine, key: usize, tokens: std::ops::Range<usize>) {
    for layer in 0..N_LAYERS {
        let rows: Vec<_> = tokens.clone().map(|token| picks(token, layer, 3)).collect();
        compute(engine, key, layer, &rows);
    }
}

/// Two lanes at once, single tokens and prompts that pass through the ring, with few slots and with room for all.
#[test]
fn whatever_is_computed_has_been_rewritten_once() {
    for (i, spec) in REGISTRY.iter().enumerate() {
        let n_slots = [5, 12, N_LAYERS * N_EXPERTS][i % 3];
        let faults = ["", "delay_ms=1", "short=3"][(i / 3) % 3];
        let (engine, _file, _) = engine(spec.name, n_slots, (i as u64 + 1) % 2, faults);
        // Alone: the ring is read into for the next layer, of which some then get a slot.
        for n in 0..4 {
            pass(&engine, 1, 40 * n..40 * (n + 1));
            pass(&engine, 1, n..n + 1);
        }
        thread::scope(|scope| {
            for key in 1..3 {
                let engine = &engine;
                scope.spawn(move || {
                    for n in 0..6 {
                        let token = 50 * key + 3 * n;
                        let n_tokens = if n % 3 == 2 { 12 } else { 1 };
                        pass(engine, key, token..token + n_tokens);
                    }
                });
            }
        });
    }
}

/// What stays in memory is rewritten once, at the start if it is read then; what comes again is rewritten again.
#[test]
fn what_stays_is_rewritten_once() {
    let (engine, _file, n_bytes) = engine("lru", N_LAYERS * N_EXPERTS, 0, "");
    engine.warm_all(|_| ()).unwrap();
    let of_all: usize = (0..N_LAYERS)
        .flat_map(|layer| (0..PART_BYTES.len()).map(move |part| (layer, part)))
        .filter(|&(layer, part)| is_rewritten(layer, part))
        .map(|(_, part)| N_EXPERTS * PART_BYTES[part])
        .sum();
    assert_eq!(n_bytes.load(Ordering::Relaxed), of_all as u64);
    pass(&engine, 1, 0..32);
    assert_eq!(n_bytes.load(Ordering::Relaxed), of_all as u64);
    engine.resize(0).unwrap();
    engine.resize(u64::MAX).unwrap();
    pass(&engine, 1, 0..32);
    assert!(n_bytes.load(Ordering::Relaxed) > of_all as u64);
}
