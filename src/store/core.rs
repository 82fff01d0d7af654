//! What the ways of reading share with their queue: what becomes of calls and of reads.

use std::io;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use super::backlog::Backlog;
use super::fault::{Fault, Injector};
use super::file::is_no_to_direct;
use super::job::{Call, Job, Next, Whole};
use super::patience::{PATIENCE, is_interruption};
use super::{Arena, ModelFile, QueueOptions, QueueStats, Read, ReadFailure, Sink};

/// Performs pieces of reads and hands each to [`Core::report`] once.
pub(super) trait Backend: Send + Sync {
    /// Changes what waits, and starts what can be started.
    fn change(&self, change: &mut dyn FnMut(&mut Backlog));

    /// Takes what has ended, if that is not being done already: for a thread that waits for it anyway. False if that
    /// cannot be done.
    fn help(&self) -> bool {
        false
    }

    /// Somebody calls [`Self::help`] again and again from now on, or does so no longer: meanwhile nobody else need be woken
    /// by what has ended.
    fn note_looker(&self, is_here: bool) {
        let _ = is_here;
    }

    /// The read that the system has had for longest, and since when, if it has any. Does not wait for who reads:
    /// `None` if that would be necessary.
    fn longest_under_way(&self) -> Option<Option<(Read, Instant)>>;
}

/// What a backend and its threads share with the queue.
pub(super) struct Core {
    pub files: Vec<ModelFile>,
    arena: Arc<Arena>,
    pub sink: Arc<dyn Sink>,
    injector: Injector,
    piece_bytes: usize,
    /// See [`super::QueueDepth`].
    pub ends_together: bool,
    pub ahead_depth: usize,
    pub depth: usize,
    pub counters: Counters,
    /// Whether it was said that reads are tried again.
    is_retry_told: AtomicBool,
    /// How reads are done since io_uring was lost.
    pub lost: OnceLock<String>,
}

#[derive(Default)]
pub(super) struct Counters {
    n_reads: AtomicU64,
    bytes_read: AtomicU64,
    pub n_in_flight: AtomicU64,
    n_retries: AtomicU64,
}

impl Counters {
    pub fn stats(&self) -> QueueStats {
        QueueStats {
            n_reads: self.n_reads.load(Ordering::Relaxed),
            bytes_read: self.bytes_read.load(Ordering::Relaxed),
            n_in_flight: self.n_in_flight.load(Ordering::Relaxed),
            n_retries: self.n_retries.load(Ordering::Relaxed),
        }
    }
}

impl Core {
    pub fn new(
        files: Vec<ModelFile>,
        arena: Arc<Arena>,
        sink: Arc<dyn Sink>,
        options: QueueOptions,
    ) -> Self {
        Self {
            files,
            arena,
            sink,
            injector: Injector::new(options.faults),
            piece_bytes: options.queue_depth.piece_bytes,
            ends_together: options.queue_depth.ends_together,
            depth: options.queue_depth.depth as usize,
            ahead_depth: options.queue_depth.ahead_depth as usize,
            counters: Counters::default(),
            is_retry_told: AtomicBool::new(false),
            lost: OnceLock::new(),
        }
    }

    /// The pieces of a read, in their order.
    pub fn jobs(&self, read: &Read) -> impl Iterator<Item = Job> {
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
        let piece_bytes = piece_bytes(read.need, self.piece_bytes, align);
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

    /// The call that `job` makes next, and the descriptor that it is made of.
    pub fn call(&self, job: &mut Job) -> (RawFd, Call) {
        let file = &self.files[job.file() as usize];
        (file.raw_fd(), job.call(file.is_direct()))
    }

    /// Lets a call take the time it should, for whoever makes it.
    pub fn take_time(&self) {
        self.injector.call();
    }

    /// Takes the outcome of the last call of `job`. No lock may be held.
    pub fn advance(&self, job: &mut Job, outcome: io::Result<usize>) -> Next {
        let outcome = self.injector.outcome(outcome, job.was_direct());
        let cause = match outcome {
            Ok(n_bytes) => return job.advance(Ok(n_bytes)),
            Err(cause) => cause,
        };
        let read = job.whole.read;
        let file = &self.files[read.file as usize];
        let path = file.path().display();
        if job.was_direct() && is_no_to_direct(&cause) {
            return match file.stop_direct() {
                Ok(is_first) => {
                    if is_first {
                        self.sink.note(&format!(
                            "{path} cannot be read past the page cache any more ({cause}): experts are read \
                             through it from now on, and it takes memory of its own"
                        ));
                    }
                    Next::Call
                }
                Err(_) => Next::End(Err(cause)),
            };
        }
        let said = cause.to_string();
        // Nothing is wrong with the disk when a thread ends or hears a signal.
        let is_interruption = is_interruption(&cause);
        let next = job.advance(Err(cause));
        if matches!(next, Next::End(_)) {
            return next;
        }
        self.counters.n_retries.fetch_add(1, Ordering::Relaxed);
        if !is_interruption && !self.is_retry_told.swap(true, Ordering::Relaxed) {
            self.sink.note(&format!(
                "reading {} bytes at offset {} of {path} failed: {said}; reads that fail so are tried again, \
                 for {} seconds each",
                read.need,
                read.offset,
                PATIENCE.as_secs(),
            ));
        }
        next
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

/// How large the pieces are of a read of `n_bytes`: `usual`, or a little more where a small rest would be left, which
/// is not worth a call of its own.
fn piece_bytes(n_bytes: usize, usual: usize, align: usize) -> usize {
    let usual = usual.next_multiple_of(align);
    let n_whole = n_bytes / usual;
    match n_whole > 0 && (1..=usual / 4).contains(&(n_bytes % usual)) {
        true => n_bytes.div_ceil(n_whole).next_multiple_of(align),
        false => usual,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Faults, QueueDepth, QueueKind};
    use std::os::fd::AsFd;
    use std::sync::Mutex;

    #[derive(Default)]
    struct Notes(Mutex<Vec<String>>);

    impl Sink for Notes {
        fn done(&self, _: u64, _: std::result::Result<(), ReadFailure>) {}

        fn note(&self, note: &str) {
            self.0.lock().unwrap().push(note.to_string());
        }
    }

    #[test]
    fn a_small_rest_is_no_piece_of_its_own() {
        let pieces = |n_bytes: usize| {
            let piece_bytes = piece_bytes(n_bytes, 512 << 10, 4096);
            (piece_bytes, n_bytes.div_ceil(piece_bytes))
        };
        assert_eq!(pieces(540 << 10), (540 << 10, 1));
        assert_eq!(pieces((3 * 512 + 128) << 10), (556 << 10, 3));
        for (n_bytes, n) in [(1, 1), (512 << 10, 1), ((512 << 10) + (129 << 10), 2), (1 << 20, 2)] {
            assert_eq!(pieces(n_bytes), (512 << 10, n), "{n_bytes}");
        }
    }

    /// The first of them, and not what is made again as a matter of course.
    #[test]
    fn a_line_says_that_reads_are_tried_again() {
        let path =
            std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("models/polyglot-moe.gguf");
        let given = std::fs::File::open(path).unwrap();
        let file = ModelFile::open(given.as_fd()).unwrap();
        let len = 4096usize.next_multiple_of(file.align());
        let notes = Arc::new(Notes::default());
        let options = QueueOptions {
            kind: QueueKind::Pread,
            queue_depth: QueueDepth::default(),
            faults: Faults::default(),
        };
        let arena = Arc::new(Arena::map(len).unwrap());
        let core = Core::new(vec![file], arena, notes.clone(), options);
        let read = Read {
            file: 0,
            offset: 0,
            len,
            need: len,
            dst: 0,
            tag: 0,
        };
        let mut job = core.jobs(&read).next().unwrap();
        let n_notes = [
            libc::EINTR,
            libc::ECANCELED,
            libc::EFAULT,
            libc::ENOMEM,
            libc::EAGAIN,
        ]
        .map(|errno| {
            core.call(&mut job);
            let next = core.advance(&mut job, Err(io::Error::from_raw_os_error(errno)));
            assert!(!matches!(next, Next::End(_)), "{errno}");
            notes.0.lock().unwrap().len()
        });
        assert_eq!(n_notes, [0, 0, 0, 1, 1]);
        assert_eq!(core.counters.stats().n_retries, 5);
    }
}
