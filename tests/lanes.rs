//! Lanes of the engine, without llama.cpp: events that are cut short must not use up slots or lanes.

#![allow(unsafe_code)]

use hotset::engine::Engine;
use hotset::engine::layout::{Layout, Tensor};
use hotset::store::{Faults, ModelFile, QueueKind, QueueOptions};
use std::io::Write;
use std::os::fd::AsFd;

const N_EXPERTS: usize = 8;
const N_PARTS: usize = 3;
const PART_BYTES: usize = 1024;

/// The byte that fills one part of an expert.
fn byte(layer: usize, part: usize, expert: usize) -> u8 {
    (1 + (layer * N_PARTS + part) * N_EXPERTS + expert) as u8
}

/// Two layers over a file, with room for `n_slots` experts.
fn engine(n_slots: usize) -> Engine {
    let mut file = tempfile::tempfile().unwrap();
    let mut tensors = Vec::new();
    for layer in 0..2 {
        for part in 0..N_PARTS {
            tensors.push(Tensor {
                name: format!("blk.{layer}.part{part}"),
                block: layer as u32,
                n_experts: N_EXPERTS as u32,
                n_bytes: PART_BYTES,
                file: 0,
                offset: (tensors.len() * N_EXPERTS * PART_BYTES) as u64,
            });
            for expert in 0..N_EXPERTS {
                let bytes = [byte(layer, part, expert); PART_BYTES];
                file.write_all(&bytes).unwrap();
            }
        }
    }
    let file = ModelFile::open(file.as_fd()).unwrap();
    let aligns = [file.align()];
    let one = Layout::new(&tensors, &aligns, u64::MAX).unwrap().pools[0].slot_bytes;
    let layout = Layout::new(&tensors, &aligns, (one * n_slots) as u64).unwrap();
    assert_eq!(layout.n_slots() as usize, n_slots);
    let options = QueueOptions {
        kind: QueueKind::Auto,
        depth: 8,
        faults: Faults::default(),
    };
    Engine::new(layout, vec![file], "lru", options).unwrap()
}

/// One operation of a lane of one thread that uses `experts`; checks every byte it is given.
fn operation(engine: &Engine, key: usize, layer: usize, part: usize, experts: &[usize]) {
    let mut rows = [0; N_EXPERTS];
    experts.iter().for_each(|&e| rows[e] = 1);
    engine.route(layer, part, key, 1, 1, &rows).unwrap();
    let mut seen = Vec::new();
    for i in 0.. {
        let Some((expert, address)) = engine.acquire(layer, key, 0, i).unwrap() else {
            break;
        };
        // SAFETY: the engine keeps the part at this address until the operation has ended.
        let bytes = unsafe { std::slice::from_raw_parts(address as *const u8, PART_BYTES) };
        let expected = byte(layer, part, expert as usize);
        assert!(
            bytes.iter().all(|b| *b == expected),
            "layer {layer} part {part} expert {expert}"
        );
        seen.push(expert as usize);
    }
    seen.sort_unstable();
    assert_eq!(seen, experts);
}

#[test]
fn events_cut_short_give_their_slots_and_lanes_back() {
    let engine = &engine(4);
    // Each thread begins an event and goes for ever; there are more of them than lanes.
    for i in 0..200 {
        std::thread::scope(|scope| {
            scope.spawn(|| operation(engine, 1000 + i, i % 2, i % N_PARTS, &[i % 7, 7]));
        });
    }
    // A lane that goes on finds room again, after a while.
    let token = |i: usize| {
        for layer in 0..2 {
            for part in 0..N_PARTS {
                operation(engine, 1, layer, part, &[i % 4, 4 + i % 4]);
            }
        }
    };
    (0..6000).for_each(token);
    let mut hits = [0; 2];
    for hits in &mut hits {
        engine.inspect(|_, residency, _, _| {
            residency.validate();
            *hits = residency.counts().decode.hits;
        });
        (0..100).for_each(|_| token(0));
    }
    // Two experts of each of two layers fit in four slots.
    assert!(hits[1] - hits[0] >= 4 * 98, "{hits:?}");
}

#[test]
fn operations_that_exceed_the_slots_pass_through_the_ring() {
    for n_slots in [0, 1, 3] {
        let engine = &engine(n_slots);
        let all: Vec<_> = (0..N_EXPERTS).collect();
        std::thread::scope(|scope| {
            for key in 1..4 {
                let all = &all;
                scope.spawn(move || {
                    for i in 0..300 {
                        let experts = if i % 3 == 0 {
                            all
                        } else {
                            &all[i % 5..i % 5 + 3]
                        };
                        for part in 0..N_PARTS {
                            operation(engine, key, i % 2, part, experts);
                        }
                    }
                });
            }
        });
        engine.inspect(|_, residency, _, _| residency.validate());
        assert!(
            engine
                .meter()
                .has_staged
                .load(std::sync::atomic::Ordering::Relaxed)
        );
    }
}
