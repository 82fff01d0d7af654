//! What a policy, or the best possible one, would have done on recorded routing.
//!
//! A [`Replay`] is pools of the engine's own `Residency`; [`belady()`] is the optimum of one pool,
//! and [`belady_bytes`] bounds what any pools of that many bytes can do. `grid` runs traces,
//! policies and budgets against each other.

use crate::error::{Error, Result};
use crate::expert::{Event, ExpertId, Shape};
use crate::policy::{self, Prior};
use crate::profile::PRIOR_TOKENS;
use crate::residency::{Buffers, Counts, Residency};
use crate::trace::{PoolSpec, Recorded};

mod belady;
mod budget;
mod bytes;
#[cfg(feature = "cli")]
mod case;
#[cfg(feature = "cli")]
pub mod grid;
#[cfg(feature = "cli")]
pub mod measured;
pub mod planner;
#[cfg(feature = "cli")]
mod request;
#[cfg(feature = "cli")]
mod summary;

pub use belady::{belady, belady_from};
pub use budget::{Budget, Scope};
pub use bytes::belady_bytes;

/// Runs `events` through the engine's own `Residency`, from an empty pool of `n_slots`, one event
/// after the other.
pub fn replay<'a>(
    events: impl IntoIterator<Item = Event<'a>>,
    shape: &Shape,
    n_slots: u32,
    policy_name: &str,
) -> Result<Counts> {
    let pool = PoolSpec {
        layers: (0..shape.n_layers()).collect(),
        n_slots,
        preloaded: false,
        device: false,
    };
    let mut replay = Replay::new(shape, &[pool], policy_name, None)?;
    replay.run(events)?;
    Ok(replay.counts())
}

/// The pools of a model, each with a policy of its own, as they are in the engine.
pub struct Replay {
    pools: Vec<Residency>,
    specs: Vec<PoolSpec>,
    /// By layer: its pool, and its number among the layers of that pool.
    places: Vec<(usize, u32)>,
    buffers: Buffers,
}

impl Replay {
    /// Pools that together hold each layer of `shape` once, ready to run. `prior` says by dense index
    /// which share of tokens picks an expert.
    pub fn new(
        shape: &Shape,
        pools: &[PoolSpec],
        policy_name: &str,
        prior: Option<&[f32]>,
    ) -> Result<Self> {
        let mut replay = Self {
            pools: Vec::with_capacity(pools.len()),
            specs: pools.to_vec(),
            places: places(shape, pools),
            buffers: Buffers::default(),
        };
        for pool in pools {
            let shape_of_pool = shape_of(shape, pool);
            let policy = policy::by_name(policy_name, &shape_of_pool)?;
            let mut residency = Residency::new(shape_of_pool, pool.n_slots, policy);
            if let Some(prior) = prior {
                let frequency: Vec<f32> = experts_of(shape, pool).map(|i| prior[i]).collect();
                residency.prime(&Prior {
                    frequency: &frequency,
                    n_tokens: PRIOR_TOKENS,
                });
            }
            if pool.preloaded {
                residency.fill_free(0..residency.shape().n_total());
            }
            replay.pools.push(residency);
        }
        Ok(replay)
    }

    /// Runs `events`, one after the other; returns how many picks of each were resident.
    pub fn run<'a>(
        &mut self,
        events: impl IntoIterator<Item = impl Into<Recorded<'a>>>,
    ) -> Result<Vec<u32>> {
        let events = events.into_iter();
        let mut hits = Vec::with_capacity(events.size_hint().0);
        for recorded in events.map(Into::into) {
            let event = recorded.event;
            if event.layer as usize >= self.places.len() {
                return Err(Error::LayerOutOfRange {
                    layer: event.layer,
                    n_layers: self.places.len() as u32,
                });
            }
            let (pool, event) = localize(&self.places, event);
            let residency = &mut self.pools[pool];
            let n_experts = residency.shape().n_experts(event.layer);
            if !self.specs[pool].serves(&recorded, n_experts) {
                residency.learn(&event)?;
                hits.push(0);
                continue;
            }
            let planned = residency.plan(&event, std::mem::take(&mut self.buffers))?;
            let committed = residency.commit(planned);
            hits.push(committed.hits.len() as u32);
            self.buffers = residency.release(committed);
        }
        Ok(hits)
    }

    /// What happened in all pools.
    pub fn counts(&self) -> Counts {
        sum(self.pools.iter().map(Residency::counts))
    }
}

/// [`belady_from`] for pools that together hold each layer of `shape` once. Panics if an event's layer
/// does not exist.
pub fn belady_pools<'a, I: IntoIterator<Item = impl Into<Recorded<'a>>>>(
    events: impl Fn() -> I,
    shape: &Shape,
    pools: &[PoolSpec],
) -> Result<(Counts, Vec<u32>)> {
    let places = places(shape, pools);
    let mut counts = Vec::with_capacity(pools.len());
    let mut hits = vec![0; events().into_iter().count()];
    for (number, pool) in pools.iter().enumerate() {
        let own = || {
            let all = events().into_iter().map(Into::into).enumerate();
            let own = all.filter(|(_, e)| asked(&places, pools, shape, e) == Some(number));
            own.map(|(index, recorded)| (index, localize(&places, recorded.event).1))
        };
        let start: Vec<usize> = (0..n_at_start(shape, pool)).collect();
        let (counts_of_pool, hits_of_pool) = belady_from(
            own().map(|(_, event)| event),
            &shape_of(shape, pool),
            pool.n_slots,
            &start,
        )?;
        counts.push(counts_of_pool);
        for ((index, _), n_hits) in own().zip(hits_of_pool) {
            hits[index] = n_hits;
        }
    }
    Ok((sum(counts), hits))
}

#[cfg(feature = "cli")]
/// The experts that pools hold before the first event, as dense indices of `shape`.
fn at_start(shape: &Shape, pools: &[PoolSpec]) -> Vec<usize> {
    let of_pool = |pool| experts_of(shape, pool).take(n_at_start(shape, pool));
    pools.iter().flat_map(of_pool).collect()
}

/// How many experts a pool holds before the first event: what [`Residency::fill_free`] fills in,
/// which are those with the lowest dense indices.
fn n_at_start(shape: &Shape, pool: &PoolSpec) -> usize {
    match pool.preloaded {
        true => shape_of(shape, pool).n_total().min(pool.n_slots as usize),
        false => 0,
    }
}

/// The layers of one pool.
fn shape_of(shape: &Shape, pool: &PoolSpec) -> Shape {
    let n_experts: Vec<u32> = pool.layers.iter().map(|&l| shape.n_experts(l)).collect();
    let bytes: Vec<u64> = pool.layers.iter().map(|&l| shape.expert_bytes(l)).collect();
    Shape::with_bytes(&n_experts, &bytes)
}

/// The dense indices of the experts of a pool, in the order of their dense indices in the pool.
fn experts_of(shape: &Shape, pool: &PoolSpec) -> impl Iterator<Item = usize> {
    pool.layers.iter().flat_map(|&layer| {
        let first = shape.index(ExpertId { layer, expert: 0 });
        first..first + shape.n_experts(layer) as usize
    })
}

/// By layer: its pool, and its number among the layers of that pool.
fn places(shape: &Shape, pools: &[PoolSpec]) -> Vec<(usize, u32)> {
    let mut places = vec![None; shape.n_layers() as usize];
    for (number, pool) in pools.iter().enumerate() {
        for (local, &layer) in (0..).zip(&pool.layers) {
            let before = places[layer as usize].replace((number, local));
            assert_eq!(before, None, "layer {layer} is in two pools");
        }
    }
    let place = |place: Option<_>| place.expect("each layer is in a pool");
    places.into_iter().map(place).collect()
}

/// The pool of an event that looks into it. Panics if its layer does not exist.
fn asked(
    places: &[(usize, u32)],
    pools: &[PoolSpec],
    shape: &Shape,
    recorded: &Recorded,
) -> Option<usize> {
    let layer = recorded.event.layer;
    let (number, _) = places[layer as usize];
    let is_served = pools[number].serves(recorded, shape.n_experts(layer));
    is_served.then_some(number)
}

/// The pool of an event, and the event as that pool sees it. Panics if its layer does not exist.
fn localize<'a>(places: &[(usize, u32)], event: Event<'a>) -> (usize, Event<'a>) {
    let (pool, layer) = places[event.layer as usize];
    (pool, Event { layer, ..event })
}

fn sum(counts: impl IntoIterator<Item = Counts>) -> Counts {
    let mut all = Counts::default();
    for counts in counts {
        all.decode.add(&counts.decode);
        all.prefill.add(&counts.prefill);
    }
    all
}
