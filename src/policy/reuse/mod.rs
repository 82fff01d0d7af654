//! Eviction by predicted reuse, which `echo` and `adaptive` share.
//!
//! What an expert is worth is the discounted chance of its next pick: 1 if the next visit of its layer
//! picks it, `discount` if the one after does, and so on. It is predicted from how often and how
//! recently the expert was picked, and from what was picked after earlier tokens that were routed
//! like the current one ([`history`]); how much each of these counts is learnt as the routing goes by
//! ([`value`]). The victim is the resident of the smallest worth, where an expert whose layer comes
//! later weighs less the longer its slot is blocked until then:
//! `worth * sqrt(n_layers / distance) * bytes`, the distance in layers until the expert's layer is
//! visited again.
//!
//! Everything is learnt from the routing alone, with the same constants for all models.

mod history;
mod maths;
mod table;
mod value;

use super::{Event, ExpertId, Policy, Prior, Shape};
use maths::least;
pub(super) use value::{Recipe, Votes};
use value::{Value, padded};

/// An expert that is not resident is worth more than any that is.
const ABSENT: f32 = f32::INFINITY;

/// A policy made of a recipe for values.
pub(super) struct Reuse {
    shape: Shape,
    /// By layer: the place of its expert 0 in `prices`; rows are padded.
    rows: Vec<usize>,
    value: Value,
    /// What each resident is worth, [`ABSENT`] for others and the padding.
    prices: Vec<f32>,
    /// By layer: price and expert of the cheapest resident, if that is known.
    cheapest: Vec<Option<(f32, usize)>>,
    /// The layer of the last event.
    layer: usize,
    /// By distance in layers, from 1: what it multiplies a price by.
    nearness: Vec<f32>,
    /// By layer: what reading an expert costs, 1 on average.
    costs: Vec<f32>,
    arch: pulp::Arch,
}

impl Reuse {
    /// No residents.
    pub(super) fn new(shape: &Shape, recipe: &'static Recipe) -> Self {
        let n_layers = shape.n_layers() as usize;
        let mut rows = Vec::new();
        let mut n_places = 0;
        for layer in 0..shape.n_layers() {
            rows.push(n_places);
            n_places += padded(shape.n_experts(layer) as usize);
        }
        let bytes: Vec<f32> = (0..shape.n_layers()).map(|l| shape.expert_bytes(l) as f32).collect();
        let mean_bytes = bytes.iter().sum::<f32>() / n_layers.max(1) as f32;
        Self {
            shape: shape.clone(),
            value: Value::new(shape, recipe),
            rows,
            prices: vec![ABSENT; n_places],
            cheapest: vec![None; n_layers],
            layer: 0,
            nearness: (0..=n_layers)
                .map(|distance| (n_layers as f32 / distance.max(1) as f32).sqrt())
                .collect(),
            costs: bytes.iter().map(|b| b / mean_bytes.max(1.0)).collect(),
            arch: pulp::Arch::new(),
        }
    }

    fn place(&self, id: ExpertId) -> usize {
        self.rows[id.layer as usize] + id.expert as usize
    }

    fn row(&self, layer: usize) -> std::ops::Range<usize> {
        let begin = self.rows[layer];
        begin..begin + padded(self.shape.n_experts(layer as u32) as usize)
    }

    /// Takes over the worth of the residents of `layer`.
    #[inline(always)]
    fn reprice(&mut self, layer: usize) {
        let row = self.row(layer);
        let worth = self.value.worth(layer);
        for (price, &worth) in self.prices[row].iter_mut().zip(worth) {
            *price = if *price < ABSENT { worth } else { ABSENT };
        }
        self.cheapest[layer] = None;
    }

    #[inline(always)]
    fn learn(&mut self, event: &Event) {
        let also = self.value.learn(event);
        self.layer = event.layer as usize;
        self.reprice(self.layer);
        if let Some(layer) = also {
            self.reprice(layer);
        }
    }

    /// What the price of an expert of `layer` is multiplied by.
    fn factor(&self, layer: usize) -> f32 {
        let distance = if layer > self.layer {
            layer - self.layer
        } else {
            self.shape.n_layers() as usize + layer - self.layer
        };
        self.nearness[distance] * self.costs[layer]
    }

    /// The cheapest resident of `layer` below `price` for which `pinned` is false.
    fn cheapest_unpinned(
        &self,
        layer: usize,
        mut below: f32,
        pinned: &dyn Fn(ExpertId) -> bool,
    ) -> Option<(f32, usize)> {
        let mut cheapest = None;
        for (expert, &price) in self.prices[self.row(layer)].iter().enumerate() {
            let id = ExpertId {
                layer: layer as u32,
                expert: expert as u32,
            };
            if price < below && !pinned(id) {
                below = price;
                cheapest = Some((price, expert));
            }
        }
        cheapest
    }
}

/// Learning from an event, compiled for what the processor offers; the operations and their order are
/// the same for all.
struct Learn<'a, 'b>(&'a mut Reuse, &'a Event<'b>);

impl pulp::WithSimd for Learn<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) {
        self.0.learn(self.1);
    }
}

impl Policy for Reuse {
    fn resize(&mut self, n_slots: u32) {
        self.value.resize(n_slots);
    }

    fn prime(&mut self, prior: &Prior) {
        self.value.prime(prior);
        (0..self.rows.len()).for_each(|layer| self.reprice(layer));
    }

    fn route(&mut self, event: &Event) {
        let arch = self.arch;
        arch.dispatch(Learn(self, event));
    }

    fn insert(&mut self, id: ExpertId) {
        let place = self.place(id);
        debug_assert_eq!(self.prices[place], ABSENT, "{id} inserted twice");
        self.prices[place] = self.value.worth(id.layer as usize)[id.expert as usize];
        self.cheapest[id.layer as usize] = None;
    }

    fn remove(&mut self, id: ExpertId) {
        let place = self.place(id);
        debug_assert_ne!(self.prices[place], ABSENT, "{id} is not resident");
        self.prices[place] = ABSENT;
        self.cheapest[id.layer as usize] = None;
    }

    fn evict(&mut self, pinned: &dyn Fn(ExpertId) -> bool) -> Option<ExpertId> {
        let mut victim = None;
        let mut lowest = ABSENT;
        for layer in 0..self.rows.len() {
            let (price, expert) = match self.cheapest[layer] {
                Some(known) => known,
                None => {
                    let found = least(&self.prices[self.row(layer)]);
                    *self.cheapest[layer].insert(found)
                }
            };
            let factor = self.factor(layer);
            if price * factor >= lowest {
                continue;
            }
            let id = |expert: usize| ExpertId {
                layer: layer as u32,
                expert: expert as u32,
            };
            let free = match pinned(id(expert)) {
                false => Some((price, expert)),
                true => self.cheapest_unpinned(layer, ABSENT, pinned),
            };
            if let Some((price, expert)) = free.filter(|(price, _)| price * factor < lowest) {
                lowest = price * factor;
                victim = Some(id(expert));
            }
        }
        self.remove(victim?);
        victim
    }

    fn validate(&self) {
        for layer in 0..self.rows.len() {
            let n_experts = self.shape.n_experts(layer as u32) as usize;
            let row = &self.prices[self.row(layer)];
            assert!(row[n_experts..].iter().all(|&price| price == ABSENT));
            for (expert, (&price, &worth)) in row.iter().zip(self.value.worth(layer)).enumerate() {
                assert!((0.0..=1.0).contains(&worth), "layer {layer} expert {expert}: {worth}");
                assert!(price == ABSENT || price == worth, "layer {layer} expert {expert}");
            }
            if let Some(known) = self.cheapest[layer] {
                assert_eq!(known, least(row));
            }
        }
    }
}
