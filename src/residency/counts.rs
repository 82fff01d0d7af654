//! What the plans of a residency add up to.

/// What happened to the picks of many events; a pick is one expert of one event.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct Tally {
    /// Events.
    pub events: u64,
    /// Tokens, counted at layer 0.
    pub tokens: u64,
    /// Picks that were resident.
    pub hits: u64,
    /// Picks that were not.
    pub misses: u64,
    /// Residents that made room for a miss.
    pub evictions: u64,
    /// Misses that got no slot.
    pub staged: u64,
}

impl Tally {
    /// Adds the picks of another pool. Its tokens are the same ones, counted at its own layer 0.
    pub fn add(&mut self, other: &Self) {
        self.events += other.events;
        self.tokens = self.tokens.max(other.tokens);
        self.hits += other.hits;
        self.misses += other.misses;
        self.evictions += other.evictions;
        self.staged += other.staged;
    }

    /// What was counted since `before`.
    pub fn since(&self, before: &Self) -> Self {
        Self {
            events: self.events.saturating_sub(before.events),
            tokens: self.tokens.saturating_sub(before.tokens),
            hits: self.hits.saturating_sub(before.hits),
            misses: self.misses.saturating_sub(before.misses),
            evictions: self.evictions.saturating_sub(before.evictions),
            staged: self.staged.saturating_sub(before.staged),
        }
    }

    /// Hits as a part of 1; `None` if nothing was picked.
    pub fn hit_rate(&self) -> Option<f64> {
        let picks = self.picks();
        (picks > 0).then(|| self.hits as f64 / picks as f64)
    }

    /// Hits and misses.
    pub fn picks(&self) -> u64 {
        self.hits + self.misses
    }
}

/// The tallies of generation and of prompts.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Events that are not prefills.
    pub decode: Tally,
    /// Events that are.
    pub prefill: Tally,
}

impl Counts {
    /// The tally that an event belongs to.
    pub(crate) fn of(&mut self, is_prefill: bool) -> &mut Tally {
        if is_prefill {
            &mut self.prefill
        } else {
            &mut self.decode
        }
    }

    /// Hits of both.
    pub fn hits(&self) -> u64 {
        self.decode.hits + self.prefill.hits
    }
}
