//! The batch that a thread computes, and whose it is.

use crate::engine::Batch;
use std::cell::RefCell;

thread_local! {
    /// What this thread computes, or computed last.
    pub static BATCH: RefCell<Batch> = RefCell::default();
}
