//! One pool.

use crate::error::Result;
use crate::expert::{Event, Shape};
use crate::policy;
use crate::recent_events::RecentEvents;
use crate::residency::Residency;
use crate::tracker::Tracker;

/// The slots of one pool, and what is known of their layers.
pub struct Pooled {
    /// The slots, and the policy.
    pub residency: Residency,
    /// How often each expert was picked, by tokens that stay.
    pub tracker: Tracker,
    /// The latest events, to compare policies on.
    pub recent: RecentEvents,
}

impl Pooled {
    /// `n_slots` free slots of a model of shape `shape`, ranked by the policy of this name.
    pub fn new(shape: Shape, n_slots: u32, policy: &str, recent: RecentEvents) -> Result<Self> {
        let policy = policy::by_name(policy, &shape)?;
        Ok(Self {
            tracker: Tracker::new(shape.clone()),
            residency: Residency::new(shape, n_slots, policy),
            recent,
        })
    }

    /// Counts what the policy was told of an event; keeps it for the comparison if it `is_kept`.
    #[inline]
    pub fn count(&mut self, event: &Event, is_kept: bool) {
        self.tracker.count(event);
        if is_kept {
            self.recent.push(event);
        }
    }
}
