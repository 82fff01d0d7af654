//! Least frequently used: for one unchanging workload, or as the picture of a static pin list.
//!
//! Counts last for the life of the process, resident or not, so it follows a new topic slowly.

use super::scored::{Score, Scored, weight};
use super::{Event, Spec};

pub(super) const SPEC: Spec = Spec {
    name: "lfu",
    about: "evict the expert picked by the fewest tokens since the start",
    source: "classic, with the counts of evicted experts kept",
    param: None,
    build: |shape, _| {
        let score = Lfu {
            n_events: 0,
            used: vec![0; shape.n_total()],
            count: vec![0.0; shape.n_total()],
        };
        Box::new(Scored::new(shape, score))
    },
};

/// Ties go to the expert that generation used longer ago.
struct Lfu {
    /// Events seen, except prompts.
    n_events: u64,
    /// The value of `n_events` at the last use; 0 is never.
    used: Vec<u64>,
    /// Tokens that picked each expert; a prompt adds fractions.
    count: Vec<f64>,
}

impl Score for Lfu {
    type Key = (f64, u64);

    fn route(&mut self, event: &Event, first: usize) {
        let generated = !event.is_scan();
        self.n_events += u64::from(generated);
        for (&expert, &rows) in event.experts.iter().zip(event.rows) {
            let index = first + expert as usize;
            self.count[index] += weight(event, rows);
            if generated {
                self.used[index] = self.n_events;
            }
        }
    }

    fn key(&self, _layer: u32, index: usize) -> Self::Key {
        (self.count[index], self.used[index])
    }
}
