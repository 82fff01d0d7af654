//! Layer-aware LRU: as cheap as LRU, and it hits when less fits than one token uses.
//!
//! A model runs its layers in a circle. Of two experts that missed equally many visits of their
//! layers, the one whose layer comes later is needed later, whichever was used longer ago.

use crate::expert::{Event, Shape};
use crate::policy::contract::{Prior, Spec};
use crate::policy::recency::Foretold;
use crate::policy::scored::{Score, Scored};

pub(in crate::policy) const SPEC: Spec = Spec {
    name: "layered",
    about: "evict what missed most visits of its layer, then what is farthest from its layer's turn",
    when: "instead of lru: it never lost to lru on recorded routing, and hits when little fits",
    source: "LRU whose age is the visits of the layer, ties by the circle of layers",
    param: None,
    build: |shape, _| Box::new(Scored::new(shape, Layered::new(shape))),
};

/// Visits are events of generation. Experts it has not used are colder than all others.
struct Layered {
    /// Of the last event.
    layer: u32,
    n_layers: u32,
    /// By layer.
    n_visits: Vec<u64>,
    /// By dense index: `n_visits` of the layer at the last use; 0 is never.
    used: Vec<u64>,
    foretold: Foretold,
}

impl Layered {
    fn new(shape: &Shape) -> Self {
        Self {
            layer: 0,
            n_layers: shape.n_layers(),
            n_visits: vec![0; shape.n_layers() as usize],
            used: vec![0; shape.n_total()],
            foretold: Foretold::new(shape.n_total()),
        }
    }

    /// How many events it takes to come to `layer`: 1 for the layer after that of the last event, the
    /// whole circle for that layer itself.
    fn distance(&self, layer: u32) -> u32 {
        if layer > self.layer {
            layer - self.layer
        } else {
            self.n_layers - self.layer + layer
        }
    }
}

impl Score for Layered {
    /// Whether it was used, else what was foretold, then negative: visits missed and the distance.
    type Key = (bool, f32, i64, i64);

    fn prime(&mut self, prior: &Prior) {
        self.foretold.prime(prior);
    }

    fn route(&mut self, event: &Event, first: usize) {
        self.layer = event.layer;
        self.foretold.route(event, first);
        if event.is_prefill() {
            return;
        }
        let n_visits = &mut self.n_visits[event.layer as usize];
        *n_visits += 1;
        for &expert in event.experts {
            self.used[first + expert as usize] = *n_visits;
        }
    }

    fn key(&self, layer: u32, index: usize) -> Self::Key {
        let distance = -i64::from(self.distance(layer));
        match self.used[index] {
            0 => (false, self.foretold.key(layer, index), 0, distance),
            used => {
                let n_missed = self.n_visits[layer as usize] - used;
                (true, 0.0, -(n_missed as i64), distance)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::policy::testing::replay;

    /// `a` and `A` missed one visit each. Layer 0 comes next, so `A` goes, which was used later.
    #[test]
    fn the_layer_that_comes_last_goes_first() {
        assert_eq!(replay("layered", 3, "aAbB"), "+++A");
    }

    /// `a` is the oldest, but its layer was not visited since.
    #[test]
    fn an_age_is_the_visits_of_the_layer() {
        assert_eq!(replay("layered", 3, "aABCDE"), "+++ABC");
    }
}
