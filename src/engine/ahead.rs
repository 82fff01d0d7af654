//! Reading ahead: experts that the next layer will probably pick are read before its router has run.
//!
//! The guess is the next layer's router applied to what this layer's router saw: a layer changes the
//! hidden state little. It is made for a few tokens at a time, after the reads of this layer's
//! misses have been submitted, and read while nothing else is: a guess that turns out right is then
//! an expert like any other, one that turns out wrong is recalled if its reads have not begun.
//!
//! A guess holds its slot from `read_wanted` (`look_ahead.rs`) on, and is settled when the router of its layer has run in its
//! lane, or that lane has been silent for `STALE_EVENTS`. What is counted then (in `AheadTally`, beside `reads`),
//! and what happens:
//!
//! ```text
//! guess  its reads                  counted                          its expert and its slot
//! right  have all arrived           right_reads, in_time             resident; the slot is let go now
//! right  have not                   right_reads                      the same when they have: they go before all else
//! wrong  have all arrived           wasted_bytes: all                resident; the slot is let go now
//! wrong  have not, but another      wasted_bytes: all                the same when they have
//!        lane uses the expert
//! wrong  have not; of some, what    of each that is dropped, of      not resident from now on; the slot is free when
//!        has not begun is recalled: wasted_bytes what had arrived,   what is not dropped has arrived
//!        the rest of a read is      and its other bytes are uncounted;
//!        dropped if none of it is   of each that is cut, all;
//!        under way, else cut        recalled, if all are dropped
//!                                   before a byte had arrived
//! wrong  have not, but have all     wasted_bytes: all                resident; the slot is let go when they have
//!        begun                                                       arrived
//! ```
//!
//! Whether a guess was right is learnt of each that was not resident, read or not (`guesses`, `right`).

use super::foresight::{AheadTally, Foresight, Inputs};
use super::governor::Governor;
use super::odds::Lead;
use crate::expert::ExpertId;
use crate::residency::{Abandoned, Hold};
use crate::store::Read;
use std::time::Instant;

/// An expert that is not resident and will probably be picked.
pub(super) struct Miss {
    pub lane: usize,
    pub layer: usize,
    pub expert: u32,
    pub lead: Lead,
}

/// An expert that is being read ahead, or was. Until its reads have ended, its slot is held or abandoned.
pub(super) struct Guess {
    pub lane: usize,
    /// The value of `Runs::n_events` when it was made.
    pub begun_at: u64,
    pub layer: usize,
    pub id: ExpertId,
    pub slot: u32,
    /// Bytes of the reads of each part, without those that were dropped.
    pub part_bytes: Vec<usize>,
    /// One bit per part whose read was dropped.
    pub dropped: u32,
    pub held: Option<Hold>,
    /// Of one that is not resident any more, because not all of it is read.
    pub abandoned: Option<Abandoned>,
    /// Whether it is known if it was right.
    pub is_settled: bool,
}

/// What a model reads ahead; under the state lock.
pub(super) struct Ahead {
    pub foresight: Box<dyn Foresight>,
    pub governor: Governor,
    pub begin: Instant,
    pub misses: Vec<Miss>,
    pub guesses: Vec<Guess>,
    pub tally: AheadTally,
    pub scores: Vec<f32>,
    /// Experts that a token picks of a layer.
    pub top_k: usize,
    /// Experts by score.
    pub order: Vec<u32>,
    /// The experts that the next layer is expected to pick, and their leads.
    pub wanted: Vec<(u32, Lead)>,
    pub reads: Vec<Read>,
}

impl Ahead {
    /// Nothing is guessed yet.
    pub fn new(foresight: Box<dyn Foresight>, governor: Governor) -> Self {
        Self {
            foresight,
            governor,
            begin: Instant::now(),
            misses: Vec::new(),
            guesses: Vec::new(),
            tally: AheadTally::default(),
            scores: Vec::new(),
            top_k: 0,
            order: Vec::new(),
            wanted: Vec::new(),
            reads: Vec::new(),
        }
    }

    /// Compares what was guessed in lane `at` with what was picked.
    pub fn learn(&mut self, at: usize, layer: usize, n_rows: &[i64]) {
        let (governor, tally) = (&mut self.governor, &mut self.tally);
        self.misses.retain(|miss| {
            if miss.lane != at {
                return true;
            }
            let is_right = miss.layer == layer && n_rows[miss.expert as usize] > 0;
            governor.learn(miss.layer, miss.lead, is_right);
            tally.guesses += 1;
            tally.right += u64::from(is_right);
            false
        });
    }

    /// A device computes this batch: it says nothing of how long tokens take here.
    pub(super) fn interrupt(&mut self) {
        self.governor.interrupt();
    }

    /// A batch of `n_tokens` begins in lane `at`.
    pub fn note_time(&mut self, at: usize, n_tokens: u32) {
        if n_tokens > 1 {
            self.governor.interrupt();
        }
        if n_tokens as usize <= Inputs::N_MAX {
            self.governor.batch();
        }
        if n_tokens == 1 {
            self.governor.token(self.begin.elapsed(), at);
        }
    }

    /// Makes `wanted` what the routers of `layer` will probably pick, the surest first. False if there is
    /// nothing to tell.
    pub fn guess(&mut self, layer: usize, top_k: usize, inputs: &Inputs) -> bool {
        self.wanted.clear();
        self.top_k = top_k;
        for input in inputs.rows() {
            if !self.foresight.scores(layer, input, &mut self.scores) {
                return false;
            }
            self.note_best(top_k);
        }
        self.wanted.sort_unstable_by(|a, b| b.1.total_cmp(&a.1));
        !self.wanted.is_empty()
    }

    /// Adds the `top_k` experts of the highest scores to `wanted`.
    fn note_best(&mut self, top_k: usize) {
        let scores = &self.scores;
        self.order.clear();
        self.order.extend(0..scores.len() as u32);
        if top_k >= scores.len() {
            return;
        }
        let by_score = |a: &u32, b: &u32| scores[*b as usize].total_cmp(&scores[*a as usize]);
        let (best, next, _) = self.order.select_nth_unstable_by(top_k, by_score);
        let bar = scores[*next as usize];
        let spread = deviation(scores);
        for &expert in best.iter() {
            let lead = (scores[expert as usize] - bar) / spread;
            // A router that says infinity, or what is no number, has said nothing.
            if !lead.is_finite() {
                continue;
            }
            match self.wanted.iter_mut().find(|(e, _)| *e == expert) {
                Some((_, largest)) => *largest = lead.max(*largest),
                None => self.wanted.push((expert, lead)),
            }
        }
    }
}

/// The standard deviation of those of `scores` that are numbers, above 0.
fn deviation(scores: &[f32]) -> f32 {
    let scores = scores.iter().filter(|score| score.is_finite());
    let n = scores.clone().count().max(1) as f32;
    let mean = scores.clone().sum::<f32>() / n;
    let squares = scores.map(|score| (score - mean).powi(2));
    (squares.sum::<f32>() / n).sqrt().max(f32::MIN_POSITIVE)
}
