//! Experts that become resident before the router asks for them, and slots that are held meanwhile.

use super::{ExpertId, Residency};

impl Residency {
    /// Makes `id`, which is not resident, so in a free slot or in that of the policy's victim, and holds
    /// the slot until [`Self::let_go`]. No expert for which `is_wanted` is chosen as the victim.
    ///
    /// `None`, and nothing is changed, if there is no such slot. Nothing is counted or taught.
    pub fn fill_ahead(
        &mut self,
        id: ExpertId,
        is_wanted: &dyn Fn(ExpertId) -> bool,
    ) -> Option<u32> {
        assert!(!self.is_resident(id), "{id} is resident");
        let free = self.free.pop();
        let slot = free.or_else(|| self.evict(is_wanted).map(|(slot, _)| slot))?;
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

    /// Undoes one [`Self::hold`] or [`Self::fill_ahead`] of the slot.
    pub fn let_go(&mut self, slot: u32) {
        self.pins[slot as usize] -= 1;
    }
}
