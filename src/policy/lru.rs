//! Least recently used: the baseline every other policy is compared to, and what llama.cpp's own
//! expert cache for GPUs did at b11549.
//!
//! It hits nothing when fewer experts fit than one token uses: each is evicted just before its turn.
//! Of one event the smallest expert counts as the oldest.

use super::contract::Spec;
use super::recency::Recency;
use super::scored::Scored;

pub(super) const SPEC: Spec = Spec {
    name: "lru",
    about: "evict the expert that generation used longest ago",
    when: "as the baseline to compare with; it hits nothing when less fits than one token uses",
    source: "classic; llama.cpp's GPU expert cache at b11549",
    param: None,
    build: |shape, _| Box::new(Scored::new(shape, Recency::new(shape.n_total()))),
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::expert::{Event, ExpertId, Shape};
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
                ..Event::default()
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
