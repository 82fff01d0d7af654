//! Reading ahead: experts that the next layer will probably pick are read before its router has run.
//!
//! What the next two layers will pick is guessed (`predict`) for a few tokens at a time, after the reads of this layer's
//! misses have been submitted, and read while nothing else is, the surest first and few at a time: a guess that turns
//! out right is then an expert like any other, one that turns out wrong is recalled if its reads have not begun.
//!
//! A guess holds its slot from `read_likely` (`look_ahead.rs`) on, and is settled when the router of its layer has run in its
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
//! Whether a guess was right is counted of each that was not resident, read or not (`guesses`, `right`).

use super::foresight::{AheadTally, Foresight, Inputs};
use super::governor::Governor;
use crate::expert::ExpertId;
use crate::residency::{Abandoned, Hold};
use crate::store::Read;
use crate::trace::Picks;
use std::collections::BTreeSet;
use std::time::Instant;

/// What a lane still has to think about: an event of a few tokens.
#[derive(Default)]
pub(super) struct Thought {
    /// Its layer; `None` if there is nothing.
    pub layer: Option<usize>,
    pub top_k: usize,
    /// What each token picked, one after the other.
    pub ids: Vec<i32>,
}

impl Thought {
    /// That of `layer`, which picked `picks`.
    pub fn of(layer: usize, picks: Picks) -> Self {
        let mut ids = Vec::with_capacity(picks.n_tokens() as usize * picks.top_k());
        picks.rows().for_each(|row| ids.extend_from_slice(row));
        Self {
            layer: Some(layer),
            top_k: picks.top_k(),
            ids,
        }
    }
}

/// What is likely to be picked of the layers after one.
#[derive(Default)]
pub(super) struct Outlook {
    pub thought: Thought,
    /// The layer whose router runs next, in a lane that has guessed; `None` if nothing was guessed.
    pub next: Option<usize>,
    /// Of that layer.
    pub near: Vec<(u32, f32)>,
    /// Of the one after it.
    pub far: Vec<(u32, f32)>,
}

/// An expert that is not resident and will probably be picked.
pub(super) struct Miss {
    pub lane: usize,
    pub layer: usize,
    pub expert: u32,
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
    /// By lane.
    pub outlooks: Vec<Outlook>,
    /// The memories of contexts that have computed with the model.
    pub memories: BTreeSet<usize>,
    pub misses: Vec<Miss>,
    pub guesses: Vec<Guess>,
    pub tally: AheadTally,
    /// Experts that a token picks of a layer.
    pub top_k: usize,
    pub reads: Vec<Read>,
    /// Slots of what was guessed right for the event that begins, and has not arrived.
    pub hurried: Vec<u32>,
}

impl Ahead {
    /// Nothing is guessed yet.
    pub fn new(foresight: Box<dyn Foresight>, governor: Governor) -> Self {
        Self {
            foresight,
            governor,
            begin: Instant::now(),
            outlooks: Vec::new(),
            memories: BTreeSet::new(),
            misses: Vec::new(),
            guesses: Vec::new(),
            tally: AheadTally::default(),
            top_k: 0,
            reads: Vec::new(),
            hurried: Vec::new(),
        }
    }

    /// Compares what was guessed in lane `at` with what was picked.
    pub fn count(&mut self, at: usize, layer: usize, n_rows: &[i64]) {
        let tally = &mut self.tally;
        self.misses.retain(|miss| {
            if miss.lane != at {
                return true;
            }
            let is_right = miss.layer == layer && n_rows[miss.expert as usize] > 0;
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
        if n_tokens as usize > Inputs::N_MAX {
            return self.governor.interrupt();
        }
        self.governor.batch();
        // Batches of one size in one lane are of a kind.
        let kind = at * Inputs::N_MAX + n_tokens as usize;
        self.governor.token(self.begin.elapsed(), kind);
    }

    /// What lane `at` knows of the layers to come.
    pub fn outlook(&mut self, at: usize) -> &mut Outlook {
        if self.outlooks.len() <= at {
            self.outlooks.resize_with(at + 1, Outlook::default);
        }
        &mut self.outlooks[at]
    }

    /// Guesses what the first layers will pick in lane `at`, which is about to compute `tokens`.
    pub fn remember(&mut self, at: usize, tokens: &[i32]) {
        let mut outlook = std::mem::take(self.outlook(at));
        outlook.next = Some(0);
        for (layer, likely) in [(0, &mut outlook.near), (1, &mut outlook.far)] {
            likely.clear();
            likely.extend_from_slice(self.foresight.remember(layer, tokens));
        }
        *self.outlook(at) = outlook;
    }

    /// Guesses what the layers after `layer`, which lane `at` has seen last, will pick for its tokens, `top_k` for each.
    pub fn guess(&mut self, at: usize, layer: usize, top_k: usize) {
        self.top_k = top_k;
        let mut outlook = std::mem::take(self.outlook(at));
        outlook.next = Some(layer + 1);
        for (distance, likely) in [(2, &mut outlook.far), (1, &mut outlook.near)] {
            likely.clear();
            likely.extend_from_slice(self.foresight.guess(at, layer, distance, self.top_k));
            // What is no number says nothing.
            likely.retain(|(_, chance)| chance.is_finite());
        }
        *self.outlook(at) = outlook;
    }
}
