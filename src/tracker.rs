//! How often each expert was picked and when last. The engine keeps it; no report shows it yet.

use crate::expert::{Event, ExpertId, Shape};
use std::cmp::Reverse;

/// What is known of one expert.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Tokens that picked it while generating.
    pub n_generated: u64,
    /// Tokens that picked it while reading a prompt. What is hot there is mostly not what is hot
    /// while generating, so the two are never added.
    pub n_prompt: u64,
    /// The visit of its layer that used it last, counted from 1; 0 is never.
    pub last_visit: u64,
}

/// The usage of every expert since the start.
#[derive(Debug)]
pub struct Tracker {
    shape: Shape,
    /// By dense index.
    usage: Vec<Usage>,
    /// By layer.
    n_visits: Vec<u64>,
}

impl Tracker {
    /// Nothing was used yet.
    pub fn new(shape: Shape) -> Self {
        Self {
            usage: vec![Usage::default(); shape.n_total()],
            n_visits: vec![0; shape.n_layers() as usize],
            shape,
        }
    }

    /// Counts one event, which the caller has checked against the shape.
    pub fn record(&mut self, event: &Event) {
        let n_visits = &mut self.n_visits[event.layer as usize];
        *n_visits += 1;
        let first = self.shape.index(ExpertId {
            layer: event.layer,
            expert: 0,
        });
        let is_scan = event.is_scan();
        for (&expert, &rows) in event.experts.iter().zip(event.rows) {
            let usage = &mut self.usage[first + expert as usize];
            usage.last_visit = *n_visits;
            if is_scan {
                usage.n_prompt += u64::from(rows);
            } else {
                usage.n_generated += u64::from(rows);
            }
        }
    }

    /// The usage of one expert. Panics if there is no such expert.
    pub fn usage(&self, id: ExpertId) -> Usage {
        self.usage[self.shape.index(id)]
    }

    /// Events of `layer`.
    pub fn n_visits(&self, layer: u32) -> u64 {
        self.n_visits[layer as usize]
    }

    /// The `n` experts of `layer` that generation picks most, hottest first; what prompts pick most
    /// decides ties, then the smaller number. Experts never used are left out.
    pub fn hottest(&self, layer: u32, n: usize) -> Vec<u32> {
        let usage = |expert| self.usage(ExpertId { layer, expert });
        let mut experts: Vec<u32> = (0..self.shape.n_experts(layer)).collect();
        experts.retain(|&expert| usage(expert).last_visit > 0);
        experts.sort_by_key(|&expert| Reverse((usage(expert).n_generated, usage(expert).n_prompt)));
        experts.truncate(n);
        experts
    }

    /// The share of all picks of `layer` while generating that its hottest quarter of experts got,
    /// rounded up to a whole expert: 0.25 is a flat router. `None` if nothing was generated.
    pub fn coverage_of_hottest_quarter(&self, layer: u32) -> Option<f64> {
        let n_generated = |expert| self.usage(ExpertId { layer, expert }).n_generated;
        let n_experts = self.shape.n_experts(layer);
        let total: u64 = (0..n_experts).map(n_generated).sum();
        let hottest = self.hottest(layer, n_experts.div_ceil(4) as usize);
        let covered: u64 = hottest.into_iter().map(n_generated).sum();
        (total > 0).then(|| covered as f64 / total as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tracker() -> Tracker {
        let mut tracker = Tracker::new(Shape::new(&[3, 5]));
        for (n_tokens, experts, rows) in [
            (1, &[0, 3][..], &[1, 1][..]),
            (2, &[1, 3], &[1, 2]),
            (40, &[2, 4], &[30, 40]),
        ] {
            tracker.record(&Event {
                layer: 1,
                n_tokens,
                experts,
                rows,
            });
        }
        tracker
    }

    #[test]
    fn prompts_and_generation_are_counted_apart() {
        let tracker = tracker();
        let usage = |expert| {
            let u = tracker.usage(ExpertId { layer: 1, expert });
            (u.n_generated, u.n_prompt, u.last_visit)
        };
        let expected = [(1, 0, 1), (1, 0, 2), (0, 30, 3), (3, 0, 2), (0, 40, 3)];
        assert_eq!([0, 1, 2, 3, 4].map(usage), expected);
        assert_eq!([0, 1].map(|layer| tracker.n_visits(layer)), [0, 3]);
        assert_eq!(
            tracker.usage(ExpertId {
                layer: 0,
                expert: 2
            }),
            Usage::default()
        );
    }

    #[test]
    fn hottest_ranks_generation_first() {
        let tracker = tracker();
        assert_eq!(tracker.hottest(1, 9), [3, 0, 1, 4, 2]);
        assert_eq!(tracker.hottest(1, 2), [3, 0]);
        assert_eq!(tracker.hottest(0, 9), [0u32; 0]);
    }

    #[test]
    fn a_quarter_of_five_experts_is_two() {
        assert_eq!(tracker().coverage_of_hottest_quarter(1), Some(4.0 / 5.0));
        assert_eq!(tracker().coverage_of_hottest_quarter(0), None);
    }
}
