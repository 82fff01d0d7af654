//! Where the bytes of an expert come from: model files, memory to put them in, and a queue that
//! reads from the one into the other without anybody waiting.

mod arena;
mod backlog;
mod page_cache;
mod content;
mod core;
mod queue_depth;
#[cfg(target_os = "linux")]
mod events;
mod fault;
mod file;
mod job;
#[cfg(target_os = "linux")]
mod lost;
mod patience;
mod pread;
pub mod probe;
mod queue;
mod read;
mod resident;
mod sample;
#[cfg(target_os = "linux")]
mod sandbox;
mod threads;
#[cfg(target_os = "linux")]
mod uring;
#[cfg(target_os = "linux")]
mod watch;
mod way;

pub use arena::Arena;
pub use backlog::Recalled;
pub use page_cache::{Dropped, drop_cached};
pub use queue_depth::{QueueDepth, Why};
pub use fault::Faults;
pub use file::{ModelFile, Span, span};
pub use queue::ReadQueue;
pub use read::{
    QueueKind, QueueOptions, QueueStats, Read, ReadFailure, Sink, UnderWay,
};
pub use resident::resident_bytes;
pub use way::{Slow, Way};
