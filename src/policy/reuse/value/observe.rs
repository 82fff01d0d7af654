//! What an event says of the experts, and the predictors that follow from it.

use super::kinds::{NEVER, kind_of_age, low_byte};
use super::{LEAST_FREQUENCY, N_BASIC, N_MAX, Value, Votes};
use crate::expert::Event;
use crate::policy::reuse::approximate::{ln, logit};

impl Value {
    /// Copies what training compares with what is about to be seen.
    #[inline(always)]
    pub(super) fn keep(&mut self, layer: usize) {
        let row = self.rows[layer].clone();
        let n = row.len();
        let scratch = &mut self.scratch;
        scratch.was_worth[..n].copy_from_slice(&self.worth[row.clone()]);
        scratch.had_age_cells[..n].copy_from_slice(&self.age_cells[row.clone()]);
        scratch.had_other_cells[..n].copy_from_slice(&self.other_cells[row.clone()]);
        for (had, has) in scratch.had_predictors.iter_mut().zip(&self.predictors) {
            had[..n].copy_from_slice(&has[row.clone()]);
        }
    }

    /// Brings frequencies, ages and ranks up to date.
    #[inline(always)]
    pub(super) fn follow(&mut self, layer: usize, event: &Event) {
        let row = self.rows[layer].clone();
        let n = row.len();
        let ages = &mut self.ages[row.clone()];
        for age in ages.iter_mut() {
            *age = (*age + 1).min(NEVER);
        }
        let picked = &mut self.scratch.picked[..n];
        let weighted = &mut self.scratch.weighted[..n];
        picked.fill(0.0);
        weighted.fill(0.0);
        for (i, &expert) in event.experts.iter().enumerate() {
            let expert = expert as usize;
            let (weight, rank) = match event.ranks.get(i) {
                Some(&rank) => self.top_k.weigh(rank),
                None => (1.0, 0),
            };
            picked[expert] = 1.0;
            weighted[expert] = weight;
            ages[expert] = 0;
            self.ranks[row.start + expert] = rank;
        }
        self.decay(layer);
    }

    /// One visit passes: `scratch.weighted` is what each expert is counted for.
    #[inline(always)]
    fn decay(&mut self, layer: usize) {
        let row = self.rows[layer].clone();
        self.n_visits[layer] += 1.0;
        // The mean of the first visits, until there are as many as a half-life remembers.
        let least_rate = 1.0 / (self.n_visits[layer] + 2.0);
        for (frequencies, rate) in self.frequencies.iter_mut().zip(self.decay_rates) {
            let rate = rate.max(least_rate);
            let keeps = 1.0 - rate;
            let frequencies = &mut frequencies[row.clone()];
            for (frequency, &weight) in frequencies.iter_mut().zip(&self.scratch.weighted) {
                *frequency = (*frequency * keeps + rate * weight).max(LEAST_FREQUENCY);
            }
        }
    }

    /// A prompt weighs as much as one token, and changes nothing but frequencies.
    pub(super) fn follow_prompt(&mut self, layer: usize, event: &Event) {
        let n = self.rows[layer].len();
        let weighted = &mut self.scratch.weighted[..n];
        weighted.fill(0.0);
        for (&expert, &rows) in event.experts.iter().zip(event.rows) {
            weighted[expert as usize] = rows as f32 / event.n_tokens as f32;
        }
        self.decay(layer);
        self.describe(layer);
        self.mix(layer);
    }

    /// Makes predictors of frequencies and ages.
    #[inline(always)]
    pub(super) fn describe(&mut self, layer: usize) {
        let row = self.rows[layer].clone();
        for (predictor, frequencies) in self.predictors.iter_mut().zip(&self.frequencies) {
            let frequencies = &frequencies[row.clone()];
            for (x, &frequency) in predictor[row.clone()].iter_mut().zip(frequencies) {
                *x = logit(frequency) - self.base;
            }
        }
        let cells = &mut self.age_cells[row.clone()];
        let ages = &self.ages[row.clone()];
        for (cell, &age) in cells.iter_mut().zip(ages) {
            *cell = kind_of_age(age) << 4;
        }
        if self.recipe.votes == Votes::Direct {
            let rank_cells = &mut self.other_cells[row.clone()];
            let ranks = &self.ranks[row.clone()];
            for ((rank_cell, &cell), &rank) in rank_cells.iter_mut().zip(&*cells).zip(ranks) {
                *rank_cell = cell + rank;
            }
            self.by_other
                .read(rank_cells, &mut self.predictors[N_MAX - 1][row.clone()]);
        }
        // Half octaves of the slowest frequency, 6 being what an average expert has.
        let average = self.base - ln(1.0 / (1.0 - self.share));
        let octaves = &mut self.scratch.votes[..row.len()];
        for (octave, &x) in octaves.iter_mut().zip(&self.predictors[2][row.clone()]) {
            *octave = ((x + self.base - average) * 2.885_39 + 6.5).clamp(0.0, 15.0);
        }
        for (cell, &octave) in cells.iter_mut().zip(&*octaves) {
            *cell += low_byte(octave);
        }
        self.by_age.read(cells, &mut self.predictors[3][row]);
    }

    /// Adds the event to the histories, and finds tokens like its own.
    #[inline(always)]
    pub(super) fn look_back(&mut self, event: &Event) {
        let Some(histories) = &mut self.histories else {
            return;
        };
        let n_analogs = match self.is_brief {
            true => self.recipe.n_analogs / 2,
            false => self.recipe.n_analogs,
        };
        histories.note(event, n_analogs);
    }

    /// Makes predictors of what was picked of `layer` after tokens like the current ones. With several sequences
    /// a vote is the chance that any of them is right.
    #[inline(always)]
    pub(super) fn ask_history(&mut self, layer: usize) {
        let Some(histories) = &self.histories else {
            return;
        };
        let row = self.rows[layer].clone();
        let mut current = histories.current();
        let Some(first) = current.next() else {
            for predictor in &mut self.predictors[N_BASIC..N_BASIC + 2] {
                predictor[row.clone()].fill(0.0);
            }
            return;
        };
        let scratch = &mut self.scratch;
        let votes = &mut scratch.votes[..row.len()];
        let doubted = &mut scratch.doubted[..row.len()];
        let more = &mut scratch.more[..row.len()];
        first.vote(layer as u32, votes);
        let mut confidence = first.confidence();
        for (doubted, &vote) in doubted.iter_mut().zip(&*votes) {
            *doubted = vote * confidence;
        }
        for other in current {
            other.vote(layer as u32, more);
            for ((vote, doubted), &more) in votes.iter_mut().zip(&mut *doubted).zip(&*more) {
                *vote += more * (1.0 - *vote);
                *doubted += more * other.confidence() * (1.0 - *doubted);
            }
            confidence = confidence.max(other.confidence());
        }
        if self.recipe.votes == Votes::Table {
            let first_cell = (confidence * 15.99) as u8 * 16;
            let cells = &mut self.other_cells[row.clone()];
            for (cell, &vote) in cells.iter_mut().zip(&*votes) {
                *cell = first_cell + low_byte((vote.sqrt() * 15.99).min(15.0));
            }
            self.by_other
                .read(cells, &mut self.predictors[N_BASIC][row]);
            return;
        }
        let little = 0.25 * self.share;
        let [.., plain, less, _] = &mut self.predictors[..] else {
            return;
        };
        let predictors = plain[row.clone()].iter_mut().zip(&mut less[row]);
        for ((plain, less), (&vote, &doubted)) in predictors.zip(votes.iter().zip(&*doubted)) {
            *plain = logit(vote + little) - self.base;
            *less = logit(doubted + little) - self.base;
        }
    }
}
