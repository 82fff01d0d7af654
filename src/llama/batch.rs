//! The batch that a thread computes, and whose it is.

use crate::engine::Batch;
use std::cell::RefCell;
use std::sync::atomic::AtomicU64;

/// Batches that were begun, of all threads.
pub static N_BEGUN: AtomicU64 = AtomicU64::new(0);

thread_local! {
    /// What this thread computes, or computed last.
    pub static BATCH: RefCell<Batch> = RefCell::default();
}
