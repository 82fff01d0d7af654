//! Exponentially decayed frequency: follows a changing topic, and works when little fits.
//!
//! An expert is worth the tokens that picked it, each halved for every half-life of visits of its
//! layer since; a visit is one event, however many tokens it has. Evicted experts keep their worth.

use super::contract::{Param, Prior, Spec};
use super::recency::Recency;
use super::scored::{Score, Scored, weight};
use crate::expert::{Event, Shape};

pub(super) const SPEC: Spec = Spec {
    name: "decay",
    about: "evict the expert with the lowest decayed frequency",
    when: "the best of the simple ones on recorded routing, above all when little fits",
    source: "LRFU (Lee et al. 2001) with ghost counts and age in visits of the layer",
    param: Some(Param {
        name: "half-life in tokens",
        default: 16,
        min: 1,
        max: 4096,
    }),
    build: |shape, half_life| Box::new(Scored::new(shape, Decay::new(shape, half_life))),
};

/// `unit` is scaled down when it exceeds this. A power of two, so that scaling rounds nothing
/// but values too old to matter.
const UNIT_MAX: f64 = (1u128 << 100) as f64;

/// Instead of shrinking all experts of a layer on each visit, the unit of the layer grows:
/// an expert is worth `value / unit`. Ties go to the expert that generation used longer ago.
struct Decay {
    shape: Shape,
    /// How much a unit grows per visit: the half-life'th root of 2.
    growth: f64,
    /// What a pick made now adds, by layer; between 1 and `UNIT_MAX`.
    unit: Vec<f64>,
    /// By dense index.
    value: Vec<f64>,
    recency: Recency,
}

impl Decay {
    fn new(shape: &Shape, half_life: u32) -> Self {
        Self {
            shape: shape.clone(),
            growth: libm::exp2(1.0 / f64::from(half_life)),
            unit: vec![1.0; shape.n_layers() as usize],
            value: vec![0.0; shape.n_total()],
            recency: Recency::new(shape.n_total()),
        }
    }
}

impl Score for Decay {
    type Key = (f64, (u64, f32));

    /// An expert picked at each of many visits is worth the geometric sum of what they add, to which
    /// a prior of very many tokens comes.
    fn prime(&mut self, prior: &Prior) {
        self.recency.prime(prior);
        let worth_max = self.growth / (self.growth - 1.0);
        let n_tokens = f64::from(prior.n_tokens).min(worth_max);
        for (index, &share) in prior.frequency.iter().enumerate() {
            let unit = self.unit[self.shape.id(index).layer as usize];
            self.value[index] += unit * f64::from(share) * n_tokens;
        }
    }

    fn route(&mut self, event: &Event, first: usize) {
        self.recency.route(event, first);
        let unit = &mut self.unit[event.layer as usize];
        *unit *= self.growth;
        if *unit > UNIT_MAX {
            *unit /= UNIT_MAX;
            let n_experts = self.shape.n_experts(event.layer) as usize;
            for value in &mut self.value[first..first + n_experts] {
                *value /= UNIT_MAX;
            }
        }
        for (&expert, &rows) in event.experts.iter().zip(event.rows) {
            self.value[first + expert as usize] += *unit * weight(event, rows);
        }
    }

    fn key(&self, layer: u32, index: usize) -> Self::Key {
        (
            self.value[index] / self.unit[layer as usize],
            self.recency.key(layer, index),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The worth of expert 0 after a pick by one token and `n_visits` more visits without it.
    fn worth_after(half_life: u32, n_visits: u32) -> f64 {
        let mut decay = Decay::new(&Shape::uniform(2, 2), half_life);
        for expert in std::iter::once(0).chain((0..n_visits).map(|_| 1)) {
            decay.route(&event(1, &[expert], &[1]), 2);
        }
        decay.key(1, 2).0
    }

    fn event<'a>(n_tokens: u32, experts: &'a [u32], rows: &'a [u32]) -> Event<'a> {
        Event {
            layer: 1,
            n_tokens,
            experts,
            rows,
            ..Event::default()
        }
    }

    #[test]
    fn worth_halves_every_half_life() {
        for half_life in [1, 16, 4096] {
            for (n_half_lives, expected) in [(0, 1.0), (1, 0.5), (5, 1.0 / 32.0)] {
                let worth = worth_after(half_life, half_life * n_half_lives);
                assert!(
                    (worth / expected - 1.0f64).abs() < 1e-9,
                    "half-life {half_life}, {n_half_lives} of them: {worth}, not {expected}"
                );
            }
        }
    }

    /// 250 visits at half-life 1 pass the point where the unit is scaled down twice.
    #[test]
    fn scaling_the_unit_changes_no_worth() {
        let expected = 0.5f64.powi(250);
        let worth = worth_after(1, 250);
        assert!(
            (worth / expected - 1.0).abs() < 1e-9,
            "{worth}, not {expected}"
        );
    }

    #[test]
    fn a_prompt_weighs_one_token() {
        let mut decay = Decay::new(&Shape::uniform(2, 2), 16);
        decay.route(&event(100, &[0, 1], &[100, 25]), 2);
        assert_eq!([decay.key(1, 2).0, decay.key(1, 3).0], [1.0, 0.25]);
    }

    /// What a prior of `n_tokens` makes of experts picked by every and by every fourth token.
    fn primed(half_life: u32, n_tokens: f32) -> [f64; 2] {
        let mut decay = Decay::new(&Shape::uniform(1, 2), half_life);
        decay.prime(&Prior {
            frequency: &[1.0, 0.25],
            n_tokens,
        });
        [decay.key(0, 0).0, decay.key(0, 1).0]
    }

    #[test]
    fn a_prior_is_worth_its_tokens_up_to_what_is_remembered() {
        assert_eq!(primed(16, 8.0), [8.0, 2.0]);
        let mut decay = Decay::new(&Shape::uniform(1, 1), 16);
        for _ in 0..2000 {
            decay.route(
                &Event {
                    layer: 0,
                    ..event(1, &[0], &[1])
                },
                0,
            );
        }
        let remembered = decay.key(0, 0).0;
        let worth = primed(16, 1e6);
        assert!((worth[0] / remembered - 1.0).abs() < 1e-9, "{worth:?}");
        assert_eq!(worth[1], worth[0] / 4.0);
    }
}
