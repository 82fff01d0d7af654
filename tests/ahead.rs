//! Reading ahead, without llama.cpp: whatever is guessed, every address holds the right bytes, guesses end,
//! and the counters say what was read.

#![allow(unsafe_code)]

mod patterned;
mod sight;

use hotset::engine::{AheadTally, Batch, Engine, Inputs, Routing, Token, When};
use hotset::expert::ExpertId;
use hotset::policy::REGISTRY;
use hotset::pooled::Pooled;
use hotset::residency::Tally;
use hotset::trace::Picks;
use patterned::Source;
use sight::{Broken, N_EXPERTS, Remembers, Says, Seer, Sight, Unasked, picks};
use std::fs::File;
use std::io::Write;
use std::sync::atomic::Ordering;
use std::time::Instant;

const N_LAYERS: usize = 4;
/// Whole pages: no read is longer than what it is for.
const PART_BYTES: [usize; 2] = [3 * 4096, 5 * 4096];
const EXPERT_BYTES: usize = 8 * 4096;
/// A part is read in this many pieces, or in one.
const IN_PIECES: usize = 4096;
const IN_ONE: usize = 1 << 20;

/// What fills one part of an expert, again and again.
fn word(layer: usize, part: usize, expert: usize) -> u32 {
    0xabcd_0000 + ((layer * PART_BYTES.len() + part) * N_EXPERTS + expert) as u32
}

/// An engine with `n_slots` slots and its file.
fn engine(policy: &str, n_slots: usize, piece_bytes: usize, faults: &str) -> (Engine, File) {
    let source = Source {
        n_experts: N_EXPERTS,
        n_layers: N_LAYERS,
        part_bytes: &PART_BYTES,
        word,
    };
    patterned::engine(&source, policy, n_slots, None, piece_bytes, faults)
}

/// Computes an event of one lane of one thread: a row of experts for each token, and what the router sees
/// of it. Checks every byte.
fn compute(engine: &Engine, key: usize, layer: usize, rows: &[Vec<i32>], seen: &[f32]) {
    compute_batch(
        engine,
        key,
        layer,
        rows,
        seen,
        PART_BYTES.len(),
        &Batch::default(),
    );
}

/// The same of these tokens, cut short after `n_parts` operations.
fn compute_batch(
    engine: &Engine,
    key: usize,
    layer: usize,
    rows: &[Vec<i32>],
    seen: &[f32],
    n_parts: usize,
    batch: &Batch,
) {
    let ids = rows.concat();
    let mut n_rows = [0; N_EXPERTS];
    ids.iter().for_each(|&e| n_rows[e as usize] += 1);
    let routing = Routing {
        picks: Picks::new(&ids, rows[0].len(), rows[0].len()),
        n_rows: &n_rows,
        batch,
        inputs: Inputs::new(seen, 1, 1),
    };
    for (part, n_bytes) in PART_BYTES.into_iter().enumerate().take(n_parts) {
        engine.route(layer, part, key, 1, &routing).unwrap();
        let mut is_seen = [false; N_EXPERTS];
        for i in 0.. {
            let Some((expert, address)) = engine.acquire(layer, key, 0, i).unwrap() else {
                break;
            };
            // SAFETY: the engine keeps the part at this address until the operation has ended.
            let words = unsafe { std::slice::from_raw_parts(address as *const u32, n_bytes / 4) };
            let expected = word(layer, part, expert as usize);
            let wrong = words.iter().position(|&w| w != expected);
            assert_eq!(wrong, None, "layer {layer} part {part} expert {expert}");
            assert!(!is_seen[expert as usize], "expert {expert} comes twice");
            is_seen[expert as usize] = true;
        }
        assert_eq!(is_seen, n_rows.map(|n| n > 0));
    }
}

/// All layers for some tokens, which the routers see as they are; `then` is called after each event.
fn pass(engine: &Engine, key: usize, tokens: &[usize], top_k: usize, then: impl Fn()) {
    let seen: Vec<_> = tokens.iter().map(|&t| t as f32).collect();
    for layer in 0..N_LAYERS {
        let rows: Vec<_> = tokens.iter().map(|&t| picks(t, layer, top_k)).collect();
        compute(engine, key, layer, &rows, &seen);
        then();
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

/// Reads and bytes as the meter counts them, and as the queue does.
fn counted(engine: &Engine) -> [(u64, u64); 2] {
    let (meter, queue) = (engine.meter(), engine.queue().stats());
    let read = |n: &std::sync::atomic::AtomicU64| n.load(Ordering::Relaxed);
    let metered = (read(&meter.n_reads), read(&meter.bytes_read));
    [metered, (queue.n_reads, queue.bytes_read)]
}

/// Picks of all events that were no scans.
fn tally(engine: &Engine) -> Tally {
    let mut tally = Tally::default();
    let looked = engine.inspect(|_, Pooled { residency, .. }| {
        residency.validate();
        tally = residency.counts().decode;
    });
    looked.expect("nobody plans");
    tally
}

#[test]
fn experts_are_right_whatever_is_guessed() {
    let seers = [Seer::Right, Seer::Half, Seer::Wrong, Seer::Random];
    for (i, spec) in REGISTRY.iter().enumerate() {
        for (j, seer) in seers.into_iter().enumerate() {
            let n_slots = [6, 16, 40][(i + j) % 3];
            let faults = ["", "short=3", "delay_ms=1"][(i / 3 + j) % 3];
            let piece_bytes = [IN_PIECES, IN_ONE][i % 2];
            let about = format!("{} {seer:?} {n_slots} {faults}", spec.name);
            let (engine, _) = engine(spec.name, n_slots, piece_bytes, faults);
            engine.look_ahead_with(Sight::further(seer, j % 2), When::Always);
            std::thread::scope(|scope| {
                for key in 1..4 {
                    let engine = &engine;
                    scope.spawn(move || {
                        for n in 0..5 {
                            let token = 100 * key + n;
                            match n % 4 {
                                3 => pass(engine, key, &[token, token + 4, token + 8], 2, || ()),
                                _ => pass(engine, key, &[token], 3, || ()),
                            }
                        }
                    });
                }
            });
            assert_is_over(&engine, seer, &about);
        }
    }
}

/// All guesses are settled, and another event lets go of what they held.
fn assert_is_over(engine: &Engine, seer: Seer, about: &str) {
    wait_until_idle(engine);
    compute(engine, 9, N_LAYERS - 1, &[vec![0]], &[0.0]);
    wait_until_idle(engine);
    let ahead = engine.ahead().unwrap();
    assert!(ahead.guesses > 0, "{about}");
    assert!(ahead.in_time <= ahead.right_reads, "{about}: {ahead:?}");
    assert!(ahead.right_reads + ahead.recalled <= ahead.reads, "{about}");
    if seer == Seer::Right {
        let all = (ahead.right, ahead.right_reads);
        assert_eq!(all, (ahead.guesses, ahead.reads), "{about}");
        assert_eq!((ahead.wasted_bytes, ahead.recalled), (0, 0), "{about}");
    }
    let [metered, queued] = counted(engine);
    assert!(queued.1 <= metered.1, "{about}: {queued:?} {metered:?}");
    engine.inspect(|_, Pooled { residency, .. }| {
        residency.validate();
        assert_eq!(residency.n_pinned(), 1, "{about}");
    });
    assert_eq!(engine.resize(0).unwrap().n_slots, 1, "{about}");
    engine.resize(u64::MAX).unwrap();
    pass(engine, 9, &[1], 4, || ());
}

#[test]
fn right_guesses_are_hits_and_waste_nothing() {
    let mut hits = Vec::new();
    for is_ahead in [false, true] {
        let (engine, _) = engine("lru", 24, IN_PIECES, "short=4");
        if is_ahead {
            engine.look_ahead_with(Sight::of(Seer::Right), When::Always);
        }
        // As slow a computation as it takes.
        (0..24).for_each(|n| pass(&engine, 1, &[n, n + 1], 3, || wait_until_idle(&engine)));
        let tally = tally(&engine);
        hits.push(tally.hits);
        let [metered, queued] = counted(&engine);
        assert_eq!(metered, queued);
        assert_eq!(metered.0, metered.1 / EXPERT_BYTES as u64 * 2);
        let Some(ahead) = engine.ahead() else {
            assert_eq!(metered.1, tally.misses * EXPERT_BYTES as u64);
            continue;
        };
        assert!(ahead.reads > 100, "{ahead:?}");
        let expected = AheadTally {
            guesses: ahead.guesses,
            right: ahead.guesses,
            reads: ahead.reads,
            right_reads: ahead.reads,
            in_time: ahead.reads,
            ..AheadTally::default()
        };
        assert_eq!(ahead, expected);
        assert_eq!(
            metered.1,
            (tally.misses + ahead.reads) * EXPERT_BYTES as u64
        );
        assert!(ahead.reads <= ahead.guesses, "{ahead:?}");
    }
    assert!(hits[0] + 100 < hits[1], "{hits:?}");
}

#[test]
fn wrong_guesses_are_counted_and_no_longer_read() {
    for is_slow in [false, true] {
        let (engine, _) = engine("lru", 24, IN_ONE, "");
        engine.look_ahead_with(Sight::of(Seer::Wrong), When::Always);
        let wait = || {
            if is_slow {
                wait_until_idle(&engine)
            }
        };
        (0..10).for_each(|n| pass(&engine, 1, &[n, n], 3, wait));
        let early = engine.ahead().unwrap();
        (10..60).for_each(|n| pass(&engine, 1, &[n, n], 3, wait));
        wait_until_idle(&engine);
        let ahead = engine.ahead().unwrap();
        assert!(early.reads > 0 && early.reads == ahead.reads, "{ahead:?}");
        assert_eq!(early.guesses, ahead.guesses);
        assert_eq!((ahead.right, ahead.right_reads, ahead.in_time), (0, 0, 0));
        let [metered, queued] = counted(&engine);
        // A read of one piece cannot be cut.
        assert_eq!(metered, queued);
        let demand = tally(&engine).misses * EXPERT_BYTES as u64;
        assert_eq!(queued.1, demand + ahead.wasted_bytes);
        let n_read = ahead.reads - ahead.recalled;
        assert!(ahead.wasted_bytes <= n_read * EXPERT_BYTES as u64);
        assert!(ahead.wasted_bytes >= n_read * PART_BYTES[0] as u64);
        assert!(!is_slow || n_read == ahead.reads, "{ahead:?}");
    }
}

/// A wrong guess is recalled, or something of it was read.
#[test]
fn a_recalled_guess_is_one_of_which_nothing_was_read() {
    for piece_bytes in [IN_PIECES, IN_ONE] {
        let (engine, _) = engine("lru", 16, piece_bytes, "");
        engine.look_ahead_with(Sight::of(Seer::Half), When::Always);
        let mut n_guessed = 0;
        for n in 0..300 {
            for layer in 0..N_LAYERS {
                let before = engine.ahead().unwrap();
                let rows = [picks(n, layer, 3), picks(n, layer, 3)];
                compute(&engine, 1, layer, &rows, &[n as f32; 2]);
                let now = engine.ahead().unwrap();
                let n_right = now.right_reads - before.right_reads;
                let n_recalled = now.recalled - before.recalled;
                let n_read = n_guessed - n_right - n_recalled;
                let wasted = now.wasted_bytes - before.wasted_bytes;
                let range = n_read * IN_PIECES as u64..=n_read * EXPERT_BYTES as u64;
                assert!(range.contains(&wasted), "{before:?} {now:?}");
                n_guessed = now.reads - before.reads;
                // Until something may have arrived.
                let n_bytes = engine.queue().stats().bytes_read;
                let is_there = || engine.queue().stats().bytes_read > n_bytes;
                let _ = (0..n % 40 * 20).find(|_| is_there());
            }
        }
        wait_until_idle(&engine);
        let ahead = engine.ahead().unwrap();
        assert!(ahead.recalled > 0, "{ahead:?}");
        assert!(
            ahead.recalled < ahead.reads - ahead.right_reads,
            "{ahead:?}"
        );
        let [metered, queued] = counted(&engine);
        assert!(piece_bytes < IN_ONE || metered == queued);
        // What was cut ends somewhere in a part.
        assert!(queued.1 <= metered.1, "{metered:?} {queued:?}");
        assert!(queued.1 + ahead.wasted_bytes >= metered.1);
    }
}

/// A thread goes after it has guessed, and no other takes its lane: what it guessed is let go of in the end.
#[test]
fn guesses_of_a_thread_that_is_gone_end() {
    let (engine, _) = engine("lru", 24, IN_PIECES, "");
    let engine = &engine;
    // This thread is in the middle of an event, so that the other one gets another lane.
    compute_batch(engine, 1, 0, &[vec![0]], &[], 1, &Batch::default());
    engine.look_ahead_with(Sight::of(Seer::Wrong), When::Always);
    std::thread::scope(|scope| {
        let rows = [picks(7, 0, 3), picks(7, 0, 3)];
        scope.spawn(move || compute(engine, 2, 0, &rows, &[7.0; 2]));
    });
    wait_until_idle(engine);
    let n_pinned = || {
        let mut n = 0;
        engine.inspect(|_, Pooled { residency, .. }| n = residency.n_pinned());
        n
    };
    let n_reads = engine.ahead().unwrap().reads;
    compute(engine, 1, 0, &[vec![0]], &[]);
    assert!(n_reads > 0 && n_pinned() > 1, "nothing is held");
    for _ in 0..10_002 {
        compute(engine, 1, 0, &[vec![0]], &[]);
    }
    assert_eq!(n_pinned(), 1, "of {n_reads} guesses");
    assert_eq!(engine.resize(0).unwrap().n_slots, 1);
}

/// They do no harm, and what comes after is guessed as ever.
#[test]
fn chances_that_are_no_numbers_spoil_nothing() {
    let (engine, _) = engine("lru", 24, IN_PIECES, "");
    engine.look_ahead_with(Box::new(Broken::of(Seer::Right)), When::Always);
    let pass = |n| pass(&engine, 1, &[n, n], 3, || wait_until_idle(&engine));
    (0..40).for_each(pass);
    let early = engine.ahead().unwrap();
    (40..70).for_each(pass);
    let late = engine.ahead().unwrap();
    let n_right = late.right_reads - early.right_reads;
    assert!(n_right > 50, "{early:?} {late:?}");
    assert_eq!(late.right, late.guesses);
}

#[test]
fn what_is_expected_is_evicted_last() {
    let residents = |engine: &Engine| {
        let mut ids = Vec::new();
        engine.inspect(|_, Pooled { residency, .. }| {
            let all = (0..residency.shape().n_total()).map(|i| residency.shape().id(i));
            let all = all.filter(|id| residency.is_resident(*id));
            ids.extend(all.map(|ExpertId { layer, expert }| (layer, expert)));
        });
        ids
    };
    let (engine, _) = engine("lru", 4, IN_PIECES, "");
    // Likely enough to be spared, and not to be read.
    engine.look_ahead_with(Says::new(2, 0.4), When::Always);
    const NOTHING: f32 = -1.0;
    let one = |layer, expert, says| compute(&engine, 1, layer, &[vec![expert]], &[says]);
    one(2, 7, NOTHING);
    (0..2).for_each(|expert| one(1, expert, NOTHING));
    one(0, 0, 7.0);
    // The one before last used before all others.
    one(1, 2, NOTHING);
    assert_eq!(residents(&engine), [(0, 0), (1, 1), (1, 2), (2, 7)]);
    // It is expected no more.
    one(1, 3, NOTHING);
    assert_eq!(residents(&engine), [(0, 0), (1, 1), (1, 2), (1, 3)]);
    one(2, 7, NOTHING);
    one(0, 0, 7.0);
    // There is nothing else.
    compute(&engine, 1, 1, &[vec![8, 9, 10, 11]], &[NOTHING]);
    assert_eq!(residents(&engine), [(1, 8), (1, 9), (1, 10), (1, 11)]);
    assert_eq!(engine.ahead().unwrap().reads, 0);
}

#[test]
fn a_file_that_has_changed_is_not_read_ahead() {
    let (engine, mut file) = engine("lru", 24, IN_PIECES, "");
    compute(&engine, 1, 0, &[vec![3]], &[-1.0]);
    wait_until_idle(&engine);
    engine.look_ahead_with(Says::new(1, 1.0), When::Always);
    file.write_all(b"more").unwrap();
    let n_reads = engine.queue().stats().n_reads;
    // Nothing is missing here.
    compute(&engine, 1, 0, &[vec![3]], &[5.0]);
    wait_until_idle(&engine);
    assert_eq!(engine.queue().stats().n_reads, n_reads);
    let ahead = engine.ahead().unwrap();
    assert_eq!(ahead.reads, 0);
    let mut n_rows = [0; N_EXPERTS];
    n_rows[5] = 1;
    let routing = Routing {
        picks: Picks::new(&[5], 1, 1),
        n_rows: &n_rows,
        batch: &Batch::default(),
        inputs: Inputs::default(),
    };
    let error = engine.route(1, 0, 1, 1, &routing).unwrap_err();
    assert!(
        error.to_string().contains("bytes when it was opened"),
        "{error}"
    );
}

/// What a token picked in the first two layers is read before any router has run, when it comes again in the context that
/// this thread computes for.
#[test]
fn the_first_layers_are_read_when_a_token_comes_again() {
    let (engine, _) = engine("lru", 24, IN_PIECES, "");
    engine.look_ahead_with(Box::<Remembers>::default(), When::Always);
    let batch = |memory: usize, id: i32| {
        let mut batch = Batch::default();
        let token = Token {
            seq: 0,
            pos: 0,
            is_output: true,
        };
        batch.begin(memory, std::iter::once(token));
        batch.name(std::iter::once(id));
        batch
    };
    let expert = |layer: usize, id: i32| (id * 3 + layer as i32) % N_EXPERTS as i32;
    let token = |id: i32| {
        let batch = batch(77, id);
        engine.begin_batch(&batch);
        wait_until_idle(&engine);
        for layer in 0..N_LAYERS {
            compute_batch(
                &engine,
                1,
                layer,
                &[vec![expert(layer, id)]],
                &[0.0],
                PART_BYTES.len(),
                &batch,
            );
        }
    };
    (0..12).for_each(token);
    assert_eq!(engine.ahead().unwrap().reads, 0, "no token came twice");
    // They have pushed out what the first ones picked.
    (0..3).for_each(token);
    let ahead = engine.ahead().unwrap();
    assert_eq!(
        (ahead.reads, ahead.right_reads, ahead.in_time),
        (6, 6, 6),
        "{ahead:?}"
    );
    assert_eq!((ahead.guesses, ahead.right), (3, 3), "{ahead:?}");
    // Another context's tokens, and a thread that has computed nothing, say nothing of what comes here.
    engine.begin_batch(&batch(78, 4));
    std::thread::scope(|scope| _ = scope.spawn(|| engine.begin_batch(&batch(77, 4))));
    assert_eq!(engine.ahead().unwrap().reads, 6);
}

/// Where all that a token uses takes nearly every slot, guesses are made and not read.
#[test]
fn nothing_is_read_ahead_where_nothing_is_cold() {
    for (n_slots, is_read) in [(12, false), (14, false), (16, true)] {
        let (engine, _) = engine("lru", n_slots, IN_ONE, "");
        engine.look_ahead_with(Sight::of(Seer::Half), When::Always);
        for n in 0..50 {
            for layer in 0..N_LAYERS {
                let rows = [picks(n, layer, 3)];
                compute(&engine, 1, layer, &rows, &[n as f32]);
            }
        }
        let ahead = engine.ahead().unwrap();
        assert!(
            ahead.guesses > 0 && (ahead.reads > 0) == is_read,
            "{n_slots}: {ahead:?}"
        );
    }
}

#[test]
fn nothing_is_guessed_where_every_expert_is_resident() {
    let (engine, _) = engine("lru", N_LAYERS * N_EXPERTS, IN_ONE, "");
    engine.warm_all(|_| ()).unwrap();
    engine.look_ahead_with(Box::new(Unasked), When::Always);
    (0..3).for_each(|n| pass(&engine, 1, &[n], 3, || ()));
}
