//! More or less memory for experts while tokens are computed.
//!
//! A slot that goes out of use belongs to nobody: no plan pins it, no list names it, and no read into
//! it is under way, because pins stay until reads have arrived. So its bytes go back to the system
//! without the state being locked.

use super::layout::Layout;
use super::populate::Step;
use super::{Engine, State};
use crate::error::{Error, Result};
use crate::memory::Expected;
use crate::store::Arena;
use crate::sync::Lock;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

/// Slots that are taken out of use at a time: choosing as many victims takes the policy a fraction of a
/// millisecond, for which an event may have to wait.
const STEP_SLOTS: u32 = 16;

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
    opened: Lock<Vec<u32>>,
    /// By slot of all pools, and then the ring: how many of its bytes have memory.
    has_memory: Box<[AtomicUsize]>,
    /// What in use has no memory yet.
    expected: Expected,
    n_slots_min: AtomicU32,
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
                Error::setting(
                    "HOTSET_RAM",
                    layout.arena_bytes_start().to_string(),
                    format!("the system does not give that many bytes: {cause}"),
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
    fn retire(&self, slot: u32, n_bytes: usize) {
        let before = self.has_memory[slot as usize].swap(0, Ordering::Relaxed);
        self.expected.add(-((n_bytes - before) as i64));
    }
}

impl Engine {
    /// Whether the system lets this process have what `layout` needs, as far as it says so before memory is used.
    pub fn can_have(layout: &Layout) -> bool {
        let arena = Arena::reserve(layout.arena_bytes);
        arena.is_ok_and(|arena| Sizing::new(layout, &arena).is_ok())
    }

    /// The slots that there are now.
    pub fn size(&self) -> Size {
        self.size_of(&self.state())
    }

    /// Bytes of all slots that there were at a time: the system has promised them.
    pub fn promised_bytes(&self) -> u64 {
        let opened = self.sizing.opened.first();
        let both = self.layout.pools.iter().zip(&*opened);
        both.map(|(pool, &n_slots)| pool.bytes(0..n_slots).len() as u64)
            .sum()
    }

    /// The fewest slots there ever were.
    pub fn n_slots_min(&self) -> u32 {
        self.sizing.n_slots_min.load(Ordering::Relaxed)
    }

    /// Makes the slots those that `n_bytes` buy, shared by the pools as at the start and never more than the
    /// layout has; returns what came of it. Slots of events that are being computed stay, so it may be more
    /// than was asked for: then ask again later. It may be less if the system promises no more memory. Experts
    /// that lose their slot are the policy's choice.
    ///
    /// Tokens may be computed meanwhile, and wait for a fraction of a millisecond at a time. Not to be
    /// called while experts are read before the first token. Fails if the system does not take memory
    /// back.
    pub fn resize(&self, n_bytes: u64) -> Result<Size> {
        let mut opened = self.sizing.opened.first();
        let wanted = self.layout.slots_for(n_bytes);
        for (pool, &n_slots) in wanted.iter().enumerate() {
            self.shrink(pool, n_slots)?;
        }
        for ((pool, opened), &n_slots) in self.layout.pools.iter().zip(&mut *opened).zip(&wanted) {
            let more = pool.bytes(*opened..n_slots.max(*opened));
            if self.arena.open(more).is_ok() {
                *opened = n_slots.max(*opened);
            }
        }
        let mut state = self.state();
        for (i, pool) in self.layout.pools.iter().enumerate() {
            let residency = &mut state.residencies[i];
            let n_more = wanted[i].min(opened[i]).saturating_sub(residency.n_slots());
            if n_more > 0 {
                residency.resize(residency.n_slots() + n_more)?;
                self.sizing
                    .expected
                    .add(i64::from(n_more) * pool.slot_bytes as i64);
            }
        }
        Ok(self.note_size(&state))
    }

    fn shrink(&self, pool: usize, n_slots: u32) -> Result<()> {
        loop {
            let retired = self.retire_some(&mut self.state(), pool, n_slots)?;
            if retired.is_empty() {
                return Ok(());
            }
            for slot in retired {
                let bytes = self.layout.pools[pool].bytes(slot..slot + 1);
                let given_back = self.arena.discard(bytes);
                given_back.map_err(|cause| {
                    Error::system("giving memory back to the system (HOTSET_RAM=auto)", cause)
                })?;
            }
        }
    }

    /// Takes a step from the slots of `pool` to `n_slots`; returns those that are out of use now, none if
    /// there is nothing left to do or all others are pinned.
    fn retire_some(&self, state: &mut State, pool: usize, n_slots: u32) -> Result<Vec<u32>> {
        let residency = &mut state.residencies[pool];
        let least = n_slots.max(residency.n_pinned());
        let now = residency.n_slots();
        if now <= least {
            return Ok(Vec::new());
        }
        let retired = residency.resize(least.max(now.saturating_sub(STEP_SLOTS)))?;
        let layer = self.layout.layers.iter().find(|l| l.pool == pool);
        let all_parts = layer.expect("a pool has layers").all_parts();
        let pool = &self.layout.pools[pool];
        for slot in &retired {
            let slot = pool.first_slot + slot;
            assert!(
                self.arrivals.is_settled(slot, all_parts),
                "slot {slot} is read into and not pinned"
            );
            self.arrivals.clear_slot(slot);
            self.sizing.retire(slot, pool.slot_bytes);
        }
        self.note_size(state);
        Ok(retired)
    }

    fn size_of(&self, state: &State) -> Size {
        let mut size = Size {
            n_slots: 0,
            n_bytes: 0,
        };
        for (pool, residency) in self.layout.pools.iter().zip(&state.residencies) {
            size.n_slots += residency.n_slots();
            size.n_bytes += pool.slot_bytes as u64 * u64::from(residency.n_slots());
        }
        size
    }

    fn note_size(&self, state: &State) -> Size {
        let size = self.size_of(state);
        self.sizing
            .n_slots_min
            .fetch_min(size.n_slots, Ordering::Relaxed);
        size
    }
}
