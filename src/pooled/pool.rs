//! One pool.

use crate::error::Result;
use crate::expert::{Event, ExpertId, Shape};
use crate::policy::{self, Policy, Prior};
use crate::profile::PRIOR_TOKENS;
use crate::recent_events::RecentEvents;
use crate::residency::Residency;
use crate::tracker::{LayerCounts, Phase, Span, Tracker};
use std::cmp::Reverse;

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

    /// Another policy ranks what is resident from now on: `policy` is new and of the same shape. It is told how often
    /// tokens have picked each expert of late while generating, what is `known` of the workload besides, and of the
    /// residents, those that were picked longest ago first.
    pub fn rank_with(&mut self, policy: Box<dyn Policy>, known: Option<&Prior>) {
        let Self {
            residency, tracker, ..
        } = self;
        let (frequency, n_tokens) = lately(tracker, residency.shape());
        let counted = Prior {
            frequency: &frequency,
            n_tokens,
        };
        let counted = (n_tokens > 0.0).then_some(counted);
        let priors: Vec<Prior> = counted.into_iter().chain(known.copied()).collect();
        residency.rank_with(policy, &priors, |id: ExpertId| {
            let age = tracker.usage(Phase::Decode, id).age;
            Reverse(age.unwrap_or(u64::MAX))
        });
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

/// Which share of late tokens picked each expert while generating, by dense index, and how many tokens that rests on.
fn lately(tracker: &Tracker, shape: &Shape) -> (Vec<f32>, f32) {
    let layers = (0..shape.n_layers()).map(|layer| tracker.counts(Phase::Decode, Span::LATELY, layer));
    let layers: Vec<LayerCounts> = layers.collect();
    let n_tokens = layers.iter().map(|counts| counts.n_tokens as f32);
    (
        layers.iter().flat_map(LayerCounts::frequencies).collect(),
        n_tokens.fold(0.0, f32::max).min(PRIOR_TOKENS),
    )
}
