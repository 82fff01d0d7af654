//! The experts that devices keep for one context, of layers whose experts are in host memory.
//!
//! The compute side calls [`DeviceCache::plan`] for each layer of a batch: it finds a slot for each expert and says
//! what to upload where. Every expert of a batch gets one: whoever calls sees to it that there are enough.
//! What is computed without the cache is told with [`DeviceCache::learn_uncached`], so that the policies know the whole
//! workload. The slots are those of [`Pools`], as in the engine; no bytes are moved here.

mod fit;
mod gpu;
pub mod guard;
pub mod placement;
mod stats;

use crate::draft_tokens::{Batch, Sure};
use crate::error::Result;
use crate::expert::{ExpertId, Picked, Shape};
use crate::notice::Notices;
use crate::pooled::{Given, Place, Places, Pooled, Pools};
use crate::profile::recognizer::{Known, Recognized, Recognizer};
use crate::recent_events::{self, RecentEvents};
use crate::residency::{Buffers, Plan};
use crate::sync::{Held, Lock};
use crate::trace::{Picks, PoolSpec};
pub use gpu::Gpu;
pub use stats::DeviceStats;
use std::sync::{Arc, MutexGuard};

/// What a pool of slots is made for.
#[derive(Debug, Clone)]
pub struct PoolOf {
    /// The device, by its name.
    pub device: String,
    /// The layers, by their numbers in the model, ascending.
    pub layers: Vec<usize>,
    /// Their experts and sizes.
    pub shape: Shape,
    /// Experts that it holds, of all layers together.
    pub n_slots: u32,
}

/// What a pool is made for, and what came there.
struct Filled {
    of: PoolOf,
    bytes_uploaded: u64,
    n_warmed: u64,
    bytes_warmed: u64,
    /// Experts routed to that were computed without the cache.
    n_uncached: u64,
    /// Of these, those for which the cache was left aside.
    n_aside: u64,
}

/// Everything that changes.
struct State {
    policy: String,
    /// What was planned is kept for the comparison.
    pools: Pools,
    /// By pool.
    filled: Vec<Filled>,
    picks: Vec<(u32, u32)>,
    picked: Picked,
    buffers: Buffers,
}

/// The pools of one context. It is used by one thread at a time, and looked at by others.
pub struct DeviceCache {
    places: Places,
    notices: Arc<Notices>,
    state: Lock<State>,
}

impl DeviceCache {
    /// Empty `pools`, no two of which have a layer in common, ranked by the policy of this name.
    pub fn new(pools: Vec<PoolOf>, policy: &str) -> Result<Self> {
        Self::with_recent(pools, policy, recent_events::device_bytes(0))
    }

    /// The same, with recent events for the comparison with other policies that take at most `n_bytes_max` together.
    pub fn with_recent(pools: Vec<PoolOf>, policy: &str, n_bytes_max: usize) -> Result<Self> {
        let n_layers: usize = pools.iter().map(|pool| pool.layers.len()).sum();
        let pool = |of: &PoolOf| {
            let recent = RecentEvents::of_pool(n_bytes_max, of.layers.len(), n_layers);
            Pooled::new(of.shape.clone(), of.n_slots, policy, recent)
        };
        let notices = Arc::<Notices>::default();
        let pooled = pools.iter().map(pool).collect::<Result<_>>()?;
        let layers: Vec<_> = pools.iter().map(|pool| pool.layers.clone()).collect();
        let filled = |of| Filled {
            of,
            bytes_uploaded: 0,
            n_warmed: 0,
            bytes_warmed: 0,
            n_uncached: 0,
            n_aside: 0,
        };
        let all = Pools::new(pooled, &layers, notices.clone());
        Ok(Self {
            places: all.places().clone(),
            notices,
            state: Lock::new(State {
                policy: policy.to_string(),
                pools: all,
                filled: pools.into_iter().map(filled).collect(),
                picks: Vec::new(),
                picked: Picked::default(),
                buffers: Buffers::default(),
            }),
        })
    }

    /// What there is to tell a person.
    pub fn notices(&self) -> &Notices {
        &self.notices
    }

    /// The router of `layer` picked experts for the tokens of `batch`. Calls `upload` with where they are
    /// and what to upload where, which returns the bytes of that; returns how many experts it was.
    ///
    /// Of drafts the policy hears when they are sure. Panics if the layer is not in the cache, or more
    /// distinct experts are picked than its pool has slots.
    pub fn plan(
        &self,
        layer: usize,
        picks: Picks,
        batch: &Batch,
        upload: impl FnOnce(&Plan) -> Result<u64>,
    ) -> Result<usize> {
        let mut guard = self.state();
        let state = &mut *guard;
        let at = self.place(layer).expect("the layer is in the cache");
        state.pools.settle(layer, batch, |_| false)?;
        let picked = std::mem::take(&mut state.picked);
        let picked = state.pick(picked, picks, batch);
        let event = picked.event(at.layer, picks.n_tokens());
        let buffers = std::mem::take(&mut state.buffers);
        let sure = state.pools.sort(layer, picks, batch);
        let learnt = Sure::of(&sure, event);
        let residency = &mut state.pools[at.pool].residency;
        let planned = residency.plan_learning(&event, &learnt, buffers)?;
        let pool = &mut state.filled[at.pool];
        assert!(
            planned.staged.is_empty(),
            "{} experts and {} slots",
            event.experts.len(),
            pool.of.n_slots
        );
        pool.bytes_uploaded += upload(&planned)?;
        state.pools.count(layer, &learnt, true);
        let n_fills = planned.fills.len();
        let residency = &mut state.pools[at.pool].residency;
        let committed = residency.commit(planned);
        // What is uploaded for later events waits for what computes this one: the device's queue has an order.
        state.buffers = residency.release(committed);
        state.picked = picked;
        Ok(n_fills)
    }

    /// A layer was computed without the cache, as prompts are, but for the experts `held`, ascending. Does nothing if
    /// it is not in it.
    pub fn learn_uncached(&self, layer: usize, picks: Picks, held: &[u32], batch: &Batch) -> Result<()> {
        let Some(at) = self.place(layer) else {
            return Ok(());
        };
        let mut guard = self.state();
        let state = &mut *guard;
        state.pools.settle(layer, batch, |_| false)?;
        let picked = std::mem::take(&mut state.picked);
        let picked = state.pick(picked, picks, batch);
        let is_uncached = |expert: &&u32| held.binary_search(expert).is_err();
        let n_uncached = picked.experts.iter().filter(is_uncached).count() as u64;
        let pool = &mut state.filled[at.pool];
        pool.n_uncached += n_uncached;
        if batch.is_aside() {
            pool.n_aside += n_uncached;
        }
        let sure = state.pools.sort(layer, picks, batch);
        let all = picked.event(at.layer, picks.n_tokens());
        let learnt = Sure::of(&sure, all);
        state.pools.learn(layer, &learnt, false)?;
        state.picked = picked;
        Ok(())
    }

    /// As [`crate::draft_tokens::Drafts::drop_tokens`].
    pub fn drop_tokens(&self, memory: usize, seq: i32, begin: i32, end: i32) {
        self.state().pools.drop_tokens(memory, seq, begin, end);
    }

    /// Learns what is still open: nothing more will be dropped. Does nothing if a plan is being made and does not
    /// end.
    pub fn settle_all(&self) -> Result<()> {
        match self.state_soon() {
            Some(mut state) => state.pools.settle_all(|_| false),
            None => Ok(()),
        }
    }

    /// Recognises the workload from now on; `None`: not any more.
    pub fn recognize_with(&self, recognizer: impl Into<Option<Recognizer>>) {
        self.state().pools.recognize_with(recognizer.into());
    }

    /// Tells the policies what is known of the workload.
    pub fn prime(&self, known: &Known) {
        self.state().pools.prime(known);
    }

    /// Policies of this name rank what the devices have from now on, as in the engine. Fails if there is none.
    pub fn rank_with(&self, policy: &str) -> Result<()> {
        let mut state = self.state();
        state.pools.rank_with(policy)?;
        state.policy = policy.to_string();
        Ok(())
    }

    /// What is compared with other policies begins here.
    pub fn forget_recent(&self) {
        self.state().pools.forget_recent();
    }

    /// As that of the engine.
    pub fn recognized(&self) -> Option<Recognized> {
        let state = self.state_soon()?;
        state.pools.recognizer().and_then(Recognizer::recognized)
    }

    /// Calls `look` with each layer of the model that is in the cache, its number in its pool, and that.
    pub fn inspect(&self, mut look: impl FnMut(usize, u32, &Pooled)) {
        let Some(state) = self.state_soon() else {
            return;
        };
        for (filled, pool) in state.filled.iter().zip(state.pools.iter()) {
            for (&layer, number) in filled.of.layers.iter().zip(0..) {
                look(layer, number, pool);
            }
        }
    }

    /// Gives the free slots of each pool to the experts that `known` has hottest; returns these, the hottest first. What
    /// is not uploaded then is to be [`Self::unfill`]ed.
    pub fn fill_hottest(&self, known: &Known) -> Vec<Given> {
        let heat = |layer: usize, expert: u32| known.frequency[layer][expert as usize];
        self.state().pools.fill_hottest(heat)
    }

    /// What [`Self::fill_hottest`] has filled was uploaded.
    pub fn note_warm(&self, pool: usize, n_bytes: u64) {
        let pool = &mut self.state().filled[pool];
        pool.n_warmed += 1;
        pool.bytes_warmed += n_bytes;
    }

    /// Takes back what [`Self::fill_hottest`] has just filled.
    pub fn unfill(&self, pool: usize, id: ExpertId) {
        self.state().pools[pool].residency.unfill(id);
    }

    /// What the pools are made for.
    pub fn pools(&self) -> Vec<PoolOf> {
        self.state().filled.iter().map(|pool| pool.of.clone()).collect()
    }

    /// The pools as a trace of all `n_layers` layers describes them: those that are not in the cache have
    /// no slot.
    pub fn specs(&self, n_layers: usize) -> Vec<PoolSpec> {
        let spec = |layers: Vec<u32>, n_slots| PoolSpec {
            layers,
            n_slots,
            preloaded: false,
            device: true,
        };
        let others = (0..n_layers).filter(|&layer| self.place(layer).is_none());
        let others: Vec<u32> = others.map(|layer| layer as u32).collect();
        let pools = self.pools().into_iter();
        let mut specs: Vec<_> = pools
            .map(|pool| {
                let layers = pool.layers.iter().map(|&layer| layer as u32);
                spec(layers.collect(), pool.n_slots)
            })
            .collect();
        if !others.is_empty() {
            specs.push(spec(others, 0));
        }
        specs
    }

    fn place(&self, layer: usize) -> Option<Place> {
        self.places.of(layer)
    }

    fn state(&self) -> Held<'_, State> {
        Held::of(&self.state)
    }

    /// The state, unless it is not to be had: this may be called where the end of the process has
    /// interrupted a plan.
    fn state_soon(&self) -> Option<MutexGuard<'_, State>> {
        self.state.soon()
    }
}

impl State {
    /// What `picks` say of the experts, in the memory of `picked`.
    fn pick(&mut self, mut picked: Picked, picks: Picks, batch: &Batch) -> Picked {
        self.picks.clear();
        self.picks.extend(picks.ranked());
        picked.set(&mut self.picks);
        picked.tokens.set(batch.spots(picks.n_tokens()), picks.rows());
        picked
    }
}
