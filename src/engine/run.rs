//! What the lanes compute: their events, from one operation to the next.

use super::foresight::Inputs;
use crate::draft_tokens::Batch;
use crate::expert::{Event, Tokens};
use crate::residency::{Buffers, Committed};
use crate::trace::Picks;
use std::thread::ThreadId;

/// Graphs of one model that can be computed at the same time.
pub const N_LANES: usize = 64;

/// Events after which one that has not ended is taken for given up: many tokens of any model.
pub const STALE_EVENTS: u64 = 10_000;

/// What a lane's thread 0 remembers between operations; under the state lock.
#[derive(Default)]
pub struct Run {
    pub owner: Option<ThreadId>,
    pub n_tokens: u32,
    /// The value of [`Runs::n_events`] when its event began.
    pub begun_at: u64,
    pub layer: usize,
    /// One bit per part whose operation has begun.
    pub parts_begun: u32,
    pub experts: Vec<u32>,
    pub rows: Vec<u32>,
    pub ranks: Vec<u32>,
    pub tokens: Tokens,
    /// Experts that pass through the ring.
    pub staged: Vec<u32>,
    /// Whether the ring knows what it needs.
    pub is_streamed: bool,
    /// Its event, until that has ended.
    pub open: Option<Committed>,
    pub buffers: Buffers,
}

/// The lanes as thread 0 of each sees them; under the state lock.
pub struct Runs {
    /// By lane.
    pub by_lane: Vec<Run>,
    /// Lanes from here on have never been used.
    pub n_lanes: usize,
    /// Events of all lanes.
    pub n_events: u64,
}

impl Default for Runs {
    fn default() -> Self {
        Self {
            by_lane: (0..N_LANES).map(|_| Run::default()).collect(),
            n_lanes: 0,
            n_events: 0,
        }
    }
}

/// What an operation computes.
#[derive(Debug, Clone, Copy)]
pub struct Routing<'a> {
    /// The experts of each token.
    pub picks: Picks<'a>,
    /// How many tokens picked each expert.
    pub n_rows: &'a [i64],
    /// Which tokens these are.
    pub batch: &'a Batch,
    /// What the router saw.
    pub inputs: Inputs<'a>,
}

impl Routing<'_> {
    /// Makes `ranks` the best rank of each expert that is picked, by ascending expert.
    fn best_ranks(&self, ranks: &mut Vec<u32>) {
        const NOT_PICKED: u32 = u32::MAX;
        ranks.clear();
        ranks.resize(self.n_rows.len(), NOT_PICKED);
        for (id, rank) in self.picks.ranked() {
            let best = &mut ranks[id as usize];
            *best = rank.min(*best);
        }
        ranks.retain(|&rank| rank != NOT_PICKED);
    }
}

impl Run {
    /// An event of `layer` begins, after `n_events` others.
    pub fn begin(&mut self, layer: usize, n_events: u64, routing: &Routing) {
        self.layer = layer;
        self.parts_begun = 0;
        self.n_tokens = routing.picks.n_tokens();
        self.begun_at = n_events;
        self.experts.clear();
        self.rows.clear();
        self.staged.clear();
        self.is_streamed = false;
        let n_rows = routing.n_rows.iter().enumerate();
        for (expert, &rows) in n_rows.filter(|(_, r)| **r > 0) {
            self.experts.push(expert as u32);
            self.rows.push(rows as u32);
        }
        routing.best_ranks(&mut self.ranks);
        self.tokens.set(routing.batch.spots(self.n_tokens), routing.picks.rows());
    }

    /// The event, of the layer with this number in its pool.
    pub fn event(&self, layer: u32) -> Event<'_> {
        Event {
            layer,
            n_tokens: self.n_tokens,
            experts: &self.experts,
            rows: &self.rows,
            ranks: &self.ranks,
            sequences: &self.tokens.sequences,
            positions: &self.tokens.positions,
            picks: &self.tokens.picks,
        }
    }

    /// Whether an operation belongs to the event that is open: another part of the same layer
    /// for the same rows.
    pub fn continues(&self, layer: usize, part: usize, routing: &Routing) -> bool {
        let is_live = self.parts_begun != 0 && self.layer == layer && self.parts_begun & (1 << part) == 0;
        // Every token picks the same number of experts, so if these rows are the same, the others are
        // none, as they were.
        let mut known = self.experts.iter().zip(&self.rows);
        is_live
            && self.n_tokens == routing.picks.n_tokens()
            && known.all(|(&expert, &rows)| routing.n_rows[expert as usize] == i64::from(rows))
    }
}
