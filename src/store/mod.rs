//! Where the bytes of an expert come from: model files, memory to put them in, and a queue that
//! reads from the one into the other without anybody waiting.

mod arena;
mod cached;
mod fault;
mod file;
mod job;
mod pread;
mod queue;
#[cfg(target_os = "linux")]
mod uring;

pub use arena::Arena;
pub use cached::{Dropped, drop_cached};
pub use fault::Faults;
pub use file::{ModelFile, Span, span};
pub use queue::{
    QUEUE_DEPTH, QueueKind, QueueOptions, QueueStats, Read, ReadFailure, ReadQueue, Sink,
};
