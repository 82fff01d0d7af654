//! What policies know of an expert besides their own measure: when generation last used it, and if
//! it never did, what a prior and the prompts say of it.

use super::contract::Prior;
use super::scored::Score;
use crate::expert::Event;

/// How much a prior and the prompts said of each expert: orders those that generation has not used.
///
/// By dense index: the prompt tokens that picked it, and the tokens that the prior stands for.
pub(super) struct Foretold(Vec<f32>);

impl Foretold {
    /// For `n_total` experts of which nothing is known.
    pub(super) fn new(n_total: usize) -> Self {
        Self(vec![0.0; n_total])
    }
}

impl Score for Foretold {
    type Key = f32;

    fn prime(&mut self, prior: &Prior) {
        for (n_tokens, share) in self.0.iter_mut().zip(prior.frequency) {
            *n_tokens = share * prior.n_tokens;
        }
    }

    fn route(&mut self, event: &Event, first: usize) {
        if event.is_prefill() {
            for (&expert, &rows) in event.experts.iter().zip(event.rows) {
                self.0[first + expert as usize] += rows as f32;
            }
        }
    }

    fn key(&self, _layer: u32, index: usize) -> Self::Key {
        self.0[index]
    }
}

/// The order of last use. Experts that generation has not used are colder than all others.
pub(super) struct Recency {
    /// Events seen, except prompts.
    n_events: u64,
    /// By dense index: the value of `n_events` at the last use; 0 is never.
    used: Vec<u64>,
    foretold: Foretold,
}

impl Recency {
    /// For `n_total` experts, none of which was used.
    pub(super) fn new(n_total: usize) -> Self {
        Self {
            n_events: 0,
            used: vec![0; n_total],
            foretold: Foretold::new(n_total),
        }
    }
}

/// Experts of one event are equal.
impl Score for Recency {
    type Key = (u64, f32);

    fn prime(&mut self, prior: &Prior) {
        self.foretold.prime(prior);
    }

    fn route(&mut self, event: &Event, first: usize) {
        self.foretold.route(event, first);
        if event.is_prefill() {
            return;
        }
        self.n_events += 1;
        for &expert in event.experts {
            self.used[first + expert as usize] = self.n_events;
        }
    }

    fn key(&self, layer: u32, index: usize) -> Self::Key {
        match self.used[index] {
            0 => (0, self.foretold.key(layer, index)),
            used => (used, 0.0),
        }
    }
}
