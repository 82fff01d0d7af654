//! Reads many slices of files at once, straight into the arena.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};

use super::fault::{Fault, Injector};
use super::job::{Job, Whole};
use super::line::{Line, Recalled};
use super::{Arena, Faults, ModelFile, Pace, pread};
use crate::error::{Error, Result};

/// How reads are done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QueueKind {
    /// io_uring if the system has it and lets us, else pread.
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
    pub pace: Pace,
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
}

/// Reads slices of files into an arena.
///
/// A read writes to the arena from `submit` until it is reported. That nobody else uses these
/// bytes meanwhile is the promise of whoever submits.
///
/// Drop cancels the reads that the system has not been given yet, waits for the others, and
/// reports all of them.
pub struct ReadQueue {
    core: Arc<Core>,
    backend: Box<dyn Backend>,
    kind: QueueKind,
    about: String,
}

impl ReadQueue {
    /// A queue that reads from `files` into `arena` and reports to `sink`.
    ///
    /// Fails if the system refuses what `options` asks for; `Auto` is refused nothing but threads.
    pub fn new(
        files: Vec<ModelFile>,
        arena: Arc<Arena>,
        sink: Arc<dyn Sink>,
        options: QueueOptions,
    ) -> Result<Self> {
        assert!(options.pace.depth > 0, "a queue of depth 0 reads nothing");
        let core = Arc::new(Core {
            files,
            arena,
            sink,
            injector: Injector::new(options.faults),
            piece_bytes: options.pace.piece_bytes,
            counters: Counters::default(),
        });
        let mut why = String::new();
        if options.kind != QueueKind::Pread {
            match start_uring(&core, options) {
                Ok(backend) => {
                    return Ok(Self {
                        core,
                        backend,
                        kind: QueueKind::Uring,
                        about: format!("io_uring, {}", options.pace),
                    });
                }
                Err(cause) if options.kind == QueueKind::Uring => {
                    return Err(refused("io_uring", options.pace.depth, &cause));
                }
                Err(cause) => why = format!(" (io_uring refused: {cause})"),
            }
        }
        let n_threads = options.pace.depth.min(pread::THREADS_MAX);
        let pool = pread::Pool::start(&core, n_threads)
            .map_err(|cause| refused("pread threads", n_threads, &cause))?;
        Ok(Self {
            core,
            backend: Box::new(pool),
            kind: QueueKind::Pread,
            about: format!("pread, {n_threads} threads{why}"),
        })
    }

    /// Starts `reads`; those beyond the depth wait. Does not wait for any of them.
    ///
    /// Panics, before anything is started, if a read is misaligned or leaves the arena.
    pub fn submit(&self, reads: &[Read]) {
        let mut jobs = self.jobs(reads);
        self.backend.change(&mut |line| line.add(&mut jobs));
    }

    /// As [`Self::submit`], for reads that may turn out to be useless: each is started when no other
    /// read waits and hardly any is under way.
    pub fn submit_ahead(&self, reads: &[Read]) {
        let mut jobs = self.jobs(reads);
        self.backend.change(&mut |line| line.add_ahead(&mut jobs));
    }

    /// Lets reads ahead whose tags satisfy `is_needed` wait no longer than others.
    pub fn hurry(&self, is_needed: &dyn Fn(u64) -> bool) {
        self.backend.change(&mut |line| line.hurry(is_needed));
    }

    /// Ends reads ahead whose tags satisfy `is_useless`, if they have not been made: at once, or when what
    /// the system has been given of them has ended.
    pub fn recall(&self, is_useless: &dyn Fn(u64) -> bool) -> Recalled {
        let mut recalled = Recalled::default();
        self.backend
            .change(&mut |line| recalled = line.recall(is_useless));
        let n = recalled.dropped.len() as u64;
        let counters = &self.core.counters;
        counters.n_in_flight.fetch_sub(n, Ordering::Relaxed);
        recalled
    }

    fn jobs(&self, reads: &[Read]) -> impl Iterator<Item = Job> {
        let jobs: Vec<Job> = reads.iter().flat_map(|read| self.core.jobs(read)).collect();
        self.core
            .counters
            .n_in_flight
            .fetch_add(reads.len() as u64, Ordering::Relaxed);
        jobs.into_iter()
    }

    /// How reads are really done: `Uring` or `Pread`.
    pub fn kind(&self) -> QueueKind {
        self.kind
    }

    /// The same for people, with the reason if it is not what `Auto` prefers.
    pub fn about(&self) -> &str {
        &self.about
    }

    /// The files, as indexed by [`Read::file`].
    pub fn files(&self) -> &[ModelFile] {
        &self.core.files
    }

    /// What was done so far.
    pub fn stats(&self) -> QueueStats {
        let counters = &self.core.counters;
        QueueStats {
            n_reads: counters.n_reads.load(Ordering::Relaxed),
            bytes_read: counters.bytes_read.load(Ordering::Relaxed),
            n_in_flight: counters.n_in_flight.load(Ordering::Relaxed),
        }
    }
}

#[cfg(target_os = "linux")]
fn start_uring(core: &Arc<Core>, options: QueueOptions) -> io::Result<Box<dyn Backend>> {
    if super::sandbox::kills_uring() {
        return Err(io::Error::other(
            "it would end this process, says its seccomp filter",
        ));
    }
    let ring = super::uring::Ring::start(core, options.pace)?;
    Ok(Box::new(ring))
}

#[cfg(not(target_os = "linux"))]
fn start_uring(_: &Arc<Core>, _: QueueOptions) -> io::Result<Box<dyn Backend>> {
    Err(io::ErrorKind::Unsupported.into())
}

fn refused(what: &str, n: u32, cause: &io::Error) -> Error {
    Error::Setting {
        name: what.into(),
        value: n.to_string(),
        allowed: format!("refused by the system: {cause}"),
    }
}

/// Held by every thread of a queue. One that panics, in the sink or here, leaves somebody waiting
/// for a read forever, and memory that the kernel may still write to: better to end loudly.
pub(super) struct AbortOnPanic;

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if thread::panicking() {
            std::process::abort();
        }
    }
}

/// Ends a thread of a queue. The last owner of a queue may be its sink; a thread cannot wait for
/// itself, but ends after the call of the sink, and keeps what it needs until then.
pub(super) fn join(thread: JoinHandle<()>) {
    if thread.thread().id() != thread::current().id() {
        thread.join().expect("a panic would have aborted");
    }
}

/// Performs pieces of reads and hands each to [`Core::report`] once.
pub(super) trait Backend: Send + Sync {
    /// Changes what waits, and starts what can be started.
    fn change(&self, change: &mut dyn FnMut(&mut Line));
}

/// What a backend and its threads share with the queue.
pub(super) struct Core {
    pub files: Vec<ModelFile>,
    arena: Arc<Arena>,
    sink: Arc<dyn Sink>,
    injector: Injector,
    piece_bytes: usize,
    counters: Counters,
}

#[derive(Default)]
struct Counters {
    n_reads: AtomicU64,
    bytes_read: AtomicU64,
    n_in_flight: AtomicU64,
}

impl Core {
    /// The pieces of a read, in their order.
    fn jobs(&self, read: &Read) -> impl Iterator<Item = Job> {
        let file = &self.files[read.file as usize];
        let align = file.align();
        let addr = self.arena.addr() + read.dst;
        assert!(
            read.offset.is_multiple_of(align as u64)
                && read.len.is_multiple_of(align)
                && addr.is_multiple_of(align),
            "{read:?} is not aligned to {align}"
        );
        assert!(
            read.dst <= self.arena.len() && read.len <= self.arena.len() - read.dst,
            "{read:?} leaves an arena of {} bytes",
            self.arena.len()
        );
        assert!(0 < read.need && read.need <= read.len, "{read:?}");
        let piece_bytes = self.piece_bytes.next_multiple_of(align);
        let n_pieces = read.need.div_ceil(piece_bytes);
        let whole = Arc::new(Whole::new(*read, n_pieces));
        let fault = self.injector.next();
        let read = *read;
        (0..n_pieces).map(move |i| {
            let begin = i * piece_bytes;
            let piece = Read {
                offset: read.offset + begin as u64,
                len: piece_bytes.min(read.len - begin),
                need: piece_bytes.min(read.need - begin),
                dst: read.dst + begin,
                ..read
            };
            // What is to go wrong with the read goes wrong with its first piece.
            let fault = if i == 0 { fault } else { Fault::default() };
            Job::new(whole.clone(), piece, addr + begin, align, fault)
        })
    }

    /// A piece has ended: tells the sink if it was the last of its read. No lock may be held.
    pub fn report(&self, job: Job, result: io::Result<()>) {
        let counters = &self.counters;
        if result.is_ok() {
            let n_bytes = job.arrived() as u64;
            counters.bytes_read.fetch_add(n_bytes, Ordering::Relaxed);
        }
        let Some((_, result)) = job.whole.leave(job.arrived(), result) else {
            return;
        };
        self.injector.delay();
        if result.is_ok() {
            counters.n_reads.fetch_add(1, Ordering::Relaxed);
        }
        counters.n_in_flight.fetch_sub(1, Ordering::Relaxed);
        let read = &job.whole.read;
        let result = result.map_err(|cause| ReadFailure {
            path: self.files[read.file as usize].path().into(),
            offset: read.offset,
            n_bytes: read.need,
            cause,
        });
        self.sink.done(read.tag, result);
    }
}
