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

mod approximate;
mod histories;
mod history;
mod table;
mod value;

use crate::expert::{Event, ExpertId, Shape};
use crate::policy::contract::{Policy, Prior};
use approximate::least;
pub(super) use history::Memory;
use std::ops::Range;
use value::Value;
pub(super) use value::{Recipe, Votes};

/// An expert that is not resident is worth more than any that is.
const ABSENT: f32 = f32::INFINITY;

/// A policy made of a recipe for values.
pub(super) struct Reuse {
    shape: Shape,
    value: Value,
    /// What each resident is worth, [`ABSENT`] for others and the padding; laid out like values.
    prices: Vec<f32>,
    /// By layer: price, times the layer's cost, and number of the cheapest resident. Out of date for
    /// the layers in `changed`.
    cheapest: Vec<f32>,
    cheapest_expert: Vec<u32>,
    changed: Vec<usize>,
    /// By layer: whether it is in `changed`.
    has_changed: Vec<bool>,
    /// The layer of the last event.
    layer: usize,
    /// What prices are multiplied by in layers at a distance of 1, 2 and so on.
    nearness: Vec<f32>,
    /// By layer: what reading an expert costs, 1 on average.
    costs: Vec<f32>,
    arch: pulp::Arch,
}

impl Reuse {
    /// No residents.
    pub(super) fn new(shape: &Shape, recipe: &'static Recipe) -> Self {
        let n_layers = shape.n_layers() as usize;
        let bytes: Vec<f32> = (0..shape.n_layers())
            .map(|l| shape.expert_bytes(l) as f32)
            .collect();
        let mean_bytes = bytes.iter().sum::<f32>() / n_layers.max(1) as f32;
        let value = Value::new(shape, recipe);
        Self {
            shape: shape.clone(),
            prices: vec![ABSENT; value.n_places()],
            value,
            cheapest: vec![ABSENT; n_layers],
            cheapest_expert: vec![0; n_layers],
            changed: Vec::with_capacity(n_layers),
            has_changed: vec![false; n_layers],
            layer: 0,
            nearness: (1..=n_layers)
                .map(|distance| (n_layers as f32 / distance as f32).sqrt())
                .collect(),
            costs: bytes.iter().map(|b| b / mean_bytes.max(1.0)).collect(),
            arch: pulp::Arch::new(),
        }
    }

    fn place(&self, id: ExpertId) -> usize {
        self.row(id.layer as usize).start + id.expert as usize
    }

    /// Where prices of `layer` are, side by side with what experts are worth.
    #[inline(always)]
    fn row(&self, layer: usize) -> Range<usize> {
        self.value.row(layer)
    }

    /// Takes over the worth of the residents of `layer`.
    #[inline(always)]
    fn reprice(&mut self, layer: usize) {
        let row = self.row(layer);
        let worth = self.value.worth(layer);
        for (price, &worth) in self.prices[row].iter_mut().zip(worth) {
            *price = if *price < ABSENT { worth } else { ABSENT };
        }
        self.note_change(layer);
    }

    fn note_change(&mut self, layer: usize) {
        if !std::mem::replace(&mut self.has_changed[layer], true) {
            self.changed.push(layer);
        }
    }

    /// Looks for the cheapest residents of the layers that have changed.
    #[inline(always)]
    fn search_changed(&mut self) {
        while let Some(layer) = self.changed.pop() {
            let (price, expert) = least(&self.prices[self.row(layer)]);
            self.cheapest[layer] = price * self.costs[layer];
            self.cheapest_expert[layer] = expert as u32;
            self.has_changed[layer] = false;
        }
    }

    #[inline(always)]
    fn learn(&mut self, event: &Event) {
        let is_first = !self.value.has_begun();
        self.value.learn(event);
        let again = self.value.judge_again(event);
        self.layer = event.layer as usize;
        if is_first {
            (0..self.cheapest.len()).for_each(|layer| self.reprice(layer));
            return;
        }
        self.reprice(self.layer);
        for layer in again {
            self.reprice(layer);
        }
    }

    /// Layers in the order of their next visit, with their cheapest resident's price and what to
    /// multiply it by.
    fn by_distance(&self) -> impl Iterator<Item = (usize, f32, f32)> {
        let (until, after) = self
            .cheapest
            .split_at((self.layer + 1).min(self.cheapest.len()));
        let after = (self.layer + 1..).zip(after);
        let ordered = after.chain((0..).zip(until));
        ordered
            .zip(&self.nearness)
            .map(|((layer, &price), &nearness)| (layer, price, nearness))
    }

    /// The cheapest victim, pinned or not.
    fn cheapest_of_all(&self) -> Option<(f32, ExpertId)> {
        let mut lowest = (ABSENT, 0);
        for (layer, price, nearness) in self.by_distance() {
            if price * nearness < lowest.0 {
                lowest = (price * nearness, layer);
            }
        }
        let (price, layer) = lowest;
        let id = |expert| ExpertId {
            layer: layer as u32,
            expert,
        };
        (price < ABSENT).then(|| (price, id(self.cheapest_expert[layer])))
    }

    /// As `cheapest_of_all`, leaving out those for which `pinned` is true.
    fn cheapest_unpinned(&self, pinned: &dyn Fn(ExpertId) -> bool) -> Option<ExpertId> {
        let mut lowest = ABSENT;
        let mut victim = None;
        for (layer, cheapest, nearness) in self.by_distance() {
            if cheapest * nearness >= lowest {
                continue;
            }
            let factor = self.costs[layer] * nearness;
            for (expert, &price) in self.prices[self.row(layer)].iter().enumerate() {
                let id = ExpertId {
                    layer: layer as u32,
                    expert: expert as u32,
                };
                if price * factor < lowest && !pinned(id) {
                    lowest = price * factor;
                    victim = Some(id);
                }
            }
        }
        victim
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

/// The search for the cheapest, likewise.
struct Search<'a>(&'a mut Reuse);

impl pulp::WithSimd for Search<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) {
        self.0.search_changed();
    }
}

impl Policy for Reuse {
    fn resize(&mut self, n_slots: u32) {
        self.value.resize(n_slots);
    }

    fn prime(&mut self, prior: &Prior) {
        self.value.prime(prior);
        (0..self.cheapest.len()).for_each(|layer| self.reprice(layer));
    }

    fn route(&mut self, event: &Event) {
        if self.value.all_fit() {
            return;
        }
        let arch = self.arch;
        arch.dispatch(Learn(self, event));
    }

    fn insert(&mut self, id: ExpertId) {
        let place = self.place(id);
        debug_assert_eq!(self.prices[place], ABSENT, "{id} inserted twice");
        self.prices[place] = self.value.worth(id.layer as usize)[id.expert as usize];
        self.note_change(id.layer as usize);
    }

    fn evict_this(&mut self, id: ExpertId) {
        let place = self.place(id);
        debug_assert_ne!(self.prices[place], ABSENT, "{id} is not resident");
        self.prices[place] = ABSENT;
        self.note_change(id.layer as usize);
    }

    fn evict(&mut self, pinned: &dyn Fn(ExpertId) -> bool) -> Option<ExpertId> {
        let arch = self.arch;
        arch.dispatch(Search(self));
        let (_, cheapest) = self.cheapest_of_all()?;
        let victim = match pinned(cheapest) {
            false => cheapest,
            true => self.cheapest_unpinned(pinned)?,
        };
        self.evict_this(victim);
        Some(victim)
    }

    fn validate(&self) {
        for layer in 0..self.cheapest.len() {
            let n_experts = self.shape.n_experts(layer as u32) as usize;
            let row = &self.prices[self.row(layer)];
            assert!(row[n_experts..].iter().all(|&price| price == ABSENT));
            for (expert, (&price, &worth)) in row.iter().zip(self.value.worth(layer)).enumerate() {
                assert!(
                    (0.0..=1.0).contains(&worth),
                    "layer {layer} expert {expert}: {worth}"
                );
                assert!(
                    price == ABSENT || price == worth,
                    "layer {layer} expert {expert}"
                );
            }
            assert_eq!(self.has_changed[layer], self.changed.contains(&layer));
            if !self.has_changed[layer] {
                let (price, expert) = least(row);
                let known = (self.cheapest[layer], self.cheapest_expert[layer] as usize);
                assert_eq!(known, (price * self.costs[layer], expert), "layer {layer}");
            }
        }
    }
}
