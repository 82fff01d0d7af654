//! The output of the model is sacred: hooks off, everything resident, thrashing, any policy, any way
//! to read, any number of threads: the same logits, to the bit.
//!
//! Every comparison also asserts that the run did what it is there for (misses, evictions, staging),
//! so that none can pass for nothing.

#![cfg(all(feature = "llama", feature = "cli"))]

mod runner;
mod tiny;

use hotset::config::{Config, Ram, StatsTo};
use hotset::policy::REGISTRY;
use hotset::store::QueueKind;
use runner::{Options, run, same};
use std::path::PathBuf;
use tempfile::TempDir;

/// All models with experts, written once for a test.
fn models() -> (TempDir, Vec<(tiny::Spec, PathBuf)>) {
    let dir = tempfile::tempdir().unwrap();
    let models = tiny::all()
        .into_iter()
        .map(|spec| {
            let path = tiny::write(&spec, dir.path());
            (spec, path)
        })
        .collect();
    (dir, models)
}

fn streaming(percent: f64) -> Config {
    Config {
        ram: Some(Ram::Percent(percent)),
        stats: StatsTo::Off,
        ..Config::default()
    }
}

/// A budget below one token's experts and above one layer's: every pool evicts all the time.
fn thrashing(spec: &tiny::Spec) -> Config {
    streaming(100.0 * (spec.top_k + 1) as f64 / spec.n_expert as f64 / 2.0)
}

/// Batches of 1, of 8, of 512 in one ubatch, and of 512 in several.
const SHAPES: [Options; 4] = {
    const fn shape(n_batch: usize, n_ubatch: usize, n_tokens: usize) -> Options {
        Options {
            n_threads: 2,
            n_batch,
            n_ubatch,
            n_tokens,
            n_generated: 8,
            n_seq: 1,
            repacks: false,
        }
    }
    [
        shape(1, 512, 24),
        shape(8, 512, 48),
        shape(512, 512, 512),
        shape(512, 128, 512),
    ]
};

#[test]
fn budgets() {
    let (_dir, models) = models();
    for (spec, path) in &models {
        for options in SHAPES {
            let (stock, none) = run(path, None, options);
            assert!(none.is_none(), "without the hook nothing is streamed");
            assert!(stock.logits.iter().all(|x| f32::from_bits(*x).is_finite()));

            let all = same(path, &streaming(100.0), options, &stock);
            assert_eq!(all.n_slots as usize, all.n_experts);
            assert_eq!(all.generation.evictions + all.prompt.evictions, 0);
            assert_eq!(all.generation.misses + all.prompt.misses, 0);
            assert!(all.bytes_read_uncounted >= all.expert_bytes && all.generation.hits > 0);

            let some = same(path, &streaming(30.0), options, &stock);
            assert!(
                some.generation.misses > 0 && some.generation.evictions > 0,
                "{spec:?}"
            );

            let few = same(path, &thrashing(spec), options, &stock);
            assert!(few.generation.evictions > 0, "{spec:?}");
            assert!(few.generation.hits <= some.generation.hits, "{spec:?}");

            // Less than an expert: no slot at all, everything passes through the ring.
            let mut none = streaming(100.0);
            none.ram = Some(Ram::Percent(0.0001));
            let none = same(path, &none, options, &stock);
            assert_eq!(none.n_slots, 0);
            assert!(none.has_staged);
            assert_eq!(none.generation.hits + none.prompt.hits, 0);
        }
    }
}

#[test]
fn policies() {
    let (_dir, models) = models();
    for (spec, path) in &models {
        let options = Options::default();
        let (stock, _) = run(path, None, options);
        for policy in REGISTRY {
            for mut config in [streaming(30.0), thrashing(spec)] {
                config.policy = policy.name.to_string();
                let stats = same(path, &config, options, &stock);
                assert!(stats.generation.evictions > 0, "{} {spec:?}", policy.name);
                let ahead = stats.ahead.expect("reading ahead is not off");
                assert!(ahead.guesses > 0, "{} {spec:?}: {ahead:?}", policy.name);
            }
        }
    }
}

/// Nothing is read ahead during the first tokens.
#[test]
fn what_is_read_ahead() {
    let (_dir, models) = models();
    let options = Options {
        n_batch: 1,
        n_generated: 72,
        ..Options::default()
    };
    let mut n_read_ahead = 0;
    for (spec, path) in &models {
        let (stock, _) = run(path, None, options);
        let stats = same(path, &streaming(30.0), options, &stock);
        assert!(stats.generation.evictions > 0, "{spec:?}");
        n_read_ahead += stats.ahead.expect("reading ahead is not off").reads;
    }
    assert!(n_read_ahead > 0);
}

#[test]
fn ways_to_read() {
    let (_dir, models) = models();
    for (_, path) in &models {
        for options in [SHAPES[1], SHAPES[2]] {
            let (stock, _) = run(path, None, options);
            for (io, name) in [(QueueKind::Uring, "io_uring"), (QueueKind::Pread, "pread")] {
                let mut config = streaming(30.0);
                config.io = io;
                // Every third read stops half way, and all take a while.
                config.set("HOTSET_FAULT", "short=3,delay_ms=1").unwrap();
                let stats = same(path, &config, options, &stock);
                assert!(stats.io.contains(name), "{}", stats.io);
                assert!(stats.generation.misses > 0);
                assert!(stats.stalled_ms > 0.0);
            }
        }
    }
}

#[test]
fn threads() {
    let (_dir, models) = models();
    for (spec, path) in &models {
        for n_threads in [1, 2, 8] {
            for shape in [SHAPES[1], SHAPES[2]] {
                let options = Options {
                    n_threads,
                    n_tokens: shape.n_tokens.min(256),
                    n_generated: 4,
                    ..shape
                };
                let (stock, _) = run(path, None, options);
                let stats = same(path, &thrashing(spec), options, &stock);
                assert!(stats.generation.misses > 0);
            }
        }
    }
}

#[test]
fn sequences_in_one_batch() {
    let (_dir, models) = models();
    for (spec, path) in &models {
        let options = Options {
            n_batch: 4,
            n_seq: 4,
            ..Options::default()
        };
        let (stock, _) = run(path, None, options);
        for config in [streaming(30.0), thrashing(spec)] {
            let stats = same(path, &config, options, &stock);
            assert!(stats.generation.evictions > 0);
        }
    }
}

#[test]
fn whatever_memory_is_available() {
    let (_dir, models) = models();
    let (_, path) = &models[0];
    let options = Options::default();
    let (stock, _) = run(path, None, options);
    let mut config = streaming(100.0);
    config.ram = Some(Ram::Auto);
    let stats = same(path, &config, options, &stock);
    assert_eq!(stats.n_slots as usize, stats.n_experts);
    assert!(stats.generation.hits > 0);
}

#[test]
fn a_dense_model_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = tiny::write(&tiny::dense(), dir.path());
    let options = Options::default();
    let (stock, _) = run(&path, None, options);
    let (output, stats) = run(&path, Some(&streaming(30.0)), options);
    assert!(output == stock);
    assert!(stats.is_none());
}
