//! A ranking that never changes: that of a profile, or else of the first tokens.
//!
//! It is what an engine with a fixed list of pinned experts does. The slots that the list does not
//! fill, and one miss at a time, go to what the ranking does not know, by recency.

use crate::expert::{Event, Shape};
use crate::policy::contract::{Param, Prior, Spec};
use crate::policy::recency::Recency;
use crate::policy::scored::{Score, Scored, weight};

pub(in crate::policy) const SPEC: Spec = Spec {
    name: "static",
    about: "evict the lowest in a profile, or without one in the counts of the first tokens",
    when: "with a profile of the very workload, or for comparison; it never adapts",
    source: "pin lists from a profile, as in several engines",
    param: Some(Param {
        name: "tokens to rank by without a profile",
        default: 512,
        min: 1,
        max: 1 << 20,
    }),
    build: |shape, n_visits| Box::new(Scored::new(shape, Static::new(shape, n_visits))),
};

/// Ties go to the expert that generation used longer ago.
struct Static {
    /// By layer: the visits that still count.
    n_visits_left: Vec<u32>,
    /// By dense index: tokens that picked the expert, or its share in the profile.
    rank: Vec<f32>,
    recency: Recency,
}

impl Static {
    fn new(shape: &Shape, n_visits: u32) -> Self {
        Self {
            n_visits_left: vec![n_visits; shape.n_layers() as usize],
            rank: vec![0.0; shape.n_total()],
            recency: Recency::new(shape.n_total()),
        }
    }
}

impl Score for Static {
    type Key = (f32, (u64, f32));

    /// How many tokens the prior is worth does not matter: nothing else will count.
    fn prime(&mut self, prior: &Prior) {
        self.recency.prime(prior);
        self.rank.copy_from_slice(prior.frequency);
        self.n_visits_left.fill(0);
    }

    fn route(&mut self, event: &Event, first: usize) {
        self.recency.route(event, first);
        let n_visits_left = &mut self.n_visits_left[event.layer as usize];
        if *n_visits_left == 0 {
            return;
        }
        *n_visits_left -= 1;
        for (&expert, &rows) in event.experts.iter().zip(event.rows) {
            self.rank[first + expert as usize] += weight(event, rows) as f32;
        }
    }

    fn key(&self, layer: u32, index: usize) -> Self::Key {
        (self.rank[index], self.recency.key(layer, index))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(layer: u32, experts: &[u32]) -> Event<'_> {
        Event {
            layer,
            n_tokens: 1,
            experts,
            rows: &[1, 1][..experts.len()],
            ..Event::default()
        }
    }

    #[test]
    fn each_layer_learns_from_its_first_visits_only() {
        let mut ranking = Static::new(&Shape::uniform(2, 2), 2);
        for _ in 0..5 {
            ranking.route(&event(0, &[0]), 0);
        }
        ranking.route(&event(1, &[0, 1]), 2);
        ranking.route(&event(0, &[1]), 0);
        ranking.route(&event(1, &[1]), 2);
        ranking.route(&event(1, &[0]), 2);
        assert_eq!(ranking.rank, [2.0, 0.0, 1.0, 2.0]);
    }

    #[test]
    fn a_profile_is_all_that_counts() {
        let mut ranking = Static::new(&Shape::uniform(1, 2), 2);
        ranking.prime(&Prior {
            frequency: &[0.5, 0.25],
            n_tokens: 1.0,
        });
        ranking.route(&event(0, &[1]), 0);
        assert_eq!(ranking.rank, [0.5, 0.25]);
    }
}
