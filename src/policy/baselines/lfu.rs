//! Least frequently used: for one unchanging workload, or as the picture of a static pin list.
//!
//! Counts last for the life of the process, resident or not, so it follows a new topic slowly.

use crate::expert::Event;
use crate::policy::contract::{Prior, Spec};
use crate::policy::recency::Recency;
use crate::policy::scored::{Score, Scored, weight};

pub(in crate::policy) const SPEC: Spec = Spec {
    name: "lfu",
    about: "evict the expert picked by the fewest tokens since the start",
    when: "one workload that does not change; follows a new topic slowly and then loses to lru",
    source: "classic, with the counts of evicted experts kept",
    param: None,
    build: |shape, _| {
        let score = Lfu {
            count: vec![0.0; shape.n_total()],
            recency: Recency::new(shape.n_total()),
        };
        Box::new(Scored::new(shape, score))
    },
};

/// Ties go to the expert that generation used longer ago.
struct Lfu {
    /// Tokens that picked each expert, those of the prior included; a prompt adds fractions.
    count: Vec<f64>,
    recency: Recency,
}

impl Score for Lfu {
    type Key = (f64, (u64, f32));

    fn prime(&mut self, prior: &Prior) {
        self.recency.prime(prior);
        for (count, &share) in self.count.iter_mut().zip(prior.frequency) {
            *count += f64::from(share) * f64::from(prior.n_tokens);
        }
    }

    fn route(&mut self, event: &Event, first: usize) {
        self.recency.route(event, first);
        for (&expert, &rows) in event.experts.iter().zip(event.rows) {
            self.count[first + expert as usize] += weight(event, rows);
        }
    }

    fn key(&self, layer: u32, index: usize) -> Self::Key {
        (self.count[index], self.recency.key(layer, index))
    }
}

#[cfg(test)]
mod tests {
    use crate::expert::{Event, ExpertId, Shape};
    use crate::policy::{Prior, by_name};

    #[test]
    fn a_prior_counts_as_so_many_tokens() {
        for (n_tokens, coldest) in [(8.0, 0), (16.0, 1)] {
            let mut lfu = by_name("lfu", &Shape::uniform(1, 2)).expect("it is in the registry");
            lfu.prime(&Prior {
                frequency: &[0.5, 0.25],
                n_tokens,
            });
            for _ in 0..3 {
                lfu.route(&Event {
                    layer: 0,
                    n_tokens: 1,
                    experts: &[1],
                    rows: &[1],
                    ..Event::default()
                });
            }
            for expert in [0, 1] {
                lfu.insert(ExpertId { layer: 0, expert });
            }
            // 0.5 of the tokens against 0.25 and 3 more.
            let victim = lfu.evict(&|_| false).map(|id| id.expert);
            assert_eq!(victim, Some(coldest), "{n_tokens} tokens");
        }
    }
}
