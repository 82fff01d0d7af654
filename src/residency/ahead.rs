//! Experts that become resident before the router asks for them, and slots that are held meanwhile.
//!
//! ```text
//!   fill_ahead(), hold()         let_go()
//!          -------------> Hold ------------> an expert as any other
//!                          |
//!                          | abandon()            reclaim()
//!                          +------------> Abandoned ------> a free slot
//! ```

use super::slots::Residency;
use crate::expert::ExpertId;

/// A resident that is not evicted until it is let go.
#[derive(Debug)]
#[must_use = "its slot is held until it is let go or abandoned"]
pub struct Hold {
    id: ExpertId,
    slot: u32,
}

/// A slot that holds no expert any more, and which reads may still write to.
#[derive(Debug)]
#[must_use = "its slot is out of use until it is reclaimed"]
pub struct Abandoned {
    slot: u32,
}

impl Hold {
    /// Where the expert is.
    pub fn slot(&self) -> u32 {
        self.slot
    }
}

impl Residency {
    /// Spares `experts`, which will probably be picked soon, from now on: they are evicted if there is
    /// nothing else. Replaces what was expected before.
    pub fn expect(&mut self, experts: impl IntoIterator<Item = ExpertId>) {
        self.expected.clear();
        self.expected.extend(experts);
    }

    /// Makes `id`, which is not resident, so in a free slot or in that of the policy's victim, and holds
    /// it there. `None`, and nothing is changed, if all slots are pinned.
    ///
    /// Nothing is counted or learnt.
    pub fn fill_ahead(&mut self, id: ExpertId) -> Option<Hold> {
        assert!(!self.is_resident(id), "{id} is resident");
        let free = self.free.pop();
        let slot = free.or_else(|| self.evict().map(|(slot, _)| slot))?;
        self.settle(id, slot);
        self.is_generated[self.shape.index(id)] = false;
        self.hold(id)
    }

    /// Keeps `id` from being evicted, if it is resident.
    pub fn hold(&mut self, id: ExpertId) -> Option<Hold> {
        let slot = self.slot_of(id)?;
        self.pins[slot as usize] += 1;
        Some(Hold { id, slot })
    }

    /// Whether a plan in flight uses what is held, once.
    pub fn is_used(&self, held: &Hold) -> bool {
        self.pins[held.slot as usize] > 1
    }

    /// Makes what is held and used by no plan not resident at once. Its slot, which reads may still write
    /// to, stays out of use until [`Self::reclaim`].
    pub fn abandon(&mut self, held: Hold) -> Abandoned {
        let Hold { id, slot } = held;
        assert!(self.pins[slot as usize] == 1, "{id} is used by a plan");
        self.evict_this(id);
        self.n_abandoned += 1;
        Abandoned { slot }
    }

    /// Frees the slot of an expert that was abandoned: no read writes to it any more.
    pub fn reclaim(&mut self, Abandoned { slot }: Abandoned) {
        self.pins[slot as usize] -= 1;
        self.n_abandoned -= 1;
        self.free.push(slot);
    }

    /// Makes what was held an expert as any other.
    pub fn let_go(&mut self, Hold { slot, .. }: Hold) {
        self.pins[slot as usize] -= 1;
    }
}
