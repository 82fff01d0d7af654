//! Reads many slices of files at once, straight into the arena.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::backlog::Recalled;
use super::core::{Backend, Core};
use super::job::Job;
use super::read::{QueueKind, QueueOptions, QueueStats, Read, Sink, UnderWay};
use super::{Arena, ModelFile, pread};
use crate::error::{Error, Result, cause_again};

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

/// Somebody looks whether reads have ended; see [`ReadQueue::look`].
pub struct Looker<'a>(&'a dyn Backend);

impl Drop for Looker<'_> {
    fn drop(&mut self) {
        self.0.note_looker(false);
    }
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
        assert!(options.queue_depth.depth > 0, "a queue of depth 0 reads nothing");
        let core = Arc::new(Core::new(files, arena, sink, options));
        let asked = options.kind;
        let mut why = options.queue_depth.why.to_string();
        if asked != QueueKind::Pread {
            match start_uring(&core, options) {
                Ok(backend) => {
                    return Ok(Self {
                        core,
                        backend,
                        kind: QueueKind::Uring,
                        about: format!("io_uring, {}", options.queue_depth),
                    });
                }
                Err(cause) if asked == QueueKind::Uring => return Err(refused(asked, &cause)),
                Err(cause) => why = format!(" (io_uring refused: {cause})"),
            }
        }
        let n_threads = options.queue_depth.depth.min(pread::THREADS_MAX);
        let (pool, short) =
            pread::ReadThreads::start(&core, n_threads).map_err(|cause| refused(asked, &cause))?;
        let short = short.map_or(String::new(), |cause| format!(" (no more: {cause})"));
        Ok(Self {
            about: format!("pread, {} threads{short}{why}", pool.n_threads()),
            core,
            backend: Box::new(pool),
            kind: QueueKind::Pread,
        })
    }

    /// Starts `reads`; those beyond the depth wait. Does not wait for any of them.
    ///
    /// Panics, before anything is started, if a read is misaligned or leaves the arena.
    pub fn submit(&self, reads: &[Read]) {
        let mut jobs = self.jobs(reads);
        self.backend.change(&mut |line| line.add(&mut jobs));
    }

    /// Whether so many reads, of a piece each, would all be under way at once.
    pub fn takes_at_once(&self, n_reads: usize) -> bool {
        n_reads <= self.core.depth
    }

    /// As [`Self::submit`], with the reads ahead whose tags satisfy `is_needed`. If they are `is_in_turn`, needed after
    /// all that was submitted before, and the disk reports nothing until it has done all that it was given, none of them is started
    /// before the others have ended.
    pub fn submit_turn(&self, reads: &[Read], is_needed: &dyn Fn(u64) -> bool, is_in_turn: bool) {
        let mut jobs = self.jobs(reads);
        let waits = self.core.ends_together && is_in_turn;
        self.backend
            .change(&mut |line| line.add_turn(&mut jobs, is_needed, waits));
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

    /// Looks whether reads have ended, and reports them; for who waits for one and has nothing else to do. False if
    /// that is no help, because other threads have to be let go on.
    pub fn help(&self) -> bool {
        self.backend.help()
    }

    /// Who has this calls [`Self::help`] again and again: nobody else is woken by what has ended meanwhile.
    pub fn look(&self) -> Looker<'_> {
        self.backend.note_looker(true);
        Looker(self.backend.as_ref())
    }

    fn jobs(&self, reads: &[Read]) -> impl Iterator<Item = Job> {
        let jobs: Vec<Job> = reads.iter().flat_map(|read| self.core.jobs(read)).collect();
        self.core
            .counters
            .n_in_flight
            .fetch_add(reads.len() as u64, Ordering::Relaxed);
        jobs.into_iter()
    }

    /// How reads are really done: `Uring` or `Pread`. A ring that is lost later is still `Uring`.
    pub fn kind(&self) -> QueueKind {
        self.kind
    }

    /// The same for people, by now, with the reason if it is not what `Auto` prefers.
    pub fn about(&self) -> &str {
        self.core.lost.get().unwrap_or(&self.about)
    }

    /// The read that the system has had for longest, if it has any; `None` if that cannot be told at once.
    pub fn longest_under_way(&self) -> Option<Option<UnderWay>> {
        let longest = self.backend.longest_under_way()?;
        Some(longest.map(|(read, since)| UnderWay {
            file: read.file,
            offset: read.offset,
            n_bytes: read.need,
            since,
        }))
    }

    /// The files, as indexed by [`Read::file`].
    pub fn files(&self) -> &[ModelFile] {
        &self.core.files
    }

    /// What was done so far.
    pub fn stats(&self) -> QueueStats {
        self.core.counters.stats()
    }
}

#[cfg(target_os = "linux")]
fn start_uring(core: &Arc<Core>, options: QueueOptions) -> io::Result<Box<dyn Backend>> {
    if super::sandbox::kills_uring() {
        return Err(io::Error::other(
            "it would end this process, says its seccomp filter",
        ));
    }
    let ring = super::uring::Ring::start(core, options.queue_depth)?;
    Ok(Box::new(ring))
}

#[cfg(not(target_os = "linux"))]
fn start_uring(_: &Arc<Core>, _: QueueOptions) -> io::Result<Box<dyn Backend>> {
    Err(io::ErrorKind::Unsupported.into())
}

fn refused(kind: QueueKind, cause: &io::Error) -> Error {
    let value = match kind {
        QueueKind::Auto => "auto",
        QueueKind::Uring => "uring",
        QueueKind::Pread => "pread",
    };
    let what = match kind {
        QueueKind::Uring => "io_uring is refused by the system",
        _ => "threads that read are refused by the system",
    };
    match kind {
        QueueKind::Uring => {
            let allowed = format!("{what}: {cause}; auto reads without");
            Error::setting("HOTSET_IO", value, allowed)
        }
        // Whoever asked for threads, or for nothing, has made no mistake.
        _ => Error::system(format!("HOTSET_IO={value}: {what}"), cause_again(cause)),
    }
}
