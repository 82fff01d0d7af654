//! More or less memory for experts while tokens are computed.
//!
//! A slot that goes out of use belongs to nobody: no plan pins it, no list names it, and no read into
//! it is under way, because pins stay until reads have arrived. So its bytes go back to the system
//! without the state being locked.

use super::core::{Engine, State};
use super::layout::Layout;
use super::sizing::{Size, Sizing};
use crate::error::{Error, Result};
use crate::pooled::Pooled;
use crate::store::Arena;
use std::sync::atomic::Ordering;

/// Slots that are taken out of use at a time: choosing as many victims takes the policy a fraction of a
/// millisecond, for which an event may have to wait.
const STEP_SLOTS: u32 = 16;

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
            let residency = &mut state.pools[i].residency;
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
                    Error::system("giving memory of experts back to the system", cause)
                })?;
            }
        }
    }

    /// Takes a step from the slots of `pool` to `n_slots`; returns those that are out of use now, none if
    /// there is nothing left to do or all others are pinned.
    fn retire_some(&self, state: &mut State, pool: usize, n_slots: u32) -> Result<Vec<u32>> {
        let residency = &mut state.pools[pool].residency;
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
        for (pool, Pooled { residency, .. }) in self.layout.pools.iter().zip(state.pools.iter()) {
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
