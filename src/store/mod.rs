//! Where the bytes of an expert come from: model files, memory to put them in, and a queue that
//! reads from the one into the other without anybody waiting.

mod arena;
mod cached;
mod fault;
mod file;
mod job;
mod line;
mod pace;
mod pread;
pub mod probe;
mod queue;
mod resident;
#[cfg(target_os = "linux")]
mod sandbox;
#[cfg(target_os = "linux")]
mod uring;

pub use arena::Arena;
pub use cached::{Dropped, drop_cached};
pub use fault::Faults;
pub use file::{ModelFile, Span, span};
pub use line::Recalled;
pub use pace::Pace;
pub use queue::{QueueKind, QueueOptions, QueueStats, Read, ReadFailure, ReadQueue, Sink};
pub use resident::resident_bytes;
