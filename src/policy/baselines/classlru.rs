//! Class LRU: one list for each power of two of a decayed count, and ages compared across the lists.
//!
//! Made from a description of llama.cpp's GPU expert cache after b12032, not from its code: lists by
//! `floor(log2(count))`, where the count is one of recency and frequency with a half-life of 128
//! tokens that is kept across evictions; the victim is the oldest of the list whose oldest has the
//! largest `age / 2^class`. What the description leaves open is decided here: the clock of a pool
//! counts the tokens of each event, so that a token of all layers is `n_layers` ticks.

use super::lists::Lists;
use super::queued::{Queued, Queues};
use crate::expert::{Event, Shape};
use crate::policy::contract::{Prior, Spec};

pub(in crate::policy) const SPEC: Spec = Spec {
    name: "classlru",
    about: "evict the oldest for its class, which is the logarithm of its decayed count",
    when: "to compare with llama.cpp",
    source: "as llama.cpp's GPU expert cache after b12032 is described: class LRU",
    param: None,
    build: |shape, _| Box::new(Queued::new(shape, ClassLru::new(shape))),
};

const HALF_LIFE_TOKENS: f64 = 128.0;

/// Picked by every token an expert counts up to 185, or 201 in batches of 32: so only a prior ends here.
const COUNT_MAX: f64 = 255.0;

struct ClassLru {
    half_life: f64,
    /// Tokens of generation, of each layer.
    now: u64,
    /// By dense index.
    counts: Vec<Count>,
}

/// What is known of an expert, resident or not.
#[derive(Clone, Default)]
struct Count {
    /// The tokens that picked it, less those forgotten by `counted_at`.
    n_tokens: f64,
    counted_at: u64,
    picked_at: u64,
}

impl ClassLru {
    fn new(shape: &Shape) -> Self {
        Self {
            half_life: HALF_LIFE_TOKENS * f64::from(shape.n_layers()),
            now: 0,
            counts: vec![Count::default(); shape.n_total()],
        }
    }

    fn add(&mut self, index: usize, n_tokens: f64) {
        let count = &mut self.counts[index];
        let age = (self.now - count.counted_at) as f64;
        let left = count.n_tokens * libm::exp2(-age / self.half_life);
        count.n_tokens = (left + n_tokens).min(COUNT_MAX);
        count.counted_at = self.now;
    }

    /// The class that `index`, which was just picked, is in until it is picked again.
    fn enlist(&self, index: u32, lists: &mut Lists) {
        let n_tokens = self.counts[index as usize].n_tokens.max(1.0);
        lists.push(index, (n_tokens as u32).ilog2() as u8);
    }
}

impl Queues for ClassLru {
    const N_LISTS: u8 = 8;
    const N_RESIDENT_LISTS: u8 = 8;

    fn resize(&mut self, _n_slots: u32, _lists: &mut Lists) {}

    fn prime(&mut self, prior: &Prior) {
        for (index, &share) in prior.frequency.iter().enumerate() {
            self.add(index, f64::from(share) * f64::from(prior.n_tokens));
        }
    }

    fn route(&mut self, event: &Event, first: usize) {
        if event.is_prefill() {
            return;
        }
        self.now += u64::from(event.n_tokens);
        for (&expert, &rows) in event.experts.iter().zip(event.rows) {
            let index = first + expert as usize;
            self.add(index, f64::from(rows));
            self.counts[index].picked_at = self.now;
        }
    }

    fn hit(&mut self, index: u32, _rows: u32, lists: &mut Lists) {
        self.enlist(index, lists);
    }

    fn arrive(&mut self, index: u32, lists: &mut Lists) {
        self.enlist(index, lists);
    }

    fn evict(&mut self, pinned: &dyn Fn(u32) -> bool, lists: &mut Lists) -> Option<u32> {
        let mut victim = None;
        for class in 0..Self::N_LISTS {
            let Some(oldest) = lists.oldest_free(&[class], pinned) else {
                continue;
            };
            let age = self.now - self.counts[oldest as usize].picked_at;
            let age = age as f64 / f64::from(1u32 << class);
            if victim.is_none_or(|(largest, _)| age > largest) {
                victim = Some((age, oldest));
            }
        }
        let (_, victim) = victim?;
        lists.take(victim);
        Some(victim)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::testing::replay;

    /// `a`, picked three times, is of class 1: of what was picked once since, `d` goes later, because it is not half as old.
    #[test]
    fn an_age_counts_half_in_the_next_class() {
        assert_eq!(replay("classlru", 3, "aaabcdefgh"), "+..++bcade");
    }

    /// Only with its earlier picks `a` is of class 1 when it comes back, and outlives `f`.
    #[test]
    fn counts_outlive_evictions() {
        assert_eq!(replay("classlru", 3, "aabcdeafghij"), "+.++abcdefga");
    }

    /// Half of what was counted is left after 128 tokens of both layers.
    #[test]
    fn counts_halve_every_128_tokens() {
        let mut policy = ClassLru::new(&Shape::uniform(2, 2));
        let event = |layer, n_tokens, rows| Event {
            layer,
            n_tokens,
            experts: &[0],
            rows,
            ..Event::default()
        };
        for expected in [1.0, 1.5, 1.75] {
            policy.route(&event(0, 1, &[1]), 0);
            assert_eq!(policy.counts[0].n_tokens, expected);
            for _ in 0..15 {
                policy.route(&event(1, 17, &[17]), 2);
            }
        }
    }
}
