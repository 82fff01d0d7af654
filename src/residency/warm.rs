//! Priors, and experts for free slots.

use super::slots::{NO_SLOT, Residency};
use crate::expert::ExpertId;
use crate::policy::Prior;

impl Residency {
    /// Tells the policy what a profile says of the experts. Panics unless there is one frequency per
    /// expert.
    pub fn prime(&mut self, prior: &Prior) {
        assert_eq!(prior.frequency.len(), self.shape.n_total());
        self.policy.prime(prior);
    }

    /// Makes experts that are not resident so, in the order of their dense indices in `order`, while there
    /// are free slots; returns them with their slots. Nothing is pinned, counted or learnt.
    pub fn fill_free(&mut self, order: impl IntoIterator<Item = usize>) -> Vec<(ExpertId, u32)> {
        let mut filled = Vec::new();
        for index in order {
            if self.slot_of[index] != NO_SLOT {
                continue;
            }
            let Some(slot) = self.free.pop() else { break };
            let id = self.shape.id(index);
            self.settle(id, slot);
            // Generation is going to use it, as far as anybody knows.
            self.is_generated[index] = true;
            filled.push((id, slot));
        }
        filled
    }

    /// An order for [`Self::fill_free`]: the experts that have most `heat` first.
    pub fn hottest_first(&self, heat: impl Fn(ExpertId) -> f32) -> Vec<usize> {
        let heats: Vec<f32> = (0..self.shape.n_total())
            .map(|index| heat(self.shape.id(index)))
            .collect();
        let mut order: Vec<usize> = (0..heats.len()).collect();
        order.sort_by(|&a, &b| heats[b].total_cmp(&heats[a]));
        order
    }

    /// Takes back what [`Self::fill_free`] has just filled: the slot is free again. Panics if `id` is
    /// not resident or pinned.
    pub fn unfill(&mut self, id: ExpertId) {
        let slot = self.slot_of(id).expect("it was filled");
        assert_eq!(self.pins[slot as usize], 0, "{id} is pinned");
        let slot = self.evict_this(id);
        self.free.push(slot);
    }
}
