//! What routing has cost.

use crate::store::Read;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// What routing has cost.
#[derive(Default)]
pub struct Meter {
    /// Reads that misses have caused, those ahead of them, and those of what devices got in advance.
    pub n_reads: AtomicU64,
    /// Bytes of these reads, including what alignment adds.
    pub bytes_read: AtomicU64,
    /// Nanoseconds that thread 0 of the lanes has waited for them.
    pub stalled_ns: AtomicU64,
    /// Whether any expert had to pass through the staging ring.
    pub has_staged: AtomicBool,
}

impl Meter {
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
