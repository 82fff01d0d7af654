//! The counters for `/metrics`, which outlive the models.

use crate::error::Result;
use crate::live::{Counters, Metered};
use crate::stats::Stats;
use crate::sync::lock_soon;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{LazyLock, Mutex};

static COUNTERS: LazyLock<Mutex<Counters>> = LazyLock::new(Mutex::default);
static IS_WANTED: AtomicBool = AtomicBool::new(false);

/// Whether anybody may ask.
pub fn count_if(is_wanted: bool) {
    IS_WANTED.store(is_wanted, Relaxed);
}

/// A model is about to go, which is called `name`: what it has counted is not lost.
pub fn note_end(life: u64, name: &str, stats: &Stats) {
    if !IS_WANTED.load(Relaxed) {
        return;
    }
    if let Some(mut counters) = lock_soon(&COUNTERS) {
        counters.note_end(&Metered {
            model: short(name),
            life,
            stats,
            budget_bytes: 0,
            hindsight: None,
            profile: None,
            recognized: None,
            devices: Vec::new(),
        });
    }
}

/// The text for these models, and for the counters of those that are gone.
pub fn text(models: &[Metered]) -> Result<String> {
    let mut counters = COUNTERS
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner());
    counters.text(models)
}

/// The name of a file without the folder.
pub fn short(name: &str) -> &str {
    name.rsplit('/').next().unwrap_or(name)
}
