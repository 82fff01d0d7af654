//! Least recently used: the baseline every other policy is compared to, and what llama.cpp's own
//! expert cache for GPUs does.
//!
//! It hits nothing when fewer experts fit than one token uses: each is evicted just before its turn.

use super::scored::{Score, Scored};
use super::{Event, Spec};

pub(super) const SPEC: Spec = Spec {
    name: "lru",
    about: "evict the expert that generation used longest ago",
    source: "classic; llama.cpp's GPU expert cache",
    param: None,
    build: |shape, _| {
        let score = Lru {
            n_events: 0,
            used: vec![0; shape.n_total()],
            n_prompt_rows: vec![0; shape.n_total()],
        };
        Box::new(Scored::new(shape, score))
    },
};

/// Experts that only prompts have used are colder than all others; among them the one fewest
/// prompt tokens picked goes first. Of one event the smallest expert counts as the oldest.
struct Lru {
    /// Events seen, except prompts.
    n_events: u64,
    /// The value of `n_events` at the last use; 0 is never.
    used: Vec<u64>,
    n_prompt_rows: Vec<u64>,
}

impl Score for Lru {
    type Key = (u64, u64);

    fn route(&mut self, event: &Event, first: usize) {
        if event.is_scan() {
            for (&expert, &rows) in event.experts.iter().zip(event.rows) {
                self.n_prompt_rows[first + expert as usize] += u64::from(rows);
            }
            return;
        }
        self.n_events += 1;
        for &expert in event.experts {
            self.used[first + expert as usize] = self.n_events;
        }
    }

    fn key(&self, _layer: u32, index: usize) -> Self::Key {
        (self.used[index], self.n_prompt_rows[index])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::expert::{ExpertId, Shape};
    use crate::policy::Policy;

    #[test]
    fn a_prompt_does_not_touch_the_order() {
        let mut lru: Box<dyn Policy> = (SPEC.build)(&Shape::uniform(1, 4), 0);
        let mut route = |n_tokens, experts: &[u32]| {
            lru.route(&Event {
                layer: 0,
                n_tokens,
                experts,
                rows: &[9, 1][..experts.len()],
            });
        };
        route(1, &[3]);
        route(1, &[0]);
        route(100, &[2, 3]);
        route(100, &[1]);
        for expert in 0..4 {
            lru.insert(ExpertId { layer: 0, expert });
        }
        let evicted = std::iter::from_fn(|| lru.evict(&|_| false)).map(|id| id.expert);
        // Two that only prompts used, by rows (ties by number), then those of generation by age.
        assert_eq!(evicted.collect::<Vec<_>>(), [1, 2, 3, 0]);
    }
}
