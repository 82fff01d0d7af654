//! What the policies that rank by a key share: the set of residents and the search for the coldest.
//!
//! An event changes the order of one layer only, so each layer remembers its coldest resident until
//! then. An eviction compares those, and searches the layers that changed since the last one.

use super::contract::{Policy, Prior};
use crate::expert::{Event, ExpertId, Shape};

/// Says what each expert is worth; the expert with the smallest key is evicted.
pub(super) trait Score: Send {
    /// Equal keys are decided by the dense index, smallest first.
    type Key: PartialOrd;

    /// See [`Policy::prime`].
    fn prime(&mut self, prior: &Prior);

    /// Learns from one event; `first` is the dense index of its layer's expert 0.
    fn route(&mut self, event: &Event, first: usize);

    /// What the expert with dense index `index`, which is in `layer`, is worth. The order of two
    /// residents of one layer changes only by an event of that layer.
    fn key(&self, layer: u32, index: usize) -> Self::Key;

    /// This expert was chosen as a victim.
    fn evicted(&mut self, index: usize) {
        let _ = index;
    }
}

/// What one expert of `event` counts whose row count is `rows`: see "What is learnt from a prefill".
pub(super) fn weight(event: &Event, rows: u32) -> f64 {
    if event.is_prefill() {
        f64::from(rows) / f64::from(event.n_tokens)
    } else {
        f64::from(rows)
    }
}

/// `place` of an expert that is not resident.
const NOWHERE: u32 = u32::MAX;

/// A policy made of a score.
///
/// `layers[l].residents[place[i]]` is the expert with dense index `i`, for every resident and no
/// other. The order of `residents` depends on the history and decides nothing.
pub(super) struct Scored<S> {
    shape: Shape,
    score: S,
    layers: Vec<Layer>,
    place: Vec<u32>,
}

#[derive(Default)]
struct Layer {
    residents: Vec<ExpertId>,
    /// The one of the smallest key, pinned or not; `None` if that is to be found out.
    coldest: Option<ExpertId>,
}

impl<S: Score> Scored<S> {
    /// No residents.
    pub(super) fn new(shape: &Shape, score: S) -> Self {
        Self {
            shape: shape.clone(),
            score,
            layers: (0..shape.n_layers()).map(|_| Layer::default()).collect(),
            place: vec![NOWHERE; shape.n_total()],
        }
    }

    /// Whether the expert with dense index `index` is resident.
    pub(super) fn holds(&self, index: usize) -> bool {
        self.place[index] != NOWHERE
    }

    /// Keys of different experts are never equal.
    fn key(&self, id: ExpertId) -> (S::Key, usize) {
        let index = self.shape.index(id);
        (self.score.key(id.layer, index), index)
    }

    /// The coldest resident of `layer` for which `pinned` is false.
    fn search(&self, layer: usize, pinned: &dyn Fn(ExpertId) -> bool) -> Option<ExpertId> {
        let mut coldest = None;
        for &id in &self.layers[layer].residents {
            let key = self.key(id);
            if coldest.as_ref().is_none_or(|(least, _)| key < *least) && !pinned(id) {
                coldest = Some((key, id));
            }
        }
        coldest.map(|(_, id)| id)
    }
}

impl<S: Score> Policy for Scored<S> {
    fn prime(&mut self, prior: &Prior) {
        self.score.prime(prior);
        self.layers
            .iter_mut()
            .for_each(|layer| layer.coldest = None);
    }

    fn route(&mut self, event: &Event) {
        self.layers[event.layer as usize].coldest = None;
        let first = self.shape.index(ExpertId {
            layer: event.layer,
            expert: 0,
        });
        self.score.route(event, first);
    }

    fn insert(&mut self, id: ExpertId) {
        let layer = &mut self.layers[id.layer as usize];
        let place = &mut self.place[self.shape.index(id)];
        debug_assert_eq!(*place, NOWHERE, "{id} inserted twice");
        *place = layer.residents.len() as u32;
        layer.residents.push(id);
        layer.coldest = None;
    }

    fn evict_this(&mut self, id: ExpertId) {
        let layer = &mut self.layers[id.layer as usize];
        let place = std::mem::replace(&mut self.place[self.shape.index(id)], NOWHERE);
        debug_assert_ne!(place, NOWHERE, "{id} is not resident");
        layer.residents.swap_remove(place as usize);
        if let Some(&moved) = layer.residents.get(place as usize) {
            self.place[self.shape.index(moved)] = place;
        }
        // Without another one the coldest is still the coldest.
        layer.coldest = layer.coldest.filter(|&coldest| coldest != id);
    }

    fn evict(&mut self, pinned: &dyn Fn(ExpertId) -> bool) -> Option<ExpertId> {
        let mut victim = None;
        for layer in 0..self.layers.len() {
            let known = self.layers[layer].coldest;
            let coldest = known.or_else(|| self.search(layer, &|_| false));
            self.layers[layer].coldest = coldest;
            let Some(id) = coldest else { continue };
            let is_colder = |id| victim.is_none_or(|victim| self.key(id) < self.key(victim));
            if !is_colder(id) {
                continue;
            }
            let free = if pinned(id) {
                self.search(layer, pinned).filter(|&id| is_colder(id))
            } else {
                coldest
            };
            victim = free.or(victim);
        }
        self.evict_this(victim?);
        self.score.evicted(self.shape.index(victim?));
        victim
    }

    fn validate(&self) {
        let n_placed = self.place.iter().filter(|&&p| p != NOWHERE).count();
        let n_residents: usize = self.layers.iter().map(|l| l.residents.len()).sum();
        assert_eq!(n_placed, n_residents);
        for (number, layer) in self.layers.iter().enumerate() {
            for (place, &id) in layer.residents.iter().enumerate() {
                assert_eq!(id.layer as usize, number, "{id}");
                assert_eq!(self.place[self.shape.index(id)] as usize, place, "{id}");
            }
            let coldest = self.search(number, &|_| false);
            assert!(layer.coldest.is_none() || layer.coldest == coldest);
        }
    }
}
