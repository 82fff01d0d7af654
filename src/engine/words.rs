//! What a word that threads share is made of, and how they wait for each other. A test makes it of what loom has.

pub use std::hint::spin_loop;
pub use std::sync::atomic::{AtomicU32, Ordering};
pub use std::thread::yield_now;
