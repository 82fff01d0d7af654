//! Who guesses what comes next: the last thread of a lane, while it waits or before it computes; and nobody where that
//! does not pay.

mod patterned;

use hotset::engine::{Batch, Engine, Foresight, Inputs, Likely, Routing, When};
use hotset::trace::Picks;
use hotset::trial::Turn;
use patterned::Source;
use std::fs::File;
use std::sync::{Arc, Barrier, Mutex};
use std::thread::{self, ThreadId};

const N_EXPERTS: usize = 16;
const N_THREADS: usize = 3;

fn engine(faults: &str) -> (Engine, File) {
    let source = Source {
        n_experts: N_EXPERTS,
        n_layers: 3,
        part_bytes: &[4096, 8192],
        word: |layer, part, expert| (layer * 100 + part * 50 + expert) as u32,
    };
    patterned::engine(&source, "lru", 24, None, 1 << 20, faults)
}

/// Notes which threads guess.
struct Notes(Arc<Mutex<Vec<ThreadId>>>);

impl Foresight for Notes {
    fn see(&mut self, _: usize, _: usize, _: &Inputs) {}

    fn guess(&mut self, _: usize, _: usize, _: usize, _: usize) -> &Likely {
        self.0.lock().unwrap().push(thread::current().id());
        &[]
    }

    fn learn(&mut self, _: usize, _: usize, _: Option<Picks>) {}
}

/// All parts of an event of one token.
fn compute(engine: &Engine, layer: usize, experts: &[i32], ids: &Mutex<Vec<ThreadId>>) {
    let mut n_rows = [0; N_EXPERTS];
    experts.iter().for_each(|&e| n_rows[e as usize] = 1);
    let barrier = Barrier::new(N_THREADS);
    thread::scope(|scope| {
        for ith in 0..N_THREADS {
            let (n_rows, barrier) = (&n_rows, &barrier);
            scope.spawn(move || {
                for part in 0..2 {
                    if ith == 0 {
                        let routing = Routing {
                            picks: Picks::new(experts, experts.len(), experts.len()),
                            n_rows,
                            batch: &Batch::default(),
                            inputs: Inputs::new(&[1.0], 1, 1),
                        };
                        engine
                            .route(layer, part, 1, N_THREADS as u32, &routing)
                            .unwrap();
                    }
                    if ith + 1 == N_THREADS && part == 0 {
                        ids.lock().unwrap().push(thread::current().id());
                    }
                    barrier.wait();
                    let mut i = 0;
                    while engine.acquire(layer, 1, ith as u32, i).unwrap().is_some() {
                        i += 1;
                    }
                    barrier.wait();
                }
            });
        }
    });
}

#[test]
fn the_last_thread_guesses_once_an_event() {
    let (engine, _file) = engine("delay_ms=2");
    let (guesses, lasts) = (Arc::new(Mutex::new(Vec::new())), Mutex::new(Vec::new()));
    engine.look_ahead_with(Box::new(Notes(guesses.clone())), When::Always);
    // At first it waits, later all is there.
    for _ in 0..4 {
        compute(&engine, 0, &[1, 2], &lasts);
    }
    let lasts = lasts.into_inner().unwrap();
    // For two layers each.
    let expected: Vec<_> = lasts.iter().flat_map(|id| [*id; 2]).collect();
    assert_eq!(*guesses.lock().unwrap(), expected);
}

/// In a comparison half of the blocks guess nothing, not even to learn.
#[test]
fn nothing_is_guessed_while_the_governor_has_it_off() {
    let (engine, _file) = engine("");
    let when = When::WhileItPays {
        warm_up: 0,
        turn: Turn::default(),
    };
    let (guesses, lasts) = (Arc::new(Mutex::new(Vec::new())), Mutex::new(Vec::new()));
    engine.look_ahead_with(Box::new(Notes(guesses.clone())), when);
    let mut n_guesses = Vec::new();
    for _ in 0..32 {
        let before = guesses.lock().unwrap().len();
        compute(&engine, 0, &[1, 2], &lasts);
        n_guesses.push(guesses.lock().unwrap().len() - before);
    }
    // The first comparison, in blocks of 8: on, off, off, on.
    let expected: Vec<_> = [2, 0, 0, 2].into_iter().flat_map(|n| [n; 8]).collect();
    assert_eq!(n_guesses, expected);
}
