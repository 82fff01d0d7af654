//! The models of a process, one after the other.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

/// Which of the models of this process it is.
#[derive(Debug, Clone, Copy)]
pub struct Life {
    /// Its number, counted from 1: no other one ever has it.
    pub number: u64,
    /// When it was loaded.
    pub begin: Instant,
}

/// That of a model that is being loaded.
pub fn next() -> Life {
    static N: AtomicU64 = AtomicU64::new(0);
    Life {
        number: N.fetch_add(1, Relaxed) + 1,
        begin: Instant::now(),
    }
}
