//! Least frequently used with dynamic ageing: counts compete with those of experts evicted lately.
//!
//! Each eviction raises the age to the victim's priority, and an expert that is used starts from the
//! age: so an old count is overtaken in the end. Counts end at 12 and are halved when evicted.

use crate::expert::{Event, Shape};
use crate::policy::contract::{Prior, Spec};
use crate::policy::recency::Recency;
use crate::policy::scored::{Score, Scored, weight};

pub(in crate::policy) const SPEC: Spec = Spec {
    name: "lfuda",
    about: "evict the lowest count plus the age, which rises with evictions, at the last use",
    when: "when more than a quarter fits; loses to lru below",
    source: "LFU with dynamic ageing (Arlitt et al. 2000), counts up to 12, halved when evicted",
    param: None,
    build: |shape, _| Box::new(Scored::new(shape, Lfuda::new(shape))),
};

/// A count ends here, or an expert hot for an hour would be resident for another.
const COUNT_MAX: f64 = 12.0;

/// Ties go to the expert that generation used longer ago.
struct Lfuda {
    /// The priority of the last victim.
    age: f64,
    /// By dense index: tokens that picked it; a prompt adds fractions.
    count: Vec<f64>,
    /// By dense index: the count at the last use, plus the age then.
    priority: Vec<f64>,
    recency: Recency,
}

impl Lfuda {
    fn new(shape: &Shape) -> Self {
        Self {
            age: 0.0,
            count: vec![0.0; shape.n_total()],
            priority: vec![0.0; shape.n_total()],
            recency: Recency::new(shape.n_total()),
        }
    }
}

impl Score for Lfuda {
    type Key = (f64, (u64, f32));

    fn prime(&mut self, prior: &Prior) {
        self.recency.prime(prior);
        for (index, &share) in prior.frequency.iter().enumerate() {
            let expected = f64::from(share) * f64::from(prior.n_tokens);
            let count = (self.count[index] + expected).min(COUNT_MAX);
            self.priority[index] += count - self.count[index];
            self.count[index] = count;
        }
    }

    fn route(&mut self, event: &Event, first: usize) {
        self.recency.route(event, first);
        for (&expert, &rows) in event.experts.iter().zip(event.rows) {
            let index = first + expert as usize;
            let count = (self.count[index] + weight(event, rows)).min(COUNT_MAX);
            if event.is_prefill() {
                // No use: starting from the age would lift what only the prompt used above the rest.
                self.priority[index] += count - self.count[index];
            } else {
                self.priority[index] = count + self.age;
            }
            self.count[index] = count;
        }
    }

    fn key(&self, layer: u32, index: usize) -> Self::Key {
        (self.priority[index], self.recency.key(layer, index))
    }

    fn evicted(&mut self, index: usize) {
        self.age = self.priority[index];
        self.count[index] *= 0.5;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::testing::replay;

    /// `d`, used once, starts from the age and outlives the older `a`, used twice; `b` comes back with
    /// half its count and outlives the newer `f`.
    #[test]
    fn an_old_count_is_overtaken() {
        assert_eq!(replay("lfuda", 2, "aabcdebfg"), "+.+bcadef");
    }

    #[test]
    fn a_count_ends_at_twelve() {
        let picks = "a".repeat(40) + "bcdefghijklmnopqrstuvwxyz";
        let expected = ".".repeat(39) + "+bcdefghijklmnopqrstuvwax";
        assert_eq!(replay("lfuda", 2, &picks)[1..], expected);
    }

    #[test]
    fn a_prompt_is_no_use() {
        let mut lfuda = Lfuda::new(&Shape::uniform(1, 2));
        lfuda.age = 8.0;
        let mut route = |n_tokens, rows: &[u32; 2]| {
            let event = Event {
                layer: 0,
                n_tokens,
                experts: &[0, 1],
                rows,
                ..Event::default()
            };
            lfuda.route(&event, 0);
            lfuda.priority.clone()
        };
        assert_eq!(route(100, &[25, 50]), [0.25, 0.5]);
        assert_eq!(route(2, &[1, 2]), [9.25, 10.5]);
    }
}
