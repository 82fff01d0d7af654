//! The size of an arena as it changes: what may be used of it, and what has memory.

use super::layout::Layout;
use crate::error::{Error, Result};
use crate::memory::Expected;
use crate::store::Arena;
use crate::sync::Lock;
use std::ops::Range;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

/// A part of the arena that is committed at a time.
pub(super) struct Step {
    pub range: Range<usize>,
    /// Slots, counted over all pools, or the ring after them.
    pub pieces: Range<u32>,
    /// Bytes that each of them has when this is done.
    pub n_bytes: usize,
}

/// What holds experts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Slots in use or free.
    pub n_slots: u32,
    /// Their bytes in the arena.
    pub n_bytes: u64,
}

/// What changing the size needs.
pub(super) struct Sizing {
    /// The slots of each pool that may be used. Changes come one after the other, and while nothing is
    /// committed in advance: which is done in steps, and who changes something is the first between two of them.
    pub opened: Lock<Vec<u32>>,
    /// By slot of all pools, and then the ring: how many of its bytes have memory.
    pub has_memory: Box<[AtomicUsize]>,
    /// What in use has no memory yet.
    pub expected: Expected,
    pub n_slots_min: AtomicU32,
}

impl Sizing {
    /// Lets what `layout` has at the start be used, of an arena for all.
    pub fn new(layout: &Layout, arena: &Arena) -> Result<Self> {
        let ring = layout.ring.base..layout.arena_bytes;
        let starts = layout
            .pools
            .iter()
            .map(|pool| pool.bytes(0..pool.n_slots_start));
        for range in starts.chain([ring]) {
            arena.open(range).map_err(|cause| {
                Error::system(
                    format!(
                        "HOTSET_RAM={}: the system does not give that many bytes",
                        layout.arena_bytes_start()
                    ),
                    cause,
                )
            })?;
        }
        let n_pieces = layout.n_slots() as usize + 1;
        let expected = Expected::default();
        expected.add(layout.arena_bytes_start() as i64);
        Ok(Self {
            opened: Lock::new(layout.pools.iter().map(|pool| pool.n_slots_start).collect()),
            has_memory: (0..n_pieces).map(|_| AtomicUsize::new(0)).collect(),
            expected,
            n_slots_min: AtomicU32::new(layout.n_slots_start()),
        })
    }

    /// Commits a part of `arena` while the size does not change. Returns whether it has memory now.
    pub fn commit(&self, arena: &Arena, step: Step) -> bool {
        let _turn = self.opened.lock();
        let is_done = arena.commit(step.range);
        for piece in step.pieces.filter(|_| is_done) {
            let before = self.has_memory[piece as usize].fetch_max(step.n_bytes, Ordering::Relaxed);
            self.expected
                .add(-(step.n_bytes.saturating_sub(before) as i64));
        }
        is_done
    }

    /// A slot of `n_bytes`, counted over all pools, or the ring after them, is about to be written to.
    pub fn use_piece(&self, piece: u32, n_bytes: usize) {
        let has_memory = &self.has_memory[piece as usize];
        // Mostly it has, and nobody need hear of that.
        if has_memory.load(Ordering::Relaxed) != n_bytes {
            let before = has_memory.swap(n_bytes, Ordering::Relaxed);
            self.expected.add(-((n_bytes - before) as i64));
        }
    }

    /// A slot of `n_bytes` has gone out of use: what of it has no memory is not expected to get any.
    pub fn retire(&self, slot: u32, n_bytes: usize) {
        let before = self.has_memory[slot as usize].swap(0, Ordering::Relaxed);
        self.expected.add(-((n_bytes - before) as i64));
    }
}
