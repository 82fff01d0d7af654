//! Several models in one process, and several contexts of one model: each is right whatever the
//! others do.

#![cfg(all(feature = "llama", feature = "cli"))]
#![allow(unsafe_code)]

mod runner;
mod tiny;

use hotset::config::{Config, Ram, StatsTo};
use hotset::llama::{self, sys::*};
use runner::{Options, Runner, take_hook, tokens};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::Duration;

fn streaming(ram: Ram) -> Config {
    Config {
        ram: Some(ram),
        stats: StatsTo::Off,
        ..Config::default()
    }
}

/// Ends the process unless the result is dropped in time: a thread that hangs cannot be failed.
fn watchdog() -> Sender<()> {
    let (alive, end) = channel();
    std::thread::spawn(move || {
        if end.recv_timeout(Duration::from_secs(120)) == Err(RecvTimeoutError::Timeout) {
            eprintln!("the test hangs");
            std::process::abort();
        }
    });
    alive
}

fn load(path: &Path) -> Runner {
    Runner::load(path, Options::default()).expect("the model loads")
}

/// The logits of each batch of `given`.
fn decode(runner: &mut Runner, given: &[i32]) -> Vec<Vec<u32>> {
    let batch = |tokens| {
        let mut logits = Vec::new();
        runner.decode(tokens, &mut logits);
        logits
    };
    given.chunks(4).map(batch).collect()
}

#[test]
fn models_do_not_disturb_each_other() {
    let _alive = watchdog();
    let dir = tempfile::tempdir().unwrap();
    let all = tiny::all();
    let path = |i: usize| tiny::write(&all[i], dir.path());
    let (qwen, gpt, split) = (path(0), path(3), path(7));
    // Another model, a split one, and the same one once more.
    for (first, second) in [(&qwen, &gpt), (&split, &qwen), (&qwen, &qwen)] {
        two_models(first, second);
    }
}

fn two_models(first: &Path, second: &Path) {
    let given = tokens(48, tiny::N_VOCAB);
    let (early, late) = given.split_at(24);
    let stock = |path: &PathBuf| {
        let _hook = take_hook(None);
        decode(&mut load(path), &given)
    };
    let [right_a, right_b] = [first, second].map(|p| stock(&p.to_path_buf()));
    let n_early = early.chunks(4).len();

    let _hook = take_hook(Some(&streaming(Ram::Percent(30.0))));
    let (mut a, mut b) = (load(first), load(second));
    for (i, batch) in early.chunks(4).enumerate() {
        assert!(
            decode(&mut a, batch) == right_a[i..=i],
            "{first:?} batch {i}"
        );
        assert!(
            decode(&mut b, batch) == right_b[i..=i],
            "{second:?} batch {i}"
        );
    }
    let stats = llama::stats();
    assert_eq!(stats.len(), 2);
    for stats in &stats {
        assert_eq!(stats.generation.tokens, 24, "each counts its own tokens");
        assert!(stats.generation.evictions > 0);
    }
    drop(a);
    assert_eq!(llama::stats().len(), 1);
    let mut a = load(first);
    for (i, batch) in early.chunks(4).enumerate() {
        assert!(
            decode(&mut a, batch) == right_a[i..=i],
            "{first:?} again, batch {i}"
        );
    }
    assert!(
        decode(&mut b, late) == right_b[n_early..],
        "{second:?} after the other was freed"
    );
    drop(b);
    assert!(
        decode(&mut a, late) == right_a[n_early..],
        "{first:?} alone"
    );
}

/// How often this process has `path` open; 0 where the system does not say.
fn n_open(path: &Path) -> usize {
    let files = std::fs::read_dir("/proc/self/fd").into_iter().flatten();
    let links = files.filter_map(|f| std::fs::read_link(f.ok()?.path()).ok());
    links.filter(|link| link == path).count()
}

/// Models of one shape, one after the other: the next one's tensors often lie where the last one's
/// were.
#[test]
fn a_freed_model_leaves_nothing() {
    let _alive = watchdog();
    let dir = tempfile::tempdir().unwrap();
    let given = tokens(24, tiny::N_VOCAB);
    for seed in 20..26 {
        let spec = tiny::Spec {
            seed,
            ..tiny::all()[0]
        };
        let path = tiny::write(&spec, dir.path());
        let right = {
            let _hook = take_hook(None);
            decode(&mut load(&path), &given)
        };
        let _hook = take_hook(Some(&streaming(Ram::Percent(30.0))));
        for _ in 0..2 {
            let mut model = load(&path);
            assert!(decode(&mut model, &given) == right, "seed {seed}");
            let stats = llama::stats();
            assert_eq!(stats.len(), 1);
            assert_eq!(stats[0].generation.tokens, 24, "its own tokens");
            assert!(stats[0].generation.evictions > 0);
            assert_eq!(n_open(&path) > 0, cfg!(target_os = "linux"));
            drop(model);
            assert_eq!(n_open(&path), 0, "what belonged to the model is gone");
        }
    }
}

/// A context of a model that outlives it.
struct Context(*mut llama_context);

// SAFETY: a context is used by one thread at a time, which may change.
unsafe impl Send for Context {}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: made by `new` and freed once.
        unsafe { llama_free(self.0) }
    }
}

impl Context {
    fn new(model: *mut llama_model, n_threads: i32) -> Self {
        // SAFETY: the model lives; default parameters with plain values changed.
        let context = unsafe {
            let mut params = llama_context_default_params();
            params.n_ctx = 512;
            params.n_threads = n_threads;
            params.n_threads_batch = n_threads;
            llama_init_from_model(model, params)
        };
        assert!(!context.is_null());
        Self(context)
    }

    /// The bits of the logits after each batch of the conversation.
    fn converse(&self, talk: &Talk) -> Vec<u32> {
        let n_vocab = tiny::N_VOCAB;
        let mut given = talk.tokens.clone();
        let mut logits = Vec::new();
        for batch in given.chunks_mut(talk.n_batch) {
            // SAFETY: the batch borrows its tokens during the call, and after it there is one row of
            // logits, for the last token.
            unsafe {
                let batch = llama_batch_get_one(batch.as_mut_ptr(), batch.len() as i32);
                assert_eq!(llama_decode(self.0, batch), 0);
                let row = llama_get_logits_ith(self.0, -1);
                let row = std::slice::from_raw_parts(row, n_vocab);
                logits.extend(row.iter().map(|x| x.to_bits()));
            }
        }
        logits
    }
}

/// What one thread gives to its context.
struct Talk {
    tokens: Vec<i32>,
    n_batch: usize,
    n_threads: i32,
}

/// Two that generate and one that reads long prompts, with one thread and with two.
fn talks() -> Vec<Talk> {
    let talk = |skip, n, n_batch, n_threads| Talk {
        tokens: tokens(400, tiny::N_VOCAB)[skip..skip + n].to_vec(),
        n_batch,
        n_threads,
    };
    vec![
        talk(0, 40, 1, 2),
        talk(50, 40, 3, 1),
        talk(100, 300, 100, 2),
    ]
}

#[test]
fn contexts_of_one_model_compute_at_the_same_time() {
    let _alive = watchdog();
    let dir = tempfile::tempdir().unwrap();
    let talks = talks();
    for spec in [tiny::all()[0], tiny::all()[5], tiny::all()[7]] {
        let path = tiny::write(&spec, dir.path());
        let right: Vec<_> = {
            let _hook = take_hook(None);
            let model = load(&path);
            let alone = |t: &Talk| Context::new(model.model, t.n_threads).converse(t);
            talks.iter().map(alone).collect()
        };
        for ram in [Ram::Percent(40.0), Ram::Percent(8.0), Ram::Percent(0.0001)] {
            let _hook = take_hook(Some(&streaming(ram)));
            let model = load(&path);
            for round in 0..4 {
                let contexts = talks.iter().map(|t| Context::new(model.model, t.n_threads));
                let contexts: Vec<_> = contexts.collect();
                std::thread::scope(|scope| {
                    for ((context, talk), right) in contexts.into_iter().zip(&talks).zip(&right) {
                        let name = spec.name;
                        scope.spawn(move || {
                            let is_right = context.converse(talk) == *right;
                            assert!(is_right, "{name} {ram:?} round {round}");
                        });
                    }
                });
            }
            let stats = llama::stats().pop().expect("experts were streamed");
            assert!(stats.generation.misses > 0 && stats.prompt.misses > 0);
            assert_eq!(stats.generation.evictions > 0, ram != Ram::Percent(0.0001));
            assert!(stats.has_staged);
        }
    }
}
