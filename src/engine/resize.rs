//! More or less memory for experts while tokens are computed.
//!
//! A slot that goes out of use belongs to nobody: no plan pins it, no list names it, and no read into
//! it is under way, because pins stay until reads have arrived. So its bytes go back to the system
//! without the state being locked.

use super::layout::{Layout, Pool, share_slots};
use super::{Engine, State};
use crate::error::{Error, Result};
use crate::memory::SetAside;
use std::ops::Range;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

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
    /// Changes come one after the other.
    turn: Mutex<()>,
    set_aside: SetAside,
    n_slots_min: AtomicU32,
}

impl Sizing {
    pub fn new(layout: &Layout) -> Self {
        Self {
            turn: Mutex::default(),
            set_aside: SetAside::default(),
            n_slots_min: AtomicU32::new(layout.n_slots()),
        }
    }
}

impl Layout {
    /// The slots of each pool that `n_bytes` buy, no more than it has.
    pub fn slots_for(&self, n_bytes: u64) -> Vec<u32> {
        let all: u64 = self.pools.iter().map(Pool::n_bytes).sum();
        let mut pools = self.pools.clone();
        if n_bytes < all {
            share_slots(&mut pools, n_bytes as usize);
        }
        let both = pools.iter().zip(&self.pools);
        both.map(|(now, most)| now.n_slots.min(most.n_slots))
            .collect()
    }
}

impl Engine {
    /// The slots that there are now.
    pub fn size(&self) -> Size {
        self.size_of(&self.state())
    }

    /// The fewest slots there ever were.
    pub fn n_slots_min(&self) -> u32 {
        self.sizing.n_slots_min.load(Ordering::Relaxed)
    }

    /// Makes the slots those that `n_bytes` buy, shared by the pools as at the start and never more than
    /// then; returns what came of it. Slots of events that are being computed stay, so it may be more
    /// than was asked for: then ask again later. Experts that lose their slot are the policy's choice.
    ///
    /// Tokens may be computed meanwhile, and wait for a fraction of a millisecond at a time. Not to be
    /// called while experts are read before the first token. Fails if the system does not take memory
    /// back.
    pub fn resize(&self, n_bytes: u64) -> Result<Size> {
        let _turn = self.sizing.turn.lock().expect("no thread panics with it");
        let wanted = self.layout.slots_for(n_bytes);
        for (pool, &n_slots) in wanted.iter().enumerate() {
            self.shrink(pool, n_slots)?;
        }
        let mut state = self.state();
        for (residency, &n_slots) in state.residencies.iter_mut().zip(&wanted) {
            if residency.n_slots() < n_slots {
                residency.resize(n_slots)?;
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
                let given_back = self.arena.discard(bytes_of(&self.layout.pools[pool], slot));
                given_back.map_err(|cause| Error::Setting {
                    name: "HOTSET_RAM".to_string(),
                    value: "auto".to_string(),
                    allowed: format!("the system does not take memory back: {cause}"),
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
        for slot in &retired {
            let slot = self.layout.pools[pool].first_slot + slot;
            assert!(
                self.arrivals.is_settled(slot, all_parts),
                "slot {slot} is read into and not pinned"
            );
            self.arrivals.clear_slot(slot);
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
        let all: u64 = self.layout.pools.iter().map(Pool::n_bytes).sum();
        self.sizing.set_aside.set(all - size.n_bytes);
        self.sizing
            .n_slots_min
            .fetch_min(size.n_slots, Ordering::Relaxed);
        size
    }
}

/// Where a slot lies in the arena.
fn bytes_of(pool: &Pool, slot: u32) -> Range<usize> {
    let begin = pool.base + slot as usize * pool.slot_bytes;
    begin..begin + pool.slot_bytes
}
