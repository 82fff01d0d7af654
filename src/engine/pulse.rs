//! Whether anything is computed, for whoever looks now and then.

use super::core::Engine;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// A batch that has begun and shows no other sign for so long was given up.
const GIVEN_UP: Duration = Duration::from_secs(30);

/// What two looks are compared by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pulse {
    /// Events that were planned.
    pub n_events: u64,
    /// Time that computing has waited for reads.
    pub stalled: Duration,
    /// Whether a batch is being computed, or something is being read.
    pub is_computing: bool,
}

impl Engine {
    /// How it is now.
    pub fn pulse(&self) -> Pulse {
        let flight = &self.arrivals.flight;
        let now = flight.now();
        let is_open = |began: u64| began > 0 && u128::from(now.saturating_sub(began)) < GIVEN_UP.as_nanos();
        let mut lanes = self.lanes.iter();
        let has_batch = lanes.any(|lane| is_open(lane.clock.batch.load(Ordering::Relaxed)));
        Pulse {
            n_events: self.state().runs.n_events,
            stalled: self.meter.stalled(),
            is_computing: has_batch || self.queue.stats().n_in_flight > 0,
        }
    }
}
