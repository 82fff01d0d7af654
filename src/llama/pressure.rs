//! Watches memory for the models of `HOTSET_RAM=auto`: each has a thread that lives as long as it.

use super::model::Model;
use crate::auto::{Announcer, Auto, Sample};
use crate::engine::Engine;
use crate::error::Result;
use crate::memory;
use crate::report;
use std::sync::{Arc, Weak};
use std::thread;
use std::time::{Duration, Instant};

/// Time between two looks. Whoever takes the reserve faster than this is not noticed in time.
const INTERVAL: Duration = Duration::from_millis(250);

/// Keeps the experts of `model` within what is available, until the model goes.
///
/// Does nothing where untouched memory is not known: what was taken back would seem to be still free.
pub fn watch(model: &Arc<Model>) {
    if !cfg!(target_os = "linux") {
        return;
    }
    let model = Arc::downgrade(model);
    let thread = thread::Builder::new().name("hotset-memory".into());
    if let Err(cause) = thread.spawn(move || run(&model)) {
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
        let watch = watch.get_or_insert_with(|| Watch::new(engine));
        if let Err(error) = watch.look(engine, begin.elapsed()) {
            return say_unwatched(&error);
        }
    }
}

fn say_unwatched(why: &dyn std::fmt::Display) {
    report::say(&format!(
        "hotset: warning: experts keep their memory when it becomes short: {why}"
    ));
}

struct Watch {
    auto: Auto,
    announcer: Announcer,
}

impl Watch {
    fn new(engine: &Engine) -> Self {
        let n_bytes = engine.size().n_bytes;
        let pools = engine.layout().pools.iter();
        let slot_bytes = pools.map(|pool| pool.slot_bytes as u64).max();
        Self {
            auto: Auto::new(n_bytes, slot_bytes.unwrap_or(0)),
            announcer: Announcer::new(n_bytes),
        }
    }

    fn look(&mut self, engine: &Engine, at: Duration) -> Result<()> {
        let mut in_use = engine.size().n_bytes;
        let spare = memory::spare();
        let now = Sample { at, spare, in_use };
        if let Some(n_bytes) = self.auto.decide(&now) {
            in_use = engine.resize(n_bytes)?.n_bytes;
        }
        if let Some(line) = self.announcer.line(at, in_use) {
            report::say(&line);
        }
        Ok(())
    }
}
