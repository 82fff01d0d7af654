//! Experts that become resident before the router asks for them, and slots that are held meanwhile.

use super::{ExpertId, Residency};

impl Residency {
    /// Spares `experts`, which will probably be picked soon, from now on: they are evicted if there is
    /// nothing else. Replaces what was expected before.
    pub fn expect(&mut self, experts: impl IntoIterator<Item = ExpertId>) {
        self.expected.clear();
        self.expected.extend(experts);
    }

    /// Makes `id`, which is not resident, so in a free slot or in that of the policy's victim, and holds
    /// the slot until [`Self::let_go`]. `None`, and nothing is changed, if all slots are pinned.
    ///
    /// Nothing is counted or taught.
    pub fn fill_ahead(&mut self, id: ExpertId) -> Option<u32> {
        assert!(!self.is_resident(id), "{id} is resident");
        let free = self.free.pop();
        let slot = free.or_else(|| self.evict().map(|(slot, _)| slot))?;
        self.n_changes += 1;
        self.settle(id, slot);
        self.hold(slot);
        Some(slot)
    }

    /// Keeps what is in `slot`, which holds an expert, from being evicted until [`Self::let_go`].
    pub fn hold(&mut self, slot: u32) {
        self.pins[slot as usize] += 1;
    }

    /// Whether a plan in flight uses `slot`, which is held once.
    pub fn is_used(&self, slot: u32) -> bool {
        self.pins[slot as usize] > 1
    }

    /// Makes `id`, whose slot is held and used by no plan, not resident at once. Its slot, which reads may
    /// still write to, stays out of use until [`Self::reclaim`].
    pub fn abandon(&mut self, id: ExpertId) {
        let slot = self.slot_of(id).expect("it was filled ahead");
        assert!(!self.is_used(slot), "{id} is used by a plan");
        self.n_changes += 1;
        self.policy.discard(id);
        self.vacate(id);
        self.n_abandoned += 1;
    }

    /// Frees the slot of an expert that was abandoned.
    pub fn reclaim(&mut self, slot: u32) {
        self.n_changes += 1;
        self.let_go(slot);
        self.n_abandoned -= 1;
        self.free.push(slot);
    }

    /// Undoes one [`Self::hold`] or [`Self::fill_ahead`] of the slot.
    pub fn let_go(&mut self, slot: u32) {
        self.pins[slot as usize] -= 1;
    }
}
