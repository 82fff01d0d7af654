//! Watches memory for the models of `HOTSET_RAM=auto`: each that ever was one has a thread that lives as long as it.

use super::model::Model;
use super::room::Budget;
use crate::engine::Engine;
use crate::error::Result;
use crate::memory;
use crate::memory::auto_size::{self, Announcer, Auto, Sample};
use crate::report;
use std::sync::atomic::Ordering::{AcqRel, Release};
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant};

/// Time between two looks. Whoever takes the reserve faster than this is not noticed in time.
const INTERVAL: Duration = Duration::from_millis(250);

/// Keeps the experts of `model` within what is available, until the model goes.
///
/// Does nothing where untouched memory is not known: what was taken back would seem to be still free.
pub fn watch(model: &Arc<Model>) {
    if !cfg!(target_os = "linux") || model.is_watched.swap(true, AcqRel) {
        return;
    }
    let watched = Arc::downgrade(model);
    let thread = thread::Builder::new().name("hotset-memory".into());
    if let Err(cause) = thread.spawn(move || run(&watched)) {
        model.is_watched.store(false, Release);
        say_unwatched(&cause);
    }
}

fn run(model: &Weak<Model>) {
    let begin = Instant::now();
    let mut watch = None;
    loop {
        thread::sleep(INTERVAL);
        let Some(model) = model.upgrade() else {
            return;
        };
        let Some(engine) = model.made_engine() else {
            continue;
        };
        let budget = model.hold_budget();
        // It was given a size.
        let Budget::UpTo(_) = *budget else {
            watch = None;
            continue;
        };
        let watch = watch.get_or_insert_with(|| Watch::new(engine));
        if let Err(error) = watch.look(engine, begin.elapsed()) {
            model.is_watched.store(false, Release);
            return say_unwatched(&error);
        }
    }
}

fn say_unwatched(why: &dyn std::fmt::Display) {
    report::say(&format!(
        "hotset: warning: experts keep their memory when it becomes short: {why}"
    ));
}

/// The most that experts which have `in_use` bytes may have, by what the system promises to this process. Others
/// here must be able to allocate, too.
fn can_have(engine: &Engine, in_use: u64) -> u64 {
    let more = auto_size::at_start(memory::promised().bytes, 0);
    engine.promised_bytes().saturating_add(more).max(in_use)
}

struct Watch {
    auto: Auto,
    announcer: Announcer,
}

impl Watch {
    fn new(engine: &Engine) -> Self {
        let pools = &engine.layout().pools;
        let n_bytes_max = engine.layout().slot_bytes_most();
        let slot_bytes = pools.iter().map(|pool| pool.slot_bytes as u64).max();
        Self {
            auto: Auto::new(n_bytes_max, slot_bytes.unwrap_or(0)),
            announcer: Announcer::new(n_bytes_max, engine.size().n_bytes),
        }
    }

    fn look(&mut self, engine: &Engine, at: Duration) -> Result<()> {
        let mut in_use = engine.size().n_bytes;
        let spare = memory::spare();
        let now = Sample {
            at,
            spare,
            in_use,
            most: can_have(engine, in_use),
        };
        if let Some(n_bytes) = self.auto.decide(&now) {
            in_use = engine.resize(n_bytes)?.n_bytes;
        }
        if let Some(line) = self.announcer.line(at, in_use) {
            report::say(&line);
        }
        Ok(())
    }
}
