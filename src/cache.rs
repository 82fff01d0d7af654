//! A cache for engines that are not llama.cpp: router ids in, slots out. What the C ABI exports.

use crate::error::{Error, Result};
use crate::expert::{Event, Shape};
use crate::policy;
use crate::residency::{Counts, Fill, Plan, Residency};

/// The slot of an expert that got none.
pub const NO_SLOT: u32 = u32::MAX;

/// A [`Residency`] that is used by one operation at a time.
pub struct Cache {
    residency: Residency,
    plan: Plan,
    experts: Vec<u32>,
    rows: Vec<u32>,
}

impl Cache {
    /// `n_slots` free slots for a model whose layer `l` has `n_experts[l]` experts, ranked by the
    /// policy called `policy_name`.
    pub fn new(n_experts: &[u32], n_slots: u32, policy_name: &str) -> Result<Self> {
        let shape = Shape::new(n_experts);
        let policy = policy::by_name(policy_name, &shape)?;
        Ok(Self {
            residency: Residency::new(shape, n_slots, policy),
            plan: Plan::default(),
            experts: Vec::new(),
            rows: Vec::new(),
        })
    }

    /// Finds or makes a place for each of `ids`, which the router of `layer` picked for `n_tokens`
    /// tokens; ids can repeat. Writes the slot of `ids[i]` to `slots[i]`, [`NO_SLOT`] if it got none.
    ///
    /// What the last committed plan pinned can be evicted from now on. On an error nothing changes.
    pub fn plan(
        &mut self,
        layer: u32,
        n_tokens: u32,
        ids: &[i32],
        slots: &mut [u32],
    ) -> Result<&[Fill]> {
        let shape = self.residency.shape();
        if layer >= shape.n_layers() {
            let n_layers = shape.n_layers();
            return Err(Error::LayerOutOfRange { layer, n_layers });
        }
        let n_experts = shape.n_experts(layer);
        let is_expert = |id: i32| u32::try_from(id).is_ok_and(|e| e < n_experts);
        if let Some(&id) = ids.iter().find(|&&id| !is_expert(id)) {
            let id = id.into();
            return Err(Error::ExpertOutOfRange { id, n_experts });
        }
        self.count_rows(ids);
        let event = Event {
            layer,
            n_tokens,
            experts: &self.experts,
            rows: &self.rows,
        };
        crate::residency::check(self.residency.shape(), &event)?;
        if self.plan.is_committed() {
            self.residency.release(&mut self.plan);
        } else if self.plan.in_flight() {
            self.residency.rollback(&mut self.plan);
        }
        self.residency.plan(&event, &mut self.plan)?;
        for (slot, &id) in slots.iter_mut().zip(ids) {
            let id = crate::expert::ExpertId {
                layer,
                expert: id as u32,
            };
            *slot = self.residency.slot_of(id).unwrap_or(NO_SLOT);
        }
        Ok(&self.plan.fills)
    }

    /// The bytes of all fills have arrived: counts the plan. Returns false if there is none.
    pub fn commit(&mut self) -> bool {
        let is_planned = self.plan.in_flight() && !self.plan.is_committed();
        if is_planned {
            self.residency.commit(&mut self.plan);
        }
        is_planned
    }

    /// Nothing was read: victims are back in their slots. Returns false if there is no plan.
    pub fn rollback(&mut self) -> bool {
        let is_planned = self.plan.in_flight() && !self.plan.is_committed();
        if is_planned {
            self.residency.rollback(&mut self.plan);
        }
        is_planned
    }

    /// What the committed plans add up to.
    pub fn counts(&self) -> Counts {
        self.residency.counts()
    }

    /// The distinct experts among `ids`, ascending, and how often each occurs.
    fn count_rows(&mut self, ids: &[i32]) {
        let mut sorted: Vec<u32> = ids.iter().map(|&id| id as u32).collect();
        sorted.sort_unstable();
        self.experts.clear();
        self.rows.clear();
        for same in sorted.chunk_by(|a, b| a == b) {
            self.experts.push(same[0]);
            self.rows.push(same.len() as u32);
        }
    }
}
