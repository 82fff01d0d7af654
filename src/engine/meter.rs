//! What routing has cost.

use crate::store::Read;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// What routing has cost.
#[derive(Default)]
pub struct Meter {
    /// Reads that misses have caused, those ahead of them, and those of what devices got in advance.
    pub n_reads: AtomicU64,
    /// Bytes of these reads, including what alignment adds.
    pub bytes_read: AtomicU64,
    /// Whether any expert had to pass through the staging ring.
    pub has_staged: AtomicBool,
    /// Where the time of batches went that generate.
    pub generation: Spent,
    /// The same of prompts.
    pub prompt: Spent,
}

/// Where the time of batches went, in nanoseconds, as thread 0 of the lanes saw it.
#[derive(Default)]
pub struct Spent {
    /// From the first layer's routing to the end of the last layer, of batches that were computed here.
    pub busy_ns: AtomicU64,
    /// Of this, waiting for reads.
    pub stalled_ns: AtomicU64,
    /// Of that, for what had been asked for before its router had run.
    pub early_ns: AtomicU64,
    /// Of all, planning events and asking for what they miss.
    pub bookkeeping_ns: AtomicU64,
    /// Of all, the disk had nothing to do, and then something was asked for that was waited for.
    pub idle_ns: AtomicU64,
    /// What of the waiting a disk would save that is twice as fast: at most half of the time from when the layer's
    /// router had run to when the bytes came.
    pub faster_ns: AtomicU64,
}

impl Spent {
    /// Adds to one of the numbers.
    pub(super) fn add(number: &AtomicU64, time: Duration) {
        number.fetch_add(time.as_nanos() as u64, Ordering::Relaxed);
    }
}

impl Meter {
    /// What prefills have taken, or other batches.
    pub(super) fn spent(&self, is_prefill: bool) -> &Spent {
        match is_prefill {
            true => &self.prompt,
            false => &self.generation,
        }
    }

    /// Time that thread 0 of the lanes has waited for reads.
    pub fn stalled(&self) -> Duration {
        let ns = |spent: &Spent| spent.stalled_ns.load(Ordering::Relaxed);
        Duration::from_nanos(ns(&self.generation) + ns(&self.prompt))
    }

    /// [`Self::bytes_read`] now.
    pub fn bytes_read(&self) -> u64 {
        self.bytes_read.load(Ordering::Relaxed)
    }

    /// So many bytes that were counted will not be read; `is_whole`: nothing of their read.
    pub(super) fn uncount(&self, n_bytes: usize, is_whole: bool) {
        self.bytes_read.fetch_sub(n_bytes as u64, Ordering::Relaxed);
        self.n_reads
            .fetch_sub(u64::from(is_whole), Ordering::Relaxed);
    }

    pub(super) fn count(&self, reads: &[Read]) {
        let n_bytes: usize = reads.iter().map(|r| r.len).sum();
        self.bytes_read.fetch_add(n_bytes as u64, Ordering::Relaxed);
        self.n_reads
            .fetch_add(reads.len() as u64, Ordering::Relaxed);
    }
}
