//! One lane: the threads that compute one graph together.
//!
//! Thread 0 of a lane writes the list of an operation before the barrier inside it; the others
//! read the list after that barrier. The barrier orders the two, so relaxed atomics suffice and no
//! thread takes a lock for an expert that is resident.

use super::ring::{Item, Order};
use crate::store::Read;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed};

/// Where one expert of an operation comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// The expert.
    pub expert: u32,
    /// Address of its weights; of what passes through the ring, how far from the beginning of its place.
    pub address: usize,
    /// Where they come from.
    pub source: Source,
}

/// Where the weights of an entry come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// They are there.
    Memory,
    /// They are being read into this slot, counted over all pools, since the router has run.
    Slot(u32),
    /// They are being read into this slot since before that.
    Early(u32),
    /// They pass through the staging ring, as so many before them in this list.
    Ring(u32),
}

/// A source in 32 bits: slots, or with one of these bits slots since before or numbers of the ring, or the value of
/// `Memory`.
const RING_BIT: u32 = 1 << 31;
const EARLY_BIT: u32 = 1 << 30;
const MEMORY: u32 = u32::MAX;

impl Source {
    fn packed(self) -> u32 {
        match self {
            Self::Memory => MEMORY,
            Self::Slot(slot) => slot,
            Self::Early(slot) => EARLY_BIT | slot,
            Self::Ring(number) => RING_BIT | number,
        }
    }

    fn unpacked(value: u32) -> Self {
        match value {
            MEMORY => Self::Memory,
            slot if slot & (RING_BIT | EARLY_BIT) == 0 => Self::Slot(slot),
            slot if slot & RING_BIT == 0 => Self::Early(slot & !EARLY_BIT),
            number => Self::Ring(number & !RING_BIT),
        }
    }
}

/// When a lane thinks about its event: the values of `Lane::thinks`.
pub(super) struct Thinks;

impl Thinks {
    pub const NOT: u8 = 0;
    /// While it waits, because it will.
    pub const WAITING: u8 = 1;
    /// As soon as it computes.
    pub const COMPUTING: u8 = 2;
}

/// What is made for each event, here to be allocated once.
#[derive(Default)]
pub(super) struct Scratch {
    /// Experts and addresses of their regions.
    pub there: Vec<(u32, usize)>,
    pub coming: Vec<(u32, usize, Source)>,
    pub staged: Vec<Item>,
    pub reads: Vec<Read>,
    pub orders: Vec<Order>,
    /// What the next layer will probably need.
    pub next: Vec<u32>,
}

/// The list of the operation that a lane computes.
pub struct Lane {
    /// What the computing threads know the lane by; 0 when unused.
    pub key: AtomicUsize,
    /// Threads of the lane.
    pub n_threads: AtomicU32,
    /// Whether what it computes is a trial, which is not counted.
    pub is_trial: AtomicBool,
    /// The part (gate, up, down) that the operation reads.
    pub part: AtomicU32,
    /// Experts in the list.
    pub n_entries: AtomicUsize,
    /// How many of them pass through the ring.
    pub n_staged: AtomicUsize,
    /// Threads that have reached the end of the list.
    pub n_finished: AtomicU32,
    /// Whether a thread has something to think about, and when.
    pub thinks: AtomicU8,
    /// Its number among the lanes.
    pub number: usize,
    /// Where its time goes.
    pub clock: Clock,
    experts: Box<[AtomicU32]>,
    addresses: Box<[AtomicUsize]>,
    sources: Box<[AtomicU32]>,
    /// Threads that have left each of those behind that pass through the ring.
    passed: Box<[AtomicU32]>,
}

/// When what a lane computes began, in the time of `Flight`; for thread 0.
#[derive(Default)]
pub struct Clock {
    /// Whether the batch is a prefill: of its last layer llama.cpp computes only those tokens whose output is asked for.
    pub is_prefill: AtomicBool,
    /// When the batch began; 0 if that is not known.
    pub batch: AtomicU64,
    /// When the layer's event began.
    pub event: AtomicU64,
    /// How much sooner the event would be over with a disk twice as fast, as far as that is known.
    pub saved: AtomicU64,
}

impl Clock {
    /// An event begins at `now`, and a batch with it if it `is_first`.
    pub fn begin(&self, now: u64, is_prefill: bool, is_first: bool) {
        self.event.store(now, Relaxed);
        self.saved.store(0, Relaxed);
        // A batch whose first layers a device computes has no beginning.
        if is_first || self.batch.load(Relaxed) == 0 {
            self.is_prefill.store(is_prefill, Relaxed);
        }
        if is_first {
            self.batch.store(now, Relaxed);
        }
    }

    /// It is `now`, and the event has waited for `waited`. Returns how much more sooner a disk twice as fast would
    /// have been ready: by half of the time since the event began, but not before anybody waited.
    pub fn save(&self, now: u64, waited: u64) -> u64 {
        let before = self.saved.load(Relaxed);
        let half = now.saturating_sub(self.event.load(Relaxed)) / 2;
        let after = (before + waited).min(half).max(before);
        self.saved.store(after, Relaxed);
        after - before
    }
}

impl Lane {
    /// Lane `number`, for operations of up to `n_experts` distinct experts.
    pub fn new(number: usize, n_experts: usize) -> Self {
        let u32s = || (0..n_experts).map(|_| AtomicU32::new(0)).collect();
        Self {
            key: AtomicUsize::new(0),
            n_threads: AtomicU32::new(0),
            is_trial: AtomicBool::new(false),
            part: AtomicU32::new(0),
            n_entries: AtomicUsize::new(0),
            n_staged: AtomicUsize::new(0),
            n_finished: AtomicU32::new(0),
            thinks: AtomicU8::new(Thinks::NOT),
            number,
            clock: Clock::default(),
            experts: u32s(),
            addresses: (0..n_experts).map(|_| AtomicUsize::new(0)).collect(),
            sources: u32s(),
            passed: u32s(),
        }
    }

    /// An operation of `n_threads` threads begins.
    pub fn begin(&self, n_threads: u32, is_trial: bool) {
        self.n_finished.store(0, Relaxed);
        self.is_trial.store(is_trial, Relaxed);
        self.n_threads.store(n_threads, Relaxed);
    }

    /// Writes entry `i`.
    pub fn put(&self, i: usize, entry: Entry) {
        self.experts[i].store(entry.expert, Relaxed);
        self.addresses[i].store(entry.address, Relaxed);
        self.sources[i].store(entry.source.packed(), Relaxed);
        if let Source::Ring(number) = entry.source {
            self.passed[number as usize].store(0, Relaxed);
        }
    }

    /// Reads entry `i`.
    pub fn entry(&self, i: usize) -> Entry {
        Entry {
            expert: self.experts[i].load(Relaxed),
            address: self.addresses[i].load(Relaxed),
            source: self.source(i),
        }
    }

    /// Where the weights of entry `i` come from.
    pub fn source(&self, i: usize) -> Source {
        Source::unpacked(self.sources[i].load(Relaxed))
    }

    /// A thread leaves the entry that passed through the ring after `number` others. Returns true for
    /// the last one.
    ///
    /// The counter is what makes the place free: the last thread's increment sees the reads of all
    /// others done, hence acquire and release.
    pub fn pass(&self, number: usize) -> bool {
        let before = self.passed[number].fetch_add(1, std::sync::atomic::Ordering::AcqRel);
        before + 1 == self.n_threads.load(Relaxed)
    }

    /// A thread reaches the end of the list. Returns true for the last one, if the operation has the ring.
    pub fn finish(&self) -> bool {
        self.finish_and(|| ())
    }

    /// The same; calls `then` when the others may know.
    ///
    /// As soon as all threads are counted another one may have the lane, whose fields are its own then. So what is
    /// to be known of this operation is read before.
    fn finish_and(&self, then: impl FnOnce()) -> bool {
        let n_threads = self.n_threads.load(Relaxed);
        let has_ring = self.n_staged.load(Relaxed) > 0;
        let before = self
            .n_finished
            .fetch_add(1, std::sync::atomic::Ordering::AcqRel);
        then();
        before + 1 == n_threads && has_ring
    }

    /// Whether all threads have reached the end of the list.
    pub fn is_finished(&self) -> bool {
        self.n_finished.load(std::sync::atomic::Ordering::Acquire) == self.n_threads.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_come_back() {
        for source in [
            Source::Memory,
            Source::Slot(0),
            Source::Slot(EARLY_BIT - 1),
            Source::Early(0),
            Source::Early(EARLY_BIT - 1),
            Source::Ring(0),
            Source::Ring(1 << 20),
        ] {
            assert_eq!(Source::unpacked(source.packed()), source);
        }
    }

    /// Three experts of an event come one after the other; computing waits for each of them a little.
    #[test]
    fn a_disk_twice_as_fast_saves_half_of_the_reading_and_no_more_than_the_waiting() {
        let clock = Clock::default();
        clock.begin(1000, true, true);
        // 100 of 400 waited for; 150 more of 800; 400 more until 1200.
        assert_eq!(clock.save(1400, 100), 100);
        assert_eq!(clock.save(1800, 150), 150);
        assert_eq!(clock.save(2200, 400), 350);
        clock.begin(3000, false, false);
        assert_eq!(clock.batch.load(Relaxed), 1000);
        assert!(clock.is_prefill.load(Relaxed));
        assert_eq!(clock.save(3010, 500), 5);
    }

    /// The next operation of the lane, of another thread, begins at the worst moment: when the last thread of this
    /// one is counted, and has not decided yet whether the ring is free.
    #[test]
    fn whoever_takes_a_lane_over_does_not_change_how_it_ended() {
        for (n_staged, n_staged_next) in [(3, 0), (0, 3)] {
            let lane = Lane::new(0, 4);
            let next = |n_threads, n_staged| {
                lane.begin(n_threads, false);
                lane.n_staged.store(n_staged, Relaxed);
            };
            next(2, n_staged);
            assert!(!lane.finish());
            assert!(!lane.is_finished());
            let is_free = lane.finish_and(|| {
                assert!(lane.is_finished());
                next(1, n_staged_next);
            });
            assert_eq!(is_free, n_staged > 0);
        }
        // The one before the last, while the last one and the next operation pass it by.
        let lane = Lane::new(0, 4);
        lane.begin(2, false);
        lane.n_staged.store(1, Relaxed);
        let is_free = lane.finish_and(|| {
            assert!(lane.finish());
            lane.begin(1, false);
        });
        assert!(!is_free, "the ring is freed twice");
    }
}
