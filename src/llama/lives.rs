//! The models of a process, one after the other.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The number of a model that is being loaded, counted from 1.
pub fn next() -> u64 {
    static N: AtomicU64 = AtomicU64::new(0);
    N.fetch_add(1, Relaxed) + 1
}
