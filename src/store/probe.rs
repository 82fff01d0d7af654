//! How fast a file can be read, by trying.

// Memory is used once before it is read into, which has no safe form.
#![allow(unsafe_code)]

use std::collections::VecDeque;
use std::ptr;
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use super::{
    Arena, Faults, ModelFile, QueueDepth, QueueKind, QueueOptions, Read, ReadFailure, ReadQueue, Sink,
};
use crate::error::Result;

/// Reads from places all over `file`, `n_bytes` each and `n_reads` at a time, at `queue_depth`, while it `goes_on`, which
/// is told how long that has been; returns bytes per second.
///
/// Where reads go through the page cache, this says how fast that is. Fails if the system refuses memory or
/// the queue, and if a read fails, as in a file of less than `n_bytes`.
pub fn bytes_per_second(
    file: &ModelFile,
    kind: QueueKind,
    n_bytes: usize,
    n_reads: u32,
    queue_depth: QueueDepth,
    goes_on: &dyn Fn(Duration) -> bool,
) -> Result<f64> {
    let options = QueueOptions {
        kind,
        queue_depth,
        faults: Faults::default(),
    };
    let mut probe = Probe::open(file, options, n_bytes, n_reads)?;
    let trial = probe.read_while(n_reads, u64::MAX, goes_on, None)?;
    Ok(trial.bytes_per_second())
}

/// What a trial has brought.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Trial {
    /// Bytes that arrived.
    pub n_bytes: u64,
    /// Until the last of them did.
    pub took: Duration,
    /// The least that a read took after the one before it, and of that, giving it to the system. Reads that are
    /// under way at once end together, so this is of reads one by one.
    /// If nothing arrived, what was waited for that.
    pub fastest: (Duration, Duration),
}

impl Trial {
    pub fn bytes_per_second(&self) -> f64 {
        self.n_bytes as f64 / self.took.as_secs_f64().max(1e-9)
    }
}

/// A queue to try a file with.
pub(super) struct Probe {
    /// None when it is dropped.
    queue: Option<ReadQueue>,
    done: Arc<Done>,
    align: usize,
    len: usize,
    n_offsets: u64,
    n_submitted: u64,
}

impl Probe {
    /// Reads of `n_bytes`, up to `n_places` at once. The memory for them is used once, because the first use
    /// costs more.
    pub fn open(
        file: &ModelFile,
        options: QueueOptions,
        n_bytes: usize,
        n_places: u32,
    ) -> Result<Self> {
        let file = file.again()?;
        let align = file.align();
        let len = n_bytes.next_multiple_of(align);
        let n_offsets = (file.len() / align as u64).saturating_sub((len / align) as u64) + 1;
        let arena = Arc::new(Arena::map(len * n_places as usize)?);
        let memory = ptr::with_exposed_provenance_mut::<u8>(arena.addr());
        // SAFETY: the arena is writable, and nothing reads into it yet.
        unsafe { ptr::write_bytes(memory, 0, arena.len()) };
        let done = Arc::new(Done::default());
        let queue = ReadQueue::new(vec![file], arena, done.clone(), options)?;
        Ok(Self {
            queue: Some(queue),
            done,
            align,
            len,
            n_offsets,
            n_submitted: 0,
        })
    }

    /// How it reads.
    pub fn kind(&self) -> QueueKind {
        self.queue().kind()
    }

    fn queue(&self) -> &ReadQueue {
        self.queue.as_ref().expect("there until it is dropped")
    }

    /// Reads `n_at_once` at a time until `limit` has passed or `n_reads` were begun, waits for the last of them,
    /// and says what that brought; two reads at least. After `stop` it waits for nothing.
    pub fn read(
        &mut self,
        n_at_once: u32,
        n_reads: u64,
        limit: Duration,
        stop: Option<Instant>,
    ) -> Result<Trial> {
        self.read_while(n_at_once, n_reads, &|took| took < limit, stop)
    }

    /// The same while it `goes_on`, which is told how long it has been.
    fn read_while(
        &mut self,
        n_at_once: u32,
        n_reads: u64,
        goes_on: &dyn Fn(Duration) -> bool,
        stop: Option<Instant>,
    ) -> Result<Trial> {
        let begin = Instant::now();
        let mut trial = Trial {
            n_bytes: 0,
            took: Duration::ZERO,
            fastest: (Duration::MAX, Duration::ZERO),
        };
        let mut submitted = begin;
        let mut submitting = Duration::ZERO;
        let (mut n_begun, mut n_ended) = (0, 0);
        for place in 0..u64::from(n_at_once) {
            submitting = self.submit(place);
            n_begun += 1;
        }
        while n_ended < n_begun {
            let Some(place) = self.done.next(stop)? else {
                break;
            };
            n_ended += 1;
            let now = Instant::now();
            trial.fastest = trial.fastest.min((now - submitted, submitting));
            let is_enough = n_begun >= 2 && (n_begun >= n_reads || !goes_on(now - begin));
            if !is_enough {
                submitted = now;
                submitting = self.submit(place);
                n_begun += 1;
            }
        }
        trial.took = begin.elapsed();
        if n_ended == 0 {
            trial.fastest = (trial.took, submitting);
        }
        trial.n_bytes = n_ended * self.len as u64;
        Ok(trial)
    }

    /// Begins `n` reads at once; returns how long it took until the first and the last of them were there. After `stop`
    /// it waits for nothing, and `None` is returned.
    pub fn burst(&mut self, n: u32, stop: Instant) -> Result<Option<(Duration, Duration)>> {
        let begin = Instant::now();
        for place in 0..u64::from(n) {
            self.submit(place);
        }
        let mut first = None;
        for _ in 0..n {
            if self.done.next(Some(stop))?.is_none() {
                return Ok(None);
            }
            first.get_or_insert_with(|| begin.elapsed());
        }
        Ok(first.map(|first| (first, begin.elapsed())))
    }

    /// Begins a read into `place`; returns how long that took.
    fn submit(&mut self, place: u64) -> Duration {
        // All over the file without a pattern: the fractions of multiples of the golden ratio.
        let fraction = (self.n_submitted as f64 * 0.618_033_988_749_895).fract();
        self.n_submitted += 1;
        let begin = Instant::now();
        self.queue().submit(&[Read {
            file: 0,
            offset: (fraction * self.n_offsets as f64) as u64 * self.align as u64,
            len: self.len,
            need: self.len,
            dst: place as usize * self.len,
            tag: place,
        }]);
        begin.elapsed()
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        let queue = self.queue.take();
        // Reads that were not waited for keep their memory until they end, which somebody else waits for.
        if queue
            .as_ref()
            .is_some_and(|queue| queue.stats().n_in_flight > 0)
        {
            let thread = thread::Builder::new().name("hotset-probe".into());
            let _ = thread.spawn(move || drop(queue));
        }
    }
}

/// Reads that are done, in their order.
#[derive(Default)]
struct Done {
    reads: Mutex<VecDeque<(u64, std::result::Result<(), ReadFailure>)>>,
    changed: Condvar,
}

impl Done {
    /// Waits for one and returns its tag; `None` if there is none at `stop`.
    fn next(&self, stop: Option<Instant>) -> Result<Option<u64>> {
        let mut reads = self.reads.lock().expect("no thread panics with it");
        while reads.is_empty() {
            reads = match stop {
                None => self.changed.wait(reads).expect("no thread panics with it"),
                Some(stop) => {
                    let left = stop.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return Ok(None);
                    }
                    let waited = self.changed.wait_timeout(reads, left);
                    waited.expect("no thread panics with it").0
                }
            };
        }
        let (tag, result) = reads.pop_front().expect("waited for");
        match result {
            Ok(()) => Ok(Some(tag)),
            Err(failure) => Err(failure.into_error("a trial".to_string())),
        }
    }
}

impl Sink for Done {
    fn done(&self, tag: u64, result: std::result::Result<(), ReadFailure>) {
        let mut reads = self.reads.lock().expect("no thread panics with it");
        reads.push_back((tag, result));
        self.changed.notify_one();
    }
}
