//! A trace in a grid, and what the hits of its events add up to.

use super::request::{Named, Request, WorstLayer};
use super::{asked, places};
use crate::expert::{Event, ExpertId, Shape};
use crate::statistics::share;
use crate::trace::{PoolSpec, Recorded, Trace};

/// A trace with what its cells have in common.
pub(super) struct Case<'a> {
    pub(super) named: &'a Named,
    pub(super) shape: Shape,
    /// By budget.
    pub(super) pools: Vec<Vec<PoolSpec>>,
    /// By budget and event, whether it looks into the pools.
    pub(super) asked: Vec<Vec<bool>>,
    pub(super) n_picks: u64,
    warm: Vec<bool>,
}

/// What the hits of a replay add up to.
pub(super) struct Rates {
    /// Over the events that look into the pools and that [`Trace::warm`] counts.
    pub(super) warm: f64,
    /// Over all that look into them.
    pub(super) cold: f64,
    /// Experts, or bytes where hits are bytes, that were not resident.
    pub(super) missed: u64,
    /// Bytes that were not resident.
    pub(super) bytes_missed: u64,
    /// As `warm`.
    pub(super) worst_layer: Option<WorstLayer>,
}

impl<'a> Case<'a> {
    /// Fails if the trace has no events, or lacks what a budget or the prior needs.
    pub(super) fn new(named: &'a Named, request: &Request) -> Result<Self, String> {
        let header = named.trace.header();
        let shape = header.shape();
        if let Some(prior) = &request.prior {
            let other = prior.trace.header();
            if (header.n_layers, header.n_experts) != (other.n_layers, other.n_experts) {
                return Err(format!(
                    "it has {} layers of {} experts, but the prior {} has {} of {}",
                    header.n_layers,
                    header.n_experts,
                    prior.path.display(),
                    other.n_layers,
                    other.n_experts
                ));
            }
        }
        let pools = request
            .budgets
            .iter()
            .map(|(_, budget)| budget.pools(header, &shape, request.scope))
            .collect::<Result<Vec<_>, _>>()?;
        let asked = pools.iter().map(|pools| {
            let places = places(&shape, pools);
            let is_asked = |e: Recorded| asked(&places, pools, &shape, &e).is_some();
            named.trace.recorded().map(is_asked).collect()
        });
        let case = Self {
            named,
            asked: asked.collect(),
            pools,
            n_picks: named
                .trace
                .events()
                .map(|(_, e)| e.experts.len() as u64)
                .sum(),
            warm: named.trace.warm(),
            shape,
        };
        match case.n_picks {
            0 => Err("no events are left to replay".to_string()),
            _ => Ok(case),
        }
    }

    /// As [`Trace::recorded`].
    pub(super) fn recorded(&self) -> impl Iterator<Item = Recorded<'_>> {
        self.named.trace.recorded()
    }

    pub(super) fn events(&self) -> impl Iterator<Item = Event<'_>> {
        self.named.trace.events().map(|(_, event)| event)
    }

    /// Whether experts of different layers differ in size.
    pub(super) fn sizes_differ(&self) -> bool {
        let size = |layer| self.shape.expert_bytes(layer);
        (1..self.shape.n_layers()).any(|layer| size(layer) != size(0))
    }

    /// Adds up the hits of each event in the pools of a budget, which are experts, or bytes.
    pub(super) fn rates(&self, budget: usize, hits: &[u64], are_bytes: bool) -> Rates {
        let mut layers = vec![(0, 0); self.shape.n_layers() as usize];
        let (mut all_hits, mut all, mut bytes_missed) = (0, 0, 0);
        let events = self
            .events()
            .zip(hits)
            .zip(&self.warm)
            .zip(&self.asked[budget]);
        for (((event, &n_hits), &is_warm), _) in events.filter(|(_, asked)| **asked) {
            let size = self.shape.expert_bytes(event.layer);
            let unit = if are_bytes { size } else { 1 };
            let n = unit * event.experts.len() as u64;
            all_hits += n_hits;
            all += n;
            bytes_missed += (n - n_hits) * (size / unit);
            if is_warm {
                let (layer_hits, layer_all) = &mut layers[event.layer as usize];
                *layer_hits += n_hits;
                *layer_all += n;
            }
        }
        let warm_hits = layers.iter().map(|&(hits, _)| hits).sum();
        let warm_all = layers.iter().map(|&(_, all)| all).sum();
        let by_layer = (0..).zip(&layers).filter(|(_, (_, all))| *all > 0);
        let by_layer = by_layer.map(|(layer, &(hits, all))| WorstLayer {
            layer,
            hit_rate: share(hits, all),
        });
        Rates {
            warm: share(warm_hits, warm_all),
            cold: share(all_hits, all),
            missed: all - all_hits,
            bytes_missed,
            worst_layer: by_layer.min_by(|a, b| a.hit_rate.total_cmp(&b.hit_rate)),
        }
    }
}

/// By dense index, which share of the tokens that a layer was computed for picks an expert.
pub(super) fn frequency(trace: &Trace) -> Vec<f32> {
    let shape = trace.header().shape();
    let mut rows = vec![0u64; shape.n_total()];
    let mut n_tokens = vec![0u64; shape.n_layers() as usize];
    for (_, event) in trace.events() {
        let layer = event.layer;
        n_tokens[layer as usize] += u64::from(event.n_tokens);
        for (&expert, &n) in event.experts.iter().zip(event.rows) {
            rows[shape.index(ExpertId { layer, expert })] += u64::from(n);
        }
    }
    let share = |(index, &rows): (usize, &u64)| {
        let layer = shape.id(index).layer as usize;
        (rows as f64 / n_tokens[layer].max(1) as f64) as f32
    };
    rows.iter().enumerate().map(share).collect()
}
