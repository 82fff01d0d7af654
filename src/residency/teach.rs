//! What happens besides events: what is known before, and plans of which the policy hears less than
//! is planned, and later.

use super::plan::{Plan, State, check};
use super::{NO_SLOT, Residency};
use crate::error::Result;
use crate::expert::{Event, ExpertId};
use crate::policy::Prior;

impl Residency {
    /// Tells the policy what a profile says of the experts. Panics unless there is one frequency per
    /// expert.
    pub fn prime(&mut self, prior: &Prior) {
        assert_eq!(prior.frequency.len(), self.shape.n_total());
        self.n_changes += 1;
        self.policy.prime(prior);
    }

    /// Makes experts that are not resident so, in the order of their numbers, while there are free
    /// slots; returns them with their slots. Nothing is pinned, counted or taught.
    pub fn fill_free(&mut self) -> Vec<(ExpertId, u32)> {
        self.fill_free_with(0..self.shape.n_total())
    }

    /// As [`Self::fill_free`], with those that `order` names, in its order.
    pub fn fill_free_with(
        &mut self,
        order: impl IntoIterator<Item = usize>,
    ) -> Vec<(ExpertId, u32)> {
        self.n_changes += 1;
        let mut filled = Vec::new();
        for index in order {
            if self.slot_of[index] != NO_SLOT {
                continue;
            }
            let Some(slot) = self.free.pop() else { break };
            let id = self.shape.id(index);
            self.settle(id, slot);
            filled.push((id, slot));
        }
        filled
    }

    /// As [`Self::fill_free`], with the experts that have most `heat`, hottest first.
    pub fn fill_hottest(&mut self, heat: impl Fn(ExpertId) -> f32) -> Vec<(ExpertId, u32)> {
        let heats: Vec<f32> = (0..self.shape.n_total())
            .map(|index| heat(self.shape.id(index)))
            .collect();
        let mut order: Vec<usize> = (0..heats.len()).collect();
        order.sort_by(|&a, &b| heats[b].total_cmp(&heats[a]));
        self.fill_free_with(order)
    }

    /// Takes back what [`Self::fill_free_with`] has just filled: the slot is free again. Panics if `id` is
    /// not resident or pinned.
    pub fn unfill(&mut self, id: ExpertId) {
        let slot = self.slot_of(id).expect("it was filled");
        assert_eq!(self.pins[slot as usize], 0, "{id} is pinned");
        self.n_changes += 1;
        self.policy.remove(id);
        self.vacate(id);
        self.free.push(slot);
    }

    /// As [`Self::plan`], but the policy is told of `taught` instead: of those tokens of the event that
    /// will stay. The others may be told later, with [`Self::teach`].
    pub fn plan_taught(&mut self, event: &Event, taught: &Event, plan: &mut Plan) -> Result<()> {
        check(&self.shape, event)?;
        check(&self.shape, taught)?;
        self.place(event, taught, plan);
        Ok(())
    }

    /// Finds what is there of an event that is a trial, and pins it; all else is bypassed. Nothing is counted, taught or
    /// evicted. The plan is committed at once.
    pub fn plan_trial(&mut self, event: &Event, plan: &mut Plan) -> Result<()> {
        check(&self.shape, event)?;
        assert!(
            !plan.in_flight(),
            "the lane's last plan still holds its pins"
        );
        plan.begin(event, self.n_changes);
        for &expert in event.experts {
            let layer = event.layer;
            match self.slot_of(ExpertId { layer, expert }) {
                Some(slot) => {
                    self.hold(slot);
                    plan.hits.push((expert, slot));
                }
                None => plan.bypassed.push(expert),
            }
        }
        plan.state = State::Committed;
        Ok(())
    }

    /// Tells the policy of tokens whose experts were planned without it.
    pub fn teach(&mut self, event: &Event) -> Result<()> {
        check(&self.shape, event)?;
        self.n_changes += 1;
        self.policy.route(event);
        Ok(())
    }
}
