//! A pool for engines that are not llama.cpp.

use crate::error::{Error, Result};
use crate::expert::{ExpertId, Picked, Shape};
use crate::hindsight::{Hindsight, Lookback};
use crate::policy::Prior;
use crate::pooled::{Pooled, Pools};
use crate::profile::Lesson;
use crate::recent_events::{MODEL_BYTES, RecentEvents};
use crate::residency::{Buffers, Committed, Counts, Fill, Planned};
use crate::tracker::{LayerCounts, Phase, Span, Usage};
use std::sync::Arc;

/// The slot of an expert that got none.
pub const NO_SLOT: u32 = u32::MAX;

/// Most experts of all layers together. What is allocated grows with them, and a failed allocation
/// would end the caller's process: this many, in as many layers as there may be, take less than a GiB.
pub const N_TOTAL_MAX: u64 = 1 << 21;
/// Most layers.
pub const N_LAYERS_MAX: usize = 1 << 18;
/// Routed experts that the comparison with other policies can look back at.
const LOG_PICKS: usize = 1 << 20;

/// A pool that is used by one operation at a time.
pub struct Cache {
    pub(super) pools: Pools,
    policy_name: String,
    /// What is planned and waits to be committed; the latest that was, until there is another.
    planned: Option<Planned>,
    committed: Option<Committed>,
    buffers: Buffers,
    /// The latest prior: the share of tokens that pick each expert, by dense index.
    pub(super) prior: Option<Vec<f32>>,
    /// What a profile has learnt of what was counted.
    pub(super) learnt: Lesson,
    /// The event of the latest plan: its tokens, and what they picked.
    n_tokens: u32,
    picked: Picked,
}

impl Cache {
    /// `n_slots` free slots for a model whose layer `l` has `n_experts[l]` experts of `expert_bytes[l]`
    /// bytes, or all of one size, ranked by the policy called `policy_name`. Slots above the number of
    /// experts are left out.
    pub fn new(
        n_experts: &[u32],
        expert_bytes: Option<&[u64]>,
        n_slots: u32,
        policy_name: &str,
    ) -> Result<Self> {
        Self::check_size(n_experts)?;
        if let Some(at) = expert_bytes.and_then(|bytes| bytes.iter().position(|&n| n == 0)) {
            return Err(Error::setting(
                "expert_bytes",
                0,
                format!("layer {at} needs a size above 0"),
            ));
        }
        let shape = match expert_bytes {
            Some(bytes) => Shape::with_bytes(n_experts, bytes),
            None => Shape::new(n_experts),
        };
        let n_slots = n_slots.min(shape.n_total() as u32);
        let recent = RecentEvents::within(MODEL_BYTES, LOG_PICKS);
        let pool = Pooled::new(shape, n_slots, policy_name, recent)?;
        let layers = [(0..n_experts.len()).collect()];
        Ok(Self {
            pools: Pools::new(vec![pool], &layers, Arc::default()),
            policy_name: policy_name.to_string(),
            planned: None,
            committed: None,
            buffers: Buffers::default(),
            prior: None,
            learnt: Lesson::new(&sizes(n_experts)),
            n_tokens: 0,
            picked: Picked::default(),
        })
    }

    /// How many experts there are in all, unless they or their layers are too many.
    pub fn check_size(n_experts: &[u32]) -> Result<u64> {
        let n_total: u64 = n_experts.iter().map(|&n| u64::from(n)).sum();
        if n_total > N_TOTAL_MAX {
            return Err(Error::setting(
                "n_experts",
                n_total,
                format!("at most {N_TOTAL_MAX} in all"),
            ));
        }
        if n_experts.len() > N_LAYERS_MAX {
            let allowed = format!("at most {N_LAYERS_MAX}");
            return Err(Error::setting("n_layers", n_experts.len(), allowed));
        }
        Ok(n_total)
    }

    /// Tells the policy what is known of the workload: the share of tokens that pick each expert, by
    /// layer and expert, worth `n_tokens` tokens. Not while a plan waits to be committed.
    pub fn prime(&mut self, frequency: &[f32], n_tokens: f32) -> Result<()> {
        let n_total = self.pools[0].residency.shape().n_total();
        if frequency.len() != n_total {
            let allowed = format!("there are {n_total} experts");
            return Err(Error::setting("n_frequencies", frequency.len(), allowed));
        }
        if let Some(f) = frequency.iter().find(|f| !(0.0..=1.0).contains(*f)) {
            return Err(Error::setting(
                "frequency",
                f,
                "must be from 0 to 1".to_string(),
            ));
        }
        if !(n_tokens > 0.0 && n_tokens.is_finite()) {
            return Err(Error::setting(
                "n_tokens",
                n_tokens,
                "must be above 0".to_string(),
            ));
        }
        self.check_idle()?;
        self.pools[0].residency.prime(&Prior {
            frequency,
            n_tokens,
        });
        self.prior = Some(frequency.to_vec());
        Ok(())
    }

    /// Finds or makes a place for each of `ids`, which the router of `layer` picked for `n_tokens`
    /// tokens: token after token, each token's picks best first if the router ranks them. Ids can
    /// repeat. Writes the slot of `ids[i]` to `slots[i]`, [`NO_SLOT`] if it got none.
    ///
    /// What the last committed plan pinned can be evicted from now on. On an error nothing changes.
    pub fn plan(
        &mut self,
        layer: u32,
        n_tokens: u32,
        ids: &[i32],
        slots: &mut [u32],
    ) -> Result<&[Fill]> {
        self.plan_with(layer, n_tokens, ids, |i, slot| {
            if let Some(place) = slots.get_mut(i) {
                *place = slot;
            }
        })
    }

    /// As [`Self::plan`]; calls `put` with the place of each of `ids` in the list, and its slot.
    pub fn plan_with(
        &mut self,
        layer: u32,
        n_tokens: u32,
        ids: &[i32],
        mut put: impl FnMut(usize, u32),
    ) -> Result<&[Fill]> {
        let n_experts = self.n_experts(layer)?;
        let is_expert = |id: i32| u32::try_from(id).is_ok_and(|e| e < n_experts);
        if let Some(&id) = ids.iter().find(|&&id| !is_expert(id)) {
            let id = id.into();
            return Err(Error::ExpertOutOfRange { id, n_experts });
        }
        if n_tokens == 0 {
            let why = "0 tokens must be at least 1".to_string();
            return Err(Error::Event { layer, why });
        }
        self.end_plan();
        self.picked = picked(ids, n_tokens);
        self.n_tokens = n_tokens;
        let event = self.picked.event(layer, n_tokens);
        let planned = self.pools[0]
            .residency
            .plan(&event, std::mem::take(&mut self.buffers))?;
        for (i, &id) in ids.iter().enumerate() {
            let expert = id as u32;
            let found = self.pools[0].residency.slot_of(ExpertId { layer, expert });
            put(i, found.unwrap_or(NO_SLOT));
        }
        Ok(&self.planned.insert(planned).fills)
    }

    /// The bytes of all fills have arrived: counts the plan, and primes the policy if that tells the
    /// workload. Returns false if there is none.
    pub fn commit(&mut self) -> bool {
        let Some(planned) = self.planned.take() else {
            return false;
        };
        let committed = self
            .committed
            .insert(self.pools[0].residency.commit(planned));
        let event = self.picked.event(committed.layer, self.n_tokens);
        let layer = event.layer as usize;
        if let Some(known) = self.pools.count(layer, &event, true) {
            self.prior = Some(known.frequency.concat());
        }
        true
    }

    /// Nothing was read: victims are back in their slots. Returns false if there is no plan.
    pub fn rollback(&mut self) -> bool {
        let Some(planned) = self.planned.take() else {
            return false;
        };
        self.buffers = self.pools[0].residency.rollback(planned);
        true
    }

    /// Changes the number of slots, which ends the last plan as the next one would. Returns the slots
    /// that are no longer used: as many as there are fewer now.
    pub fn resize(&mut self, n_slots: u32) -> Result<Vec<u32>> {
        self.end_plan();
        let n_total = self.pools[0].residency.shape().n_total() as u32;
        self.pools[0].residency.resize(n_slots.min(n_total))
    }

    /// How many slots there are.
    pub fn n_slots(&self) -> u32 {
        self.pools[0].residency.n_slots()
    }

    /// Where an expert is, if it is resident.
    pub fn slot_of(&self, layer: u32, expert: u32) -> Result<Option<u32>> {
        Ok(self.pools[0].residency.slot_of(self.expert(layer, expert)?))
    }

    /// What the committed plans add up to.
    pub fn counts(&self) -> Counts {
        self.pools[0].residency.counts()
    }

    /// How often committed plans used an expert, and when last.
    pub fn usage(&self, phase: Phase, layer: u32, expert: u32) -> Result<Usage> {
        Ok(self.pools[0]
            .tracker
            .usage(phase, self.expert(layer, expert)?))
    }

    /// How often committed plans used the experts of a layer.
    pub fn layer_counts(&self, phase: Phase, span: Span, layer: u32) -> Result<LayerCounts> {
        self.n_experts(layer)?;
        Ok(self.pools[0].tracker.counts(phase, span, layer))
    }

    /// What other policies would have done in the latest committed plans, of up to `n_picks_max`
    /// experts and of as many as are kept.
    pub fn hindsight(&self, n_picks_max: usize) -> Hindsight {
        let window = Lookback {
            n_slots_more: None,
            shape: self.pools[0].residency.shape().clone(),
            n_slots: self.n_slots(),
            recent: self.pools[0].recent.tail(n_picks_max),
        };
        Hindsight::of(&[window], &self.policy_name)
    }

    fn n_experts(&self, layer: u32) -> Result<u32> {
        let shape = self.pools[0].residency.shape();
        let n_layers = shape.n_layers();
        match layer < n_layers {
            true => Ok(shape.n_experts(layer)),
            false => Err(Error::LayerOutOfRange { layer, n_layers }),
        }
    }

    pub(super) fn expert(&self, layer: u32, expert: u32) -> Result<ExpertId> {
        let n_experts = self.n_experts(layer)?;
        let id = expert.into();
        match expert < n_experts {
            true => Ok(ExpertId { layer, expert }),
            false => Err(Error::ExpertOutOfRange { id, n_experts }),
        }
    }

    /// What is known changes before a plan or after it.
    pub(super) fn check_idle(&self) -> Result<()> {
        match self.planned.is_some() {
            true => Err(Error::State(
                "plan=open: must be committed or rolled back first".to_string(),
            )),
            false => Ok(()),
        }
    }

    /// Drops the pins of a committed plan, undoes one that is not.
    fn end_plan(&mut self) {
        if let Some(committed) = self.committed.take() {
            self.buffers = self.pools[0].residency.release(committed);
        }
        self.rollback();
    }
}

/// The distinct experts among `ids`, how often each occurs, and its best rank if all tokens have as
/// many ids.
fn picked(ids: &[i32], n_tokens: u32) -> Picked {
    let n_tokens = n_tokens as usize;
    let is_even = ids.len().is_multiple_of(n_tokens);
    let top_k = ids.len().div_ceil(n_tokens);
    let ranked = (0..).zip(ids);
    let mut picks: Vec<_> = ranked
        .map(|(i, &id)| (id as u32, (i % top_k) as u32))
        .collect();
    let mut picked = Picked::of(&mut picks);
    if !is_even {
        picked.ranks.clear();
    }
    picked
}

/// The layers that have experts.
pub(super) fn sizes(n_experts: &[u32]) -> Vec<u32> {
    n_experts.iter().copied().filter(|&n| n > 0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of what is planned and of what is logged.
    #[test]
    fn a_rank_is_the_best_place_in_the_list_of_a_token() {
        let mut cache = Cache::new(&[8], None, 8, "lru").unwrap();
        let mut ranks = |n_tokens, ids: &[i32]| {
            cache.plan(0, n_tokens, ids, &mut []).unwrap();
            cache.commit();
            let last = cache.pools[0].recent.iter().last().unwrap();
            assert_eq!(last.ranks, cache.picked.ranks);
            last.ranks.to_vec()
        };
        assert_eq!(ranks(1, &[5, 1, 7]), [1, 0, 2]);
        assert_eq!(ranks(3, &[5, 1, 1, 0, 4, 5]), [1, 0, 0, 0]);
        assert!(ranks(2, &[5, 1, 7]).is_empty(), "of which token is 1?");
        assert!(ranks(4, &[5, 1]).is_empty());
        assert!(ranks(2, &[]).is_empty());
    }
}
