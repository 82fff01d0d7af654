//! What has been read: one bit per part and slot, one sequence number per staging place.
//!
//! I/O threads set them after the bytes have arrived; compute threads look at them before they
//! hand out an address. A thread that has to wait for long, or that another one looks after, sleeps on a condition variable,
//! so that it does not burn the core that the reads need. There are many of these, so that what arrives wakes who waits
//! for it, and hardly anybody else. Most arrive while nobody waits: these cost no lock and no system call.

use super::flight::Flight;
use super::progress::Progress;
use super::rewriting::Rewritten;
use crate::notice::{Notice, Notices};
use crate::store::{ReadFailure, Sink};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
use std::sync::{Arc, Condvar, Mutex, OnceLock};
use std::time::{Duration, Instant};

/// How often a thread that waits looks whether it should say so.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Where a read lands, packed into the tag of its request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// Part `part` of the expert in `slot`.
    Slot {
        /// Slot, counted over all pools.
        slot: u32,
        /// Part of the expert.
        part: u32,
    },
    /// A staged part, in place `sequence % n_places`.
    Place {
        /// Another one for each read over the life of the model.
        sequence: u64,
    },
}

const PLACE_BIT: u64 = 1 << 63;

impl Target {
    /// As a tag.
    pub fn tag(self) -> u64 {
        match self {
            Target::Slot { slot, part } => u64::from(slot) << 8 | u64::from(part),
            Target::Place { sequence } => PLACE_BIT | sequence,
        }
    }

    /// From a tag.
    pub fn from_tag(tag: u64) -> Self {
        if tag & PLACE_BIT == 0 {
            Target::Slot {
                slot: (tag >> 8) as u32,
                part: (tag & 0xff) as u32,
            }
        } else {
            Target::Place {
                sequence: tag & !PLACE_BIT,
            }
        }
    }
}

/// Whether the read with this tag is of one of `slots`.
pub(super) fn is_of(tag: u64, slots: &[u32]) -> bool {
    matches!(Target::from_tag(tag), Target::Slot { slot, .. } if slots.contains(&slot))
}

/// The arrivals of one model.
pub struct Arrivals {
    slots: Box<[AtomicU32]>,
    places: Box<[AtomicU64]>,
    n_done: AtomicU64,
    failure: OnceLock<ReadFailure>,
    notices: Arc<Notices>,
    /// Reads that have not arrived.
    pub flight: Flight,
    /// How far what has arrived is rewritten, if anything is.
    rewritten: OnceLock<Rewritten>,
    /// The last one is of those who wait for any read.
    beds: [Bed; N_BEDS + 1],
}

/// Where threads sleep that wait for the same slot or place, or for another one that shares it.
#[derive(Default)]
struct Bed {
    /// Threads that wait, or are about to.
    n_waiting: AtomicU32,
    lock: Mutex<()>,
    changed: Condvar,
}

const N_BEDS: usize = 31;

impl Arrivals {
    /// Nothing has arrived. What there is to tell of reads goes to `notices`.
    pub fn new(n_slots: usize, n_places: usize, notices: Arc<Notices>) -> Self {
        Self {
            slots: (0..n_slots).map(|_| AtomicU32::new(0)).collect(),
            places: (0..n_places).map(|_| AtomicU64::new(0)).collect(),
            n_done: AtomicU64::new(0),
            failure: OnceLock::new(),
            notices,
            flight: Flight::default(),
            rewritten: OnceLock::new(),
            beds: Default::default(),
        }
    }

    /// Whether part `part` of the expert in `slot` is there.
    pub fn has_part(&self, slot: u32, part: u32) -> bool {
        self.slots[slot as usize].load(Ordering::Acquire) & (1 << part) != 0
    }

    /// Whether the parts in `mask` of the expert in `slot` are all there.
    pub fn has_parts(&self, slot: u32, mask: u32) -> bool {
        self.slots[slot as usize].load(Ordering::Acquire) & mask == mask
    }

    /// Whether `slot` is empty, or all parts in `mask` are there: if it is not, reads into it are on
    /// their way.
    pub fn is_settled(&self, slot: u32, mask: u32) -> bool {
        let parts = self.slots[slot as usize].load(Ordering::Acquire);
        parts == 0 || parts == mask
    }

    /// The bytes of `slot` are about to change.
    pub fn clear_slot(&self, slot: u32) {
        self.slots[slot as usize].store(0, Ordering::Release);
    }

    /// Whether staged part `sequence` is in its place. It stays until the place is read into again.
    pub fn has_staged(&self, sequence: u64) -> bool {
        let place = sequence as usize % self.places.len();
        self.places[place].load(Ordering::Acquire) == sequence + 1
    }

    /// Reads that have ended: who has seen the same number twice has missed none in between.
    pub fn n_done(&self) -> u64 {
        self.n_done.load(Ordering::Acquire)
    }

    /// What arrives from now on is to be rewritten.
    pub fn rewrite(&self, n_slots: usize, n_parts: usize, n_places: usize) {
        let _ = self.rewritten.set(Rewritten::new(n_slots, n_parts, n_places));
    }

    /// How far what is at `target` is rewritten, if anything is.
    pub fn progress(&self, target: Target) -> Option<&Progress> {
        let rewritten = self.rewritten.get()?;
        Some(match target {
            Target::Slot { slot, part } => rewritten.slot(slot, part),
            Target::Place { sequence } => rewritten.place(sequence),
        })
    }

    /// What belongs to `target` is there without a read, rewritten in `n_chunks`.
    pub fn note_copy(&self, target: Target, n_chunks: u32) {
        self.arrive(target, n_chunks);
    }

    /// Sleeps until `arrived`, which is about `target`, or about any read; returns at once with the failure when a read
    /// has failed. Calls `look` about once a second meanwhile, without a lock.
    pub fn wait_until(
        &self,
        target: Option<Target>,
        arrived: impl Fn() -> bool,
        look: impl FnMut(),
    ) -> std::result::Result<(), &ReadFailure> {
        let bed = self.bed(target);
        bed.n_waiting.fetch_add(1, Ordering::Relaxed);
        // Either we see here what has arrived, or whoever brings it sees that we wait: see `done`.
        fence(Ordering::SeqCst);
        let waited = self.sleep_until(bed, arrived, look);
        bed.n_waiting.fetch_sub(1, Ordering::Relaxed);
        waited
    }

    fn bed(&self, target: Option<Target>) -> &Bed {
        let number = match target {
            Some(Target::Slot { slot, .. }) => slot as usize % N_BEDS,
            Some(Target::Place { sequence }) => sequence as usize % N_BEDS,
            None => N_BEDS,
        };
        &self.beds[number]
    }

    fn arrive(&self, target: Target, n_chunks: u32) {
        if let Some(progress) = self.progress(target) {
            // Before anybody sees that it is there.
            progress.begin(n_chunks);
        }
        match target {
            Target::Slot { slot, part } => {
                self.slots[slot as usize].fetch_or(1 << part, Ordering::Release);
            }
            Target::Place { sequence } => {
                let place = sequence as usize % self.places.len();
                self.places[place].store(sequence + 1, Ordering::Release);
            }
        }
        self.n_done.fetch_add(1, Ordering::Release);
        fence(Ordering::SeqCst);
        self.bed(Some(target)).wake();
        self.bed(None).wake();
    }

    fn sleep_until(
        &self,
        bed: &Bed,
        arrived: impl Fn() -> bool,
        mut look: impl FnMut(),
    ) -> std::result::Result<(), &ReadFailure> {
        let mut guard = bed.lock.lock().expect("no thread panics with it");
        let mut look_at = Instant::now() + LOOK_EVERY;
        while !arrived() {
            if let Some(failure) = self.failure.get() {
                return Err(failure);
            }
            let left = look_at.saturating_duration_since(Instant::now());
            if left.is_zero() {
                drop(guard);
                look();
                look_at = Instant::now() + LOOK_EVERY;
                guard = bed.lock.lock().expect("no thread panics with it");
                continue;
            }
            let waited = bed.changed.wait_timeout(guard, left);
            guard = waited.expect("no thread panics with it").0;
        }
        Ok(())
    }
}

impl Bed {
    /// Wakes who sleeps here, after a fence behind what has changed.
    fn wake(&self) {
        if self.n_waiting.load(Ordering::Relaxed) == 0 {
            return;
        }
        // Taking the lock orders this after a waiter's look and before its sleep.
        drop(self.lock.lock().expect("no thread panics with it"));
        self.changed.notify_all();
    }
}

impl Sink for Arrivals {
    fn done(&self, tag: u64, result: std::result::Result<(), ReadFailure>) {
        self.flight.end(tag);
        match result {
            Ok(()) => self.arrive(Target::from_tag(tag), 0),
            Err(failure) => {
                // The first failure is the one that is reported, to all.
                let _ = self.failure.set(failure);
                fence(Ordering::SeqCst);
                self.beds.iter().for_each(Bed::wake);
            }
        }
    }

    fn note(&self, note: &str) {
        self.notices.tell(Notice::Reads(note.to_string()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_looks_around_and_misses_nothing() {
        let arrivals = Arrivals::new(1, 1, Arc::default());
        let target = Target::Slot { slot: 0, part: 0 };
        let mut n_looks = 0;
        let arrived = || arrivals.has_part(0, 0);
        let waited = arrivals.wait_until(Some(target), arrived, || {
            n_looks += 1;
            if n_looks == 2 {
                // The lock is free.
                arrivals.done(target.tag(), Ok(()));
            }
        });
        assert!(waited.is_ok());
        assert_eq!(n_looks, 2);
        assert!(
            arrivals
                .wait_until(Some(target), arrived, || panic!("it is there"))
                .is_ok()
        );
    }

    /// Whoever brings a part looks for threads that wait only after the part is there.
    #[test]
    fn nobody_sleeps_on_after_a_part_has_come() {
        const N: u32 = 20_000;
        let arrivals = Arrivals::new(1, 1, Arc::default());
        let n_seen = AtomicU32::new(0);
        let target = |part| Target::Slot { slot: 0, part };
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| {
                let mut n_late = 0;
                for n in 0..N {
                    let begin = Instant::now();
                    let arrived = || arrivals.has_part(0, n % 2);
                    assert!(arrivals.wait_until(Some(target(n % 2)), arrived, || ()).is_ok());
                    arrivals.clear_slot(0);
                    // A machine that is busy may be late, too, but not again and again.
                    n_late += u32::from(begin.elapsed() >= LOOK_EVERY);
                    assert!(n_late < 3, "round {n}: nobody woke us");
                    n_seen.store(n + 1, Ordering::Release);
                }
            });
            for n in 0..N {
                arrivals.done(target(n % 2).tag(), Ok(()));
                while n_seen.load(Ordering::Acquire) <= n && !waiter.is_finished() {
                    std::thread::yield_now();
                }
            }
        });
    }

    #[test]
    fn tags_come_back() {
        for target in [
            Target::Slot { slot: 0, part: 0 },
            Target::Slot {
                slot: u32::MAX,
                part: 2,
            },
            Target::Place { sequence: 0 },
            Target::Place { sequence: 1 << 40 },
        ] {
            assert_eq!(Target::from_tag(target.tag()), target);
        }
    }
}
