//! Sliding window: what was picked lately counts in full, what is older not at all.
//!
//! The window is exact: each layer remembers the picks of its last visits, 8 bytes for each.

use crate::expert::{Event, Shape};
use crate::policy::contract::{Param, Prior, Spec};
use crate::policy::recency::Recency;
use crate::policy::scored::{Score, Scored};
use std::collections::VecDeque;

pub(in crate::policy) const SPEC: Spec = Spec {
    name: "window",
    about: "evict the expert picked by the fewest tokens in the last visits of its layer",
    when: "like decay and nearly as good, where what is older must count for nothing",
    source: "sliding-window LFU (Karakostas and Serpanos 2002), one window per layer",
    param: Some(Param {
        name: "length in tokens",
        default: 64,
        min: 1,
        max: 4096,
    }),
    build: |shape, n_visits| Box::new(Scored::new(shape, SlidingWindow::new(shape, n_visits))),
};

/// What a token adds to a count. A prompt adds fractions, and must take exactly those out again when
/// it leaves the window: so counts are integers.
const TOKEN: u32 = 1 << 10;

/// Ties go to the expert that generation used longer ago.
struct SlidingWindow {
    /// The length of the window.
    n_visits_max: u32,
    /// By layer.
    visits: Vec<Visits>,
    /// By dense index: the sum of what the visits in the window add.
    count: Vec<u32>,
    /// By dense index: what a prior adds to `count` for each visit the window does not hold yet.
    /// Empty without a prior.
    expected: Vec<f32>,
    /// For at most this many visits.
    n_expected: f32,
    recency: Recency,
}

/// The visits of one layer that are in the window, oldest first.
#[derive(Default)]
struct Visits {
    /// How many picks each has.
    n_picks: VecDeque<u32>,
    /// Dense index, and what it added.
    picks: VecDeque<(u32, u32)>,
}

impl SlidingWindow {
    fn new(shape: &Shape, n_visits_max: u32) -> Self {
        Self {
            n_visits_max,
            visits: (0..shape.n_layers()).map(|_| Visits::default()).collect(),
            count: vec![0; shape.n_total()],
            expected: Vec::new(),
            n_expected: 0.0,
            recency: Recency::new(shape.n_total()),
        }
    }
}

/// What one expert of `event` adds to its count: see "What is learnt from a prefill".
fn added(event: &Event, rows: u32) -> u32 {
    let rows = rows.min(event.n_tokens);
    if event.is_prefill() {
        (u64::from(rows) * u64::from(TOKEN) / u64::from(event.n_tokens)) as u32
    } else {
        rows * TOKEN
    }
}

impl Score for SlidingWindow {
    type Key = (f64, (u64, f32));

    fn prime(&mut self, prior: &Prior) {
        self.recency.prime(prior);
        self.n_expected = prior.n_tokens;
        let expected = prior.frequency.iter().map(|share| share * TOKEN as f32);
        self.expected = expected.collect();
    }

    fn route(&mut self, event: &Event, first: usize) {
        self.recency.route(event, first);
        let Visits { n_picks, picks } = &mut self.visits[event.layer as usize];
        for (&expert, &rows) in event.experts.iter().zip(event.rows) {
            let index = first as u32 + expert;
            self.count[index as usize] += added(event, rows);
            picks.push_back((index, added(event, rows)));
        }
        n_picks.push_back(event.experts.len() as u32);
        if n_picks.len() > self.n_visits_max as usize {
            let n_oldest = n_picks.pop_front().map_or(0, |n| n as usize);
            for (index, added) in picks.drain(..n_oldest) {
                self.count[index as usize] -= added;
            }
        }
    }

    fn key(&self, layer: u32, index: usize) -> Self::Key {
        let mut count = f64::from(self.count[index]);
        if let Some(&expected) = self.expected.get(index) {
            let n_unseen = self.n_visits_max - self.visits[layer as usize].n_picks.len() as u32;
            count += f64::from(expected) * f64::from(self.n_expected).min(n_unseen.into());
        }
        (count, self.recency.key(layer, index))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The window against a sum over the history itself, prompts and batches included.
    #[test]
    fn a_count_is_the_sum_over_the_last_visits() {
        const N_VISITS_MAX: usize = 5;
        let mut window = SlidingWindow::new(&Shape::uniform(2, 4), N_VISITS_MAX as u32);
        let mut history: [Vec<[u32; 4]>; 2] = Default::default();
        for step in 0..200u32 {
            let layer = step * step % 3 % 2;
            let n_tokens = [1, 3, 37][step as usize % 3];
            let experts: Vec<u32> = (0..4).filter(|e| ((step * 5 % 16) >> e) & 1 == 1).collect();
            let rows: Vec<u32> = experts.iter().map(|e| 1 + e * step % n_tokens).collect();
            let first = 4 * layer as usize;
            window.route(
                &Event {
                    layer,
                    n_tokens,
                    experts: &experts,
                    rows: &rows,
                    ..Event::default()
                },
                first,
            );
            let mut visit = [0; 4];
            for (&expert, &rows) in experts.iter().zip(&rows) {
                visit[expert as usize] = match n_tokens {
                    37 => rows * TOKEN / 37,
                    _ => rows * TOKEN,
                };
            }
            let visits = &mut history[layer as usize];
            visits.push(visit);
            let last = &visits[visits.len().saturating_sub(N_VISITS_MAX)..];
            for expert in 0..4 {
                let count: u32 = last.iter().map(|visit| visit[expert]).sum();
                assert_eq!(
                    window.key(layer, first + expert).0,
                    f64::from(count),
                    "step {step}"
                );
            }
        }
    }

    #[test]
    fn a_prior_stands_for_the_visits_not_seen_yet() {
        let mut window = SlidingWindow::new(&Shape::uniform(1, 2), 4);
        window.prime(&Prior {
            frequency: &[0.5, 0.25],
            n_tokens: 3.0,
        });
        let event = Event {
            layer: 0,
            n_tokens: 1,
            experts: &[1],
            rows: &[1],
            ..Event::default()
        };
        for (n_visits, n_expected) in [(0, 3.0), (1, 3.0), (2, 2.0), (3, 1.0), (4, 0.0), (5, 0.0)] {
            let worth = |index| window.key(0, index).0 / f64::from(TOKEN);
            let n_seen = f64::from(n_visits.min(4));
            assert_eq!(worth(0), 0.5 * n_expected, "{n_visits} visits");
            assert_eq!(worth(1), 0.25 * n_expected + n_seen, "{n_visits} visits");
            window.route(&event, 0);
        }
    }
}
