//! One lane: the threads that compute one graph together.
//!
//! Thread 0 of a lane writes the list of an operation before the barrier inside it; the others
//! read the list after that barrier. The barrier orders the two, so relaxed atomics suffice and no
//! thread takes a lock for an expert that is resident.

use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};

/// Where one expert of an operation comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// The expert.
    pub expert: u32,
    /// Address of its weights.
    pub address: usize,
    /// The slot that is still being read into, if it is.
    pub pending_slot: Option<u32>,
}

/// No slot: the weights are there.
const ARRIVED: u32 = u32::MAX;

/// The list of the operation that a lane computes.
///
/// Resident experts come first, then those being read into slots, then those that pass through the
/// staging ring.
pub struct Lane {
    /// What the computing threads know the lane by; 0 when unused.
    pub key: AtomicUsize,
    /// Threads of the lane.
    pub n_threads: AtomicU32,
    /// The part (gate, up, down) that the operation reads.
    pub part: AtomicU32,
    /// Experts in the list.
    pub n_entries: AtomicUsize,
    /// Index of the first staged entry.
    pub first_staged: AtomicUsize,
    /// Sequence number of the first staged entry.
    pub first_sequence: AtomicU64,
    /// Threads that have reached the end of the list.
    pub n_finished: AtomicU32,
    experts: Box<[AtomicU32]>,
    addresses: Box<[AtomicUsize]>,
    slots: Box<[AtomicU32]>,
    /// Threads that have left each entry behind; counted for staged entries only.
    passed: Box<[AtomicU32]>,
}

impl Lane {
    /// A lane for operations of up to `n_experts` distinct experts.
    pub fn new(n_experts: usize) -> Self {
        let u32s = || (0..n_experts).map(|_| AtomicU32::new(0)).collect();
        Self {
            key: AtomicUsize::new(0),
            n_threads: AtomicU32::new(0),
            part: AtomicU32::new(0),
            n_entries: AtomicUsize::new(0),
            first_staged: AtomicUsize::new(0),
            first_sequence: AtomicU64::new(0),
            n_finished: AtomicU32::new(0),
            experts: u32s(),
            addresses: (0..n_experts).map(|_| AtomicUsize::new(0)).collect(),
            slots: u32s(),
            passed: u32s(),
        }
    }

    /// An operation of `n_threads` threads begins.
    pub fn begin(&self, n_threads: u32) {
        self.n_finished.store(0, Relaxed);
        self.n_threads.store(n_threads, Relaxed);
    }

    /// Writes entry `i`.
    pub fn put(&self, i: usize, entry: Entry) {
        self.experts[i].store(entry.expert, Relaxed);
        self.addresses[i].store(entry.address, Relaxed);
        self.slots[i].store(entry.pending_slot.unwrap_or(ARRIVED), Relaxed);
        self.passed[i].store(0, Relaxed);
    }

    /// Reads entry `i`.
    pub fn entry(&self, i: usize) -> Entry {
        let slot = self.slots[i].load(Relaxed);
        Entry {
            expert: self.experts[i].load(Relaxed),
            address: self.addresses[i].load(Relaxed),
            pending_slot: (slot != ARRIVED).then_some(slot),
        }
    }

    /// A thread leaves staged entry `i`. Returns true for the last one.
    ///
    /// The counter is what makes the place free: the last thread's increment sees the reads of all
    /// others done, hence acquire and release.
    pub fn pass(&self, i: usize) -> bool {
        let before = self.passed[i].fetch_add(1, std::sync::atomic::Ordering::AcqRel);
        before + 1 == self.n_threads.load(Relaxed)
    }

    /// A thread reaches the end of the list. Returns true for the last one.
    pub fn finish(&self) -> bool {
        let before = self
            .n_finished
            .fetch_add(1, std::sync::atomic::Ordering::AcqRel);
        before + 1 == self.n_threads.load(Relaxed)
    }

    /// Whether all threads have reached the end of the list.
    pub fn is_finished(&self) -> bool {
        self.n_finished.load(std::sync::atomic::Ordering::Acquire) == self.n_threads.load(Relaxed)
    }
}
