//! Lanes of the engine, without llama.cpp: events that are cut short must not use up slots or lanes,
//! and tokens that are taken back must not be learnt.

#![allow(unsafe_code)]

use hotset::engine::layout::{Layout, Tensor};
use hotset::engine::{Batch, Engine, Inputs, Routing, Token};
use hotset::expert::ExpertId;
use hotset::pooled::Pooled;
use hotset::store::{Faults, ModelFile, QueueDepth, QueueKind, QueueOptions};
use hotset::trace::{Header, Picks, Recording, Trace};
use hotset::tracker::Phase;
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
    engine_with("lru", n_slots)
}

fn engine_with(policy: &str, n_slots: usize) -> Engine {
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
                stride: PART_BYTES as u64,
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
        queue_depth: QueueDepth {
            depth: 8,
            ..QueueDepth::default()
        },
        faults: Faults::default(),
    };
    Engine::new(layout, vec![file], policy, options).unwrap()
}

/// One operation of a lane of one thread that uses `experts` for one token.
fn operation(engine: &Engine, key: usize, layer: usize, part: usize, experts: &[usize]) {
    let ids: Vec<i32> = experts.iter().map(|&e| e as i32).collect();
    let picks = Picks::new(&ids, ids.len(), ids.len());
    compute(engine, key, layer, part, &picks, &Batch::default());
}

/// One operation of a lane of one thread; checks every byte it is given.
fn compute(engine: &Engine, key: usize, layer: usize, part: usize, picks: &Picks, batch: &Batch) {
    let mut rows = [0; N_EXPERTS];
    picks.rows().flatten().for_each(|&e| rows[e as usize] += 1);
    let routing = Routing {
        picks: *picks,
        n_rows: &rows,
        batch,
        inputs: Inputs::default(),
    };
    engine.route(layer, part, key, 1, &routing).unwrap();
    let mut seen = [false; N_EXPERTS];
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
        assert!(!seen[expert as usize], "expert {expert} comes twice");
        seen[expert as usize] = true;
    }
    assert_eq!(seen, rows.map(|n| n > 0));
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
        engine.inspect(|_, Pooled { residency, .. }| {
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
        engine.inspect(|_, Pooled { residency, .. }| residency.validate());
        assert!(
            engine
                .meter()
                .has_staged
                .load(std::sync::atomic::Ordering::Relaxed)
        );
    }
}

const MEMORY: usize = 0x1000;

/// A pass over both layers for tokens of sequence 0 from position `pos` on, each with output, which
/// pick one expert each.
fn pass(engine: &Engine, memory: usize, pos: i32, ids: &[i32]) {
    let token = |pos| Token {
        seq: 0,
        pos,
        is_output: true,
    };
    let mut batch = Batch::default();
    batch.begin(memory, (pos..).map(token).take(ids.len()));
    for layer in 0..2 {
        for part in 0..N_PARTS {
            compute(engine, 1, layer, part, &Picks::new(ids, 1, 1), &batch);
        }
    }
}

/// Tokens that picked each expert of `layer`, as the tracker has it.
fn learnt(engine: &Engine, layer: u32) -> [u64; N_EXPERTS] {
    let mut counts = [0; N_EXPERTS];
    engine.inspect(
        |_,
         Pooled {
             residency,
             recent: log,
             tracker,
             ..
         }| {
            residency.validate();
            counts = std::array::from_fn(|expert| {
                let expert = expert as u32;
                let id = ExpertId { layer, expert };
                tracker.usage(Phase::Decode, id).n_tokens
            });
            let mut logged = [0; N_EXPERTS];
            for event in log.iter().filter(|e| e.layer == layer) {
                for (&expert, &rows) in event.experts.iter().zip(event.rows) {
                    logged[expert as usize] += u64::from(rows);
                }
            }
            assert_eq!(logged, counts, "the log says the same");
        },
    );
    counts
}

/// Asserts what both layers have learnt.
fn assert_learnt(engine: &Engine, expected: [u64; N_EXPERTS]) {
    assert_eq!([0, 1].map(|layer| learnt(engine, layer)), [expected; 2]);
}

#[test]
fn drafts_are_learnt_when_they_are_accepted() {
    let engine = engine(4);
    pass(&engine, MEMORY, 10, &[0, 1, 2, 3]);
    assert_learnt(&engine, [1, 0, 0, 0, 0, 0, 0, 0]);
    // The last two are rejected; what others drop does not matter.
    engine.drop_tokens(MEMORY, 0, 12, -1);
    engine.drop_tokens(MEMORY, 1, 0, -1);
    engine.drop_tokens(MEMORY + 8, -1, 0, -1);
    engine.drop_tokens(MEMORY, 0, 0, 11);
    assert_learnt(&engine, [1, 0, 0, 0, 0, 0, 0, 0]);
    // Another context does not decide it, and has nothing to learn later.
    pass(&engine, MEMORY + 8, 0, &[7]);
    assert_learnt(&engine, [1, 0, 0, 0, 0, 0, 0, 1]);
    pass(&engine, MEMORY, 12, &[4]);
    assert_learnt(&engine, [1, 1, 0, 0, 1, 0, 0, 1]);
    // All are rejected, whatever their sequence; and all are accepted, of which nobody hears.
    pass(&engine, MEMORY, 13, &[5, 6, 6]);
    engine.drop_tokens(MEMORY, -1, 14, -1);
    pass(&engine, MEMORY, 14, &[5, 5, 2]);
    assert_learnt(&engine, [1, 1, 0, 0, 1, 2, 0, 1]);
    engine.settle_all();
    assert_learnt(&engine, [1, 1, 1, 0, 1, 3, 0, 1]);
}

/// A context that goes back to a state it saved drops nothing, it computes the positions again.
#[test]
fn drafts_that_are_computed_again_are_learnt_once() {
    let engine = engine(4);
    pass(&engine, MEMORY, 10, &[0, 1, 2]);
    pass(&engine, MEMORY, 11, &[3]);
    pass(&engine, MEMORY, 12, &[4]);
    // 2 was at position 12 before 4; when 3 came, that was not known.
    assert_learnt(&engine, [1, 0, 1, 1, 1, 0, 0, 0]);
}

/// What is rejected is planned, and the first to go.
#[test]
fn rejected_drafts_do_not_keep_a_place() {
    let engine = engine_with("lfu", 4);
    pass(&engine, MEMORY, 0, &[0]);
    for i in 1..10 {
        pass(&engine, MEMORY, i, &[0, 1]);
        engine.drop_tokens(MEMORY, 0, i + 1, -1);
    }
    pass(&engine, MEMORY, 20, &[2]);
    engine.inspect(|_, Pooled { residency, .. }| {
        let is_resident = |expert| residency.is_resident(ExpertId { layer: 0, expert });
        assert_eq!([0, 1, 2].map(is_resident), [true, false, true]);
    });
}

/// Some tokens, many, one, and rows that lie apart.
#[test]
fn a_recording_is_read_as_the_events_of_the_run() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run.trace.gz");
    let header = Header {
        n_layers: 2,
        n_experts: N_EXPERTS as u32,
        top_k: 3,
        ranked: true,
        batched: true,
        ..Header::default()
    };
    let mut engine = engine(4);
    engine.record_to(Recording::new(path.clone(), header));
    let prompt = [4, 3, 0, 4, 1, 3].repeat(20);
    for picks in [
        Picks::new(&[5, 1, 7, 1, 0, 3], 3, 3),
        Picks::new(&prompt, 3, 3),
        Picks::new(&[7, 2, 0], 3, 3),
        Picks::new(&[4, 6, 0, 6, 2], 2, 3),
    ] {
        for layer in 0..2 {
            for part in 0..N_PARTS {
                compute(&engine, 1, layer, part, &picks, &Batch::default());
            }
        }
    }
    engine.recording().unwrap().finish();
    let trace = Trace::open(&path, u32::MAX).unwrap();
    engine.inspect(|_, Pooled { recent: log, .. }| {
        assert!(log.iter().eq(trace.events().map(|(_, event)| event)));
        let ranks: Vec<&[u32]> = log.iter().map(|event| event.ranks).step_by(2).collect();
        // Of experts 0 1 3 5 7; of 0 1 3 4; of 0 2 7; and of 2 4 6.
        let expected: [&[u32]; 4] = [&[1, 0, 2, 0, 2], &[2, 1, 1, 0], &[2, 1, 0], &[1, 0, 0]];
        assert_eq!(ranks, expected);
    });
}

/// Of each event its own tokens count.
#[test]
fn drafts_have_the_ranks_of_their_own_tokens() {
    let engine = engine(8);
    let tokens = |pos: i32| {
        (pos..).map(|pos| Token {
            seq: 0,
            pos,
            is_output: true,
        })
    };
    let mut batch = Batch::default();
    batch.begin(MEMORY, tokens(10).take(3));
    let picks = Picks::new(&[5, 1, 1, 0, 0, 5], 2, 2);
    compute(&engine, 1, 0, 0, &picks, &batch);
    engine.settle_all();
    engine.inspect(|_, Pooled { recent: log, .. }| {
        let events: Vec<_> = log.iter().map(|e| (e.experts, e.rows, e.ranks)).collect();
        let sure = (&[1, 5][..], &[1, 1][..], &[1, 0][..]);
        let drafts = (&[0, 1, 5][..], &[2, 1, 1][..], &[0, 0, 1][..]);
        assert_eq!(events, [sure, drafts]);
    });
}
