//! How fast a file can be read, by trying.

use std::collections::VecDeque;
use std::os::fd::AsFd;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use super::{
    Arena, Faults, ModelFile, Pace, QueueKind, QueueOptions, Read, ReadFailure, ReadQueue, Sink,
};
use crate::error::Result;

/// Reads from places all over `file`, `n_bytes` each and `n_reads` at a time, at `pace`, until `limit` has
/// passed; returns bytes per second.
///
/// The memory of each of the `n_reads` reads is used once before the time counts, because the first use
/// costs more. Where reads go through the page cache, this says how fast that is. Fails if the system
/// refuses memory or the queue, and if a read fails, as in a file of less than `n_bytes`.
pub fn bytes_per_second(
    file: &ModelFile,
    kind: QueueKind,
    n_bytes: usize,
    n_reads: u32,
    pace: Pace,
    limit: Duration,
) -> Result<f64> {
    let file = ModelFile::open(file.as_fd())?;
    let align = file.align();
    let len = n_bytes.next_multiple_of(align);
    let n_offsets = (file.len() / align as u64).saturating_sub((len / align) as u64) + 1;
    let arena = Arc::new(Arena::map(len * n_reads as usize)?);
    let done = Arc::new(Done::default());
    let options = QueueOptions {
        kind,
        pace,
        faults: Faults::default(),
    };
    let queue = ReadQueue::new(vec![file], arena, done.clone(), options)?;
    let mut n_submitted = 0u64;
    let mut submit = |place: u64| {
        // All over the file without a pattern: the fractions of multiples of the golden ratio.
        let fraction = (n_submitted as f64 * 0.618_033_988_749_895).fract();
        n_submitted += 1;
        queue.submit(&[Read {
            file: 0,
            offset: (fraction * n_offsets as f64) as u64 * align as u64,
            len,
            need: len,
            dst: place as usize * len,
            tag: place,
        }]);
    };
    (0..u64::from(n_reads)).for_each(&mut submit);
    for _ in 0..n_reads {
        submit(done.next()?);
    }
    let begin = Instant::now();
    let mut n_reads = 0u64;
    loop {
        let place = done.next()?;
        n_reads += 1;
        let elapsed = begin.elapsed();
        if elapsed >= limit {
            return Ok((n_reads * len as u64) as f64 / elapsed.as_secs_f64());
        }
        submit(place);
    }
}

/// Reads that are done, in their order.
#[derive(Default)]
struct Done {
    reads: Mutex<VecDeque<(u64, std::result::Result<(), ReadFailure>)>>,
    changed: Condvar,
}

impl Done {
    /// Waits for one and returns its tag.
    fn next(&self) -> Result<u64> {
        let reads = self.reads.lock().expect("no thread panics with it");
        let mut reads = self
            .changed
            .wait_while(reads, |reads| reads.is_empty())
            .expect("no thread panics with it");
        let (tag, result) = reads.pop_front().expect("waited for");
        match result {
            Ok(()) => Ok(tag),
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
