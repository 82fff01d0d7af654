//! The life of an event: planned, committed and released, or rolled back.

use super::plan::{Buffers, Committed, Fill, Plan, Planned, check};
use super::slots::Residency;
use crate::error::Result;
use crate::expert::{Event, ExpertId};

impl Residency {
    /// Finds or makes a place for each expert of `event`, and pins it.
    ///
    /// A miss takes a free slot, else evicts, else, when all slots are pinned, is staged. Of a large event
    /// a miss, hottest experts first, only takes a free slot while the layer has less than its share of all
    /// slots, and the slots of experts of the layer that the event does not pick: in a prefill only of those
    /// that generation has not used there. So many tokens fill an empty pool evenly, a prompt pushes out
    /// nothing that generation needs, and what is resident follows what is picked.
    ///
    /// An `event` that [`check`] refuses changes nothing.
    pub fn plan(&mut self, event: &Event, buffers: Buffers) -> Result<Planned> {
        check(&self.shape, event)?;
        Ok(self.place(event, event, buffers))
    }

    /// As [`Self::plan`], but the policy is told of `learnt` instead: of those tokens of the event that
    /// will stay. The others may be told later, with [`Self::learn`].
    pub fn plan_learning(
        &mut self,
        event: &Event,
        learnt: &Event,
        buffers: Buffers,
    ) -> Result<Planned> {
        check(&self.shape, event)?;
        // Mostly all tokens stay.
        if !learnt.is(event) {
            check(&self.shape, learnt)?;
        }
        Ok(self.place(event, learnt, buffers))
    }

    /// Plans `event`, which is checked, and tells the policy of `learnt`.
    fn place(&mut self, event: &Event, learnt: &Event, buffers: Buffers) -> Planned {
        let mut plan = buffers.begin(event);
        self.policy.route(learnt);
        let mut misses = std::mem::take(&mut self.misses);
        misses.clear();
        // All hits before any miss: a miss must not evict what the same event needs.
        for (&expert, &rows) in event.experts.iter().zip(event.rows) {
            let id = ExpertId {
                layer: event.layer,
                expert,
            };
            match self.slot_of(id) {
                Some(slot) => {
                    self.pins[slot as usize] += 1;
                    self.keep(id);
                    plan.hits.push((expert, slot));
                }
                None => misses.push((expert, rows)),
            }
        }
        if event.is_large() {
            self.fill_some(&mut misses, &mut plan);
        } else {
            self.fill(&misses, &mut plan);
        }
        self.misses = misses;
        Planned(plan)
    }

    fn fill(&mut self, misses: &[(u32, u32)], plan: &mut Plan) {
        for &(expert, _) in misses {
            let place = match self.free.pop() {
                Some(slot) => Some((slot, None)),
                None => self.evict().map(|(slot, victim)| (slot, Some(victim))),
            };
            self.fill_slot(expert, place, plan);
        }
    }

    fn fill_some(&mut self, misses: &mut [(u32, u32)], plan: &mut Plan) {
        let room = self
            .share(plan.layer)
            .saturating_sub(self.n_resident[plan.layer as usize]);
        let mut n_free = self.free.len().min(room as usize);
        misses.sort_unstable_by_key(|&(expert, rows)| (std::cmp::Reverse(rows), expert));
        for &(expert, _) in &*misses {
            let place = match n_free.checked_sub(1) {
                Some(n_left) => {
                    n_free = n_left;
                    self.free.pop().map(|slot| (slot, None))
                }
                None => self
                    .evict_of(plan.layer, plan.is_prefill)
                    .map(|(slot, victim)| (slot, Some(victim))),
            };
            self.fill_slot(expert, place, plan);
        }
        plan.staged.sort_unstable();
    }

    /// Puts a miss into its place, a slot and who was there, or stages it.
    fn fill_slot(
        &mut self,
        expert: u32,
        place: Option<(u32, Option<ExpertId>)>,
        plan: &mut Plan,
    ) {
        let Some((slot, victim)) = place else {
            plan.staged.push(expert);
            return;
        };
        let id = ExpertId {
            layer: plan.layer,
            expert,
        };
        self.settle(id, slot);
        self.pins[slot as usize] = 1;
        plan.fills.push(Fill {
            expert,
            slot,
            victim,
        });
    }

    /// The part of all slots that belongs to `layer` by its number of experts, rounded up.
    fn share(&self, layer: u32) -> u32 {
        let part = u64::from(self.n_slots()) * u64::from(self.shape.n_experts(layer));
        part.div_ceil(self.shape.n_total() as u64) as u32
    }

    /// Finds what is there of an event that is a trial, and pins it; all else is staged. Nothing is counted,
    /// learnt or evicted, so there is nothing to commit.
    pub fn plan_trial(&mut self, event: &Event, buffers: Buffers) -> Result<Committed> {
        check(&self.shape, event)?;
        let mut plan = buffers.begin(event);
        for &expert in event.experts {
            let layer = event.layer;
            match self.slot_of(ExpertId { layer, expert }) {
                Some(slot) => {
                    self.pins[slot as usize] += 1;
                    plan.hits.push((expert, slot));
                }
                None => plan.staged.push(expert),
            }
        }
        Ok(Committed(plan))
    }

    /// Tells the policy of tokens whose experts were planned without it.
    pub fn learn(&mut self, event: &Event) -> Result<()> {
        check(&self.shape, event)?;
        self.policy.route(event);
        Ok(())
    }

    /// Counts a plan. Its pins stay until [`Self::release`].
    pub fn commit(&mut self, Planned(plan): Planned) -> Committed {
        let tally = self.counts.of(plan.is_prefill);
        tally.events += 1;
        tally.tokens += if plan.layer == 0 {
            u64::from(plan.n_tokens)
        } else {
            0
        };
        tally.hits += plan.hits.len() as u64;
        tally.misses += (plan.fills.len() + plan.staged.len()) as u64;
        tally.evictions += plan
            .fills
            .iter()
            .filter(|fill| fill.victim.is_some())
            .count() as u64;
        tally.staged += plan.staged.len() as u64;
        let fills = plan.fills.iter().map(|fill| fill.expert);
        let hits = plan.hits.iter().map(|&(expert, _)| expert);
        // A prompt does not use what it finds.
        for expert in fills.chain(hits.filter(|_| !plan.is_prefill)) {
            let layer = plan.layer;
            self.is_generated[self.shape.index(ExpertId { layer, expert })] = !plan.is_prefill;
        }
        Committed(plan)
    }

    /// Undoes a plan whose fills nobody has begun to read: what it evicted is resident again, in the slot
    /// where it was, and nothing is counted.
    ///
    /// The policy keeps what it learnt from the event, and takes the victims back as it takes any expert
    /// that comes: it may have forgotten what it only knows of residents, and a spare is none any more. A
    /// victim that another plan has brought back since stays there, and the slot is free. Panics if a fill
    /// is a hit of another plan that is not released.
    pub fn rollback(&mut self, Planned(plan): Planned) -> Buffers {
        for fill in &plan.fills {
            let n_users = self.pins[fill.slot as usize];
            assert_eq!(n_users, 1, "slot {} is used by other plans", fill.slot);
        }
        self.unpin(&plan);
        for fill in plan.fills.iter().rev() {
            let id = ExpertId {
                layer: plan.layer,
                expert: fill.expert,
            };
            self.evict_this(id);
            match fill.victim {
                Some(victim) if !self.is_resident(victim) => self.settle(victim, fill.slot),
                _ => self.free.push(fill.slot),
            }
        }
        Buffers(Some(plan))
    }

    /// Drops the pins of a committed plan, in any order with those of other lanes.
    pub fn release(&mut self, Committed(plan): Committed) -> Buffers {
        self.unpin(&plan);
        Buffers(Some(plan))
    }

    fn unpin(&mut self, plan: &Plan) {
        for slot in plan.slots() {
            self.pins[slot as usize] -= 1;
        }
    }
}
