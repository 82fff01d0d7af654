//! What a queue is asked for, and what it answers.

use super::queue_depth::QueueDepth;
use super::fault::Faults;
use crate::error::Error;
use std::io;
use std::path::PathBuf;
use std::time::Instant;

/// How reads are done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QueueKind {
    /// io_uring if the system has it and lets us, else pread. `Way::find` decides by what is faster.
    Auto,
    /// io_uring: one thread, which sleeps until the kernel has finished something.
    Uring,
    /// A pool of threads that read.
    Pread,
}

/// How a queue is to be.
#[derive(Debug, Clone, Copy)]
pub struct QueueOptions {
    /// How reads are done.
    pub kind: QueueKind,
    /// How much is given to the system at once.
    pub queue_depth: QueueDepth,
    /// What is to go wrong.
    pub faults: Faults,
}

/// One read. `offset`, `len` and `dst` are multiples of the file's alignment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Read {
    /// Index into the queue's files.
    pub file: u32,
    /// Where in the file.
    pub offset: u64,
    /// How many bytes.
    pub len: usize,
    /// How many of them must arrive, at least 1: the rest may lie beyond the end of the file.
    pub need: usize,
    /// Where in the arena, in bytes from its beginning.
    pub dst: usize,
    /// Given back when the read is done.
    pub tag: u64,
}

/// A read that did not deliver.
#[derive(Debug)]
pub struct ReadFailure {
    /// The file.
    pub path: PathBuf,
    /// Where in the file.
    pub offset: u64,
    /// How many bytes were needed.
    pub n_bytes: usize,
    /// What the system said.
    pub cause: io::Error,
}

impl ReadFailure {
    /// The error for the reader of `what`.
    pub fn into_error(self, what: String) -> Error {
        Error::Read {
            what,
            path: self.path,
            offset: self.offset,
            n_bytes: self.n_bytes,
            cause: self.cause,
        }
    }
}

/// Hears of every read when it is done.
pub trait Sink: Send + Sync {
    /// The read with this tag is done. Called once per read, in any order, by a thread of the
    /// queue, which holds no lock; while it is here it does not report other reads. A panic here
    /// aborts the process.
    fn done(&self, tag: u64, result: std::result::Result<(), ReadFailure>);

    /// Something went another way than it should, and reading goes on: a sentence, without its end, for
    /// people. Called like `done`, a few times in the life of a queue at most.
    fn note(&self, _: &str) {}
}

/// What a queue did so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct QueueStats {
    /// Reads that delivered.
    pub n_reads: u64,
    /// Bytes they delivered, including what alignment added.
    pub bytes_read: u64,
    /// Reads submitted and not reported yet.
    pub n_in_flight: u64,
    /// Calls that were made again because what they failed with passes.
    pub n_retries: u64,
}

/// A read that the system was given and has not done yet.
#[derive(Debug, Clone)]
pub struct UnderWay {
    /// Index into the queue's files.
    pub file: u32,
    /// Where in the file.
    pub offset: u64,
    /// How many bytes are needed.
    pub n_bytes: usize,
    /// When the system was given it.
    pub since: Instant,
}
