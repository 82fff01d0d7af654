//! What each expert is worth: predictors that are weighed by how well they did.
//!
//! Each predictor is the log odds of a probability; their weighted sum is that of the worth. The
//! weights are learnt by gradient descent (Adagrad) on the error between what an expert was said to
//! be worth and what its next visit showed: 1 if it was picked, else the discount times what it is
//! worth now (temporal differences, Sutton 1988). Weights and tables are shared by all experts, so
//! that they are learnt within a few tokens.
//!
//! All are log odds less those of an expert of which nothing is known, so 0 says nothing; what a recipe
//! does not use stays 0. Predictor `i` has weight `i + 1`; weight 0 is added as it is, and starts at 0.
//!
//! | predictor | says of an expert | made by | first weight: `Direct` | `Table` |
//! |---|---|---|---|---|
//! | 0 | how often it was picked, with the first half-life of the recipe | `describe` | 0.1 | 0.1 |
//! | 1 | with the second | `describe` | 0.15 | 0.15 |
//! | 2 | with the third, the longest | `describe` | 0.2 | 0.2 |
//! | 3 | what experts of its age and of its longest frequency were worth: `by_age` | `describe` | 0.25 | 0.25 |
//! | 4 | `Direct`: how soon it was picked after tokens like this one, of any sequence of the event; `Table`: what experts of such votes were worth when the tokens were so alike: `by_other` | `ask_history` | 0.1 | 0.4 |
//! | 5 | `Direct`: as 4, the less the less alike those tokens are | `ask_history` | 0.3 | 0 |
//! | 6 | `Direct`: what experts of its age and of its last rank were worth: `by_other` | `describe` | 0.1 | 0 |

mod kinds;
mod observe;

use super::approximate::{dot, logit, sigmoid};
use super::histories::Histories;
use super::history::Memory;
use super::table::{Rates, Table};
use crate::expert::{Event, Shape};
use crate::policy::contract::Prior;
use kinds::{NEVER, guess_by_age, guess_by_rank, guess_by_vote};
use std::ops::Range;

/// How a policy predicts.
pub(in crate::policy) struct Recipe {
    /// Of the decayed frequencies, in visits of the layer, ascending.
    pub(in crate::policy) half_lives: [u32; 3],
    /// Of earlier tokens.
    pub(in crate::policy) memory: Memory,
    /// Earlier tokens that have a say.
    pub(in crate::policy) n_analogs: usize,
    /// How their say is used.
    pub(in crate::policy) votes: Votes,
}

/// How the votes of earlier tokens become predictors.
#[derive(Clone, Copy, PartialEq)]
pub(in crate::policy) enum Votes {
    /// Through a learnt table of confidence and vote.
    Table,
    /// As they are, and once more less where the analogs are less alike; renewed when later layers
    /// have shown more of the token. The rank of an expert among the picks is a predictor too.
    Direct,
}

/// Predictors that both recipes have: three decayed frequencies, and the table of age and frequency.
const N_BASIC: usize = 4;
/// `Direct` adds two for votes and one for ranks, `Table` one; what is not used stays 0.
const N_MAX: usize = N_BASIC + 3;
/// What the first guesses in tables are worth, in observations.
const N_GUESS: u16 = 20;
const N_GUESS_VOTES: u16 = 10;
/// How quickly weights are learnt, and what keeps the first steps small.
const STEP: f32 = 0.02;
const FIRST_ENERGY: f32 = 4.0;
/// Frequencies do not fall below this: smaller numbers make processors slow.
const LEAST_FREQUENCY: f32 = 1e-6;
/// Where a token picks fewer of the experts than this, an event costs more for each pick: there `Direct`
/// asks half of the earlier tokens, and does not judge again.
const SPARSE: f32 = 1.0 / 32.0;
/// A layer is judged again when its token has passed so many more.
const AGAIN: [usize; 2] = [2, 6];
/// How much more the first of a token's picks counts than the last, as a share of the mean.
const RANK_WEIGHT: f32 = 0.4;

/// How many experts a token picks.
#[derive(Clone, Copy)]
struct TopK(u32);

impl TopK {
    /// What a pick of this rank counts for, 1 on average, and 1 to 15 for the first to the last rank.
    #[inline(always)]
    fn weigh(self, rank: u32) -> (f32, u8) {
        let rank = rank.min(self.0 - 1);
        let middle = (rank as f32 + 0.5) / self.0 as f32;
        (
            1.0 + RANK_WEIGHT * (1.0 - 2.0 * middle),
            1 + (rank * 14 / self.0.max(2)) as u8,
        )
    }
}

/// By place: row after row, one for each layer, padded.
pub(super) struct Value {
    recipe: &'static Recipe,
    n_experts: Vec<u32>,
    rows: Vec<Range<usize>>,
    n_slots: u32,
    /// What a pick one visit later counts. Larger where more fits, because then more stays longer.
    discount: f32,
    /// The share of experts that a token picks, and its log odds; of the first event.
    share: f32,
    base: f32,
    top_k: TopK,
    /// Whether to do less for each event.
    is_brief: bool,
    /// By layer: visits, among them those that a prior stands for.
    n_visits: Vec<f32>,
    /// By layer: whether its predictors are of a visit, from which something can be learnt.
    is_described: Vec<bool>,
    frequencies: [Vec<f32>; 3],
    /// What a visit weighs in each of them.
    decay_rates: [f32; 3],
    /// Visits since the last pick.
    ages: Vec<u8>,
    /// 1 for those that were first among the picks to 15 for those that were last; 0 is not known.
    ranks: Vec<u8>,
    /// Predictor after predictor.
    predictors: [Vec<f32>; N_MAX],
    worth: Vec<f32>,
    /// Cells of the tables.
    age_cells: Vec<u8>,
    other_cells: Vec<u8>,
    by_age: Table,
    /// By vote or by rank.
    by_other: Table,
    rates: Rates,
    /// The first is added as it is.
    weights: [f32; N_MAX + 1],
    energies: [f32; N_MAX + 1],
    histories: Option<Histories>,
    scratch: Scratch,
}

/// Of one row; here to be allocated once.
#[derive(Default)]
struct Scratch {
    picked: Vec<f32>,
    weighted: Vec<f32>,
    votes: Vec<f32>,
    doubted: Vec<f32>,
    more: Vec<f32>,
    errors: Vec<f32>,
    targets: Vec<f32>,
    was_worth: Vec<f32>,
    had_predictors: [Vec<f32>; N_MAX],
    had_age_cells: Vec<u8>,
    had_other_cells: Vec<u8>,
}

impl Value {
    pub(super) fn new(shape: &Shape, recipe: &'static Recipe) -> Self {
        let n_experts: Vec<u32> = (0..shape.n_layers()).map(|l| shape.n_experts(l)).collect();
        let mut rows = Vec::new();
        let mut n_places = 0;
        for &n in &n_experts {
            // Rows have room for whole vectors.
            let end = n_places + (n as usize).next_multiple_of(8);
            rows.push(n_places..end);
            n_places = end;
        }
        let widest = rows.iter().map(|row| row.len()).max().unwrap_or(0);
        let row = || vec![0.0; widest];
        Self {
            recipe,
            n_visits: vec![0.0; n_experts.len()],
            is_described: vec![false; n_experts.len()],
            n_experts,
            rows,
            n_slots: 0,
            discount: 0.0,
            share: 0.0,
            base: 0.0,
            top_k: TopK(1),
            is_brief: false,
            decay_rates: recipe
                .half_lives
                .map(|h| (1.0 - libm::exp2(-1.0 / f64::from(h))) as f32),
            frequencies: [(); 3].map(|()| vec![0.0; n_places]),
            ages: vec![NEVER; n_places],
            ranks: vec![0; n_places],
            predictors: [(); N_MAX].map(|()| vec![0.0; n_places]),
            worth: vec![0.0; n_places],
            age_cells: vec![0; n_places],
            other_cells: vec![0; n_places],
            by_age: Table::new(|_| 0.5, 0, 0.0),
            by_other: Table::new(|_| 0.5, 0, 0.0),
            rates: Rates::new(),
            weights: match recipe.votes {
                Votes::Table => [0.0, 0.1, 0.15, 0.2, 0.25, 0.4, 0.0, 0.0],
                Votes::Direct => [0.0, 0.1, 0.15, 0.2, 0.25, 0.1, 0.3, 0.1],
            },
            energies: [FIRST_ENERGY; N_MAX + 1],
            histories: None,
            scratch: Scratch {
                picked: row(),
                weighted: row(),
                votes: row(),
                doubted: row(),
                more: row(),
                errors: row(),
                targets: row(),
                was_worth: row(),
                had_predictors: [(); N_MAX].map(|()| row()),
                had_age_cells: vec![0; widest],
                had_other_cells: vec![0; widest],
            },
        }
    }

    /// The places of the experts of `layer`, and padding.
    #[inline(always)]
    pub(super) fn row(&self, layer: usize) -> Range<usize> {
        self.rows[layer].clone()
    }

    /// The end of the last row.
    pub(super) fn n_places(&self) -> usize {
        self.worth.len()
    }

    /// The experts of `layer`, and padding.
    #[inline(always)]
    pub(super) fn worth(&self, layer: usize) -> &[f32] {
        &self.worth[self.rows[layer].clone()]
    }

    pub(super) fn resize(&mut self, n_slots: u32) {
        let n_total: u32 = self.n_experts.iter().sum();
        self.n_slots = n_slots;
        self.discount = (0.45 + 0.5 * n_slots as f32 / n_total.max(1) as f32).clamp(0.45, 0.8);
        if let Some(histories) = &mut self.histories {
            histories.set_discount(self.discount);
        }
    }

    /// Mixes what a prior says into the frequencies, by the visits that each remembers of both.
    pub(super) fn prime(&mut self, prior: &Prior) {
        let mut given = prior.frequency.iter();
        for (layer, row) in self.rows.iter().enumerate() {
            let n_visits = self.n_visits[layer];
            for (place, &given) in row
                .clone()
                .zip(given.by_ref().take(self.n_experts[layer] as usize))
            {
                let given = given.clamp(LEAST_FREQUENCY, 1.0);
                for (of, rate) in self.frequencies.iter_mut().zip(self.decay_rates) {
                    let (seen, told) = (n_visits.min(1.0 / rate), prior.n_tokens.min(1.0 / rate));
                    of[place] = (of[place] * seen + given * told) / (seen + told);
                }
                if !self.has_begun() {
                    self.worth[place] = given;
                }
            }
            self.n_visits[layer] += prior.n_tokens;
        }
        for layer in 0..self.rows.len() {
            if self.has_begun() {
                self.describe(layer);
                self.mix(layer);
            }
        }
    }

    /// Whether there is a slot for every expert: then nothing is ever evicted, and nothing is learnt.
    pub(super) fn all_fit(&self) -> bool {
        self.n_slots as usize >= self.n_experts.iter().map(|&n| n as usize).sum()
    }

    /// Whether there was an event: the first tells what all experts are worth.
    #[inline(always)]
    pub(super) fn has_begun(&self) -> bool {
        self.histories.is_some()
    }

    /// Learns from an event, and judges the experts of its layer.
    #[inline(always)]
    pub(super) fn learn(&mut self, event: &Event) {
        if !self.has_begun() {
            self.begin(event);
        }
        let layer = event.layer as usize;
        if event.is_prefill() {
            self.follow_prompt(layer, event);
            return;
        }
        let trains = self.is_described[layer];
        if trains {
            self.keep(layer);
        }
        self.follow(layer, event);
        self.describe(layer);
        self.look_back(event);
        self.ask_history(layer);
        self.mix(layer);
        if trains {
            self.train(layer);
        }
        self.is_described[layer] = true;
    }

    /// Judges earlier layers of the event's token again, now that more of it is known; returns them.
    #[inline(always)]
    pub(super) fn judge_again(&mut self, event: &Event) -> impl Iterator<Item = usize> + use<> {
        let is_spared =
            self.recipe.votes == Votes::Table || self.share < SPARSE || event.is_prefill();
        let lags = if is_spared { &[][..] } else { &AGAIN };
        let layer = event.layer as usize;
        let earlier = lags.iter().filter_map(move |lag| layer.checked_sub(*lag));
        for layer in earlier.clone() {
            self.ask_history(layer);
            self.mix(layer);
        }
        earlier
    }

    /// The first event tells how many experts a token picks.
    fn begin(&mut self, event: &Event) {
        let n_rows: u32 = event.rows.iter().sum();
        let top_k = n_rows.div_ceil(event.n_tokens).max(1) as usize;
        self.top_k = TopK(top_k as u32);
        let n_total: u32 = self.n_experts.iter().sum();
        let share = (top_k * self.n_experts.len()) as f32 / n_total.max(1) as f32;
        self.share = share.min(0.95);
        self.is_brief = self.recipe.votes == Votes::Direct && self.share < SPARSE;
        self.base = logit(self.share);
        self.by_age = Table::new(guess_by_age(self.share), N_GUESS, self.base);
        self.by_other = match self.recipe.votes {
            Votes::Table => Table::new(guess_by_vote(self.share), N_GUESS_VOTES, self.base),
            Votes::Direct => Table::new(guess_by_rank(self.share), N_GUESS, self.base),
        };
        let histories = Histories::new(&self.rows, top_k, self.recipe.memory, self.discount);
        self.histories = Some(histories);
        if self.n_visits.iter().all(|&n| n == 0.0) {
            self.frequencies
                .iter_mut()
                .for_each(|of| of.fill(self.share));
        }
        for layer in 0..self.rows.len() {
            self.describe(layer);
            self.mix(layer);
        }
    }

    /// Adds the predictors up.
    #[inline(always)]
    fn mix(&mut self, layer: usize) {
        let row = self.rows[layer].clone();
        let worth = &mut self.worth[row.clone()];
        let predictors = self.predictors.each_ref();
        let [a, b, c, d, e, f, g] = predictors.map(|predictor| &predictor[row.clone()]);
        let constant = self.base + self.weights[0];
        let [_, wa, wb, wc, wd, we, wf, wg] = self.weights;
        let first = a.iter().zip(b).zip(c.iter().zip(d));
        let rest = e.iter().zip(f).zip(g);
        for ((worth, ((a, b), (c, d))), ((e, f), g)) in worth.iter_mut().zip(first).zip(rest) {
            let sum = constant + wa * a + wb * b + wc * c + wd * d + we * e + wf * f + wg * g;
            *worth = sigmoid(sum);
        }
    }

    /// Learns from the difference between what experts were worth before and what has been seen.
    #[inline(always)]
    fn train(&mut self, layer: usize) {
        let row = self.rows[layer].clone();
        let (n, n_experts) = (row.len(), self.n_experts[layer] as usize);
        let scratch = &mut self.scratch;
        let (errors, targets) = (&mut scratch.errors[..n], &mut scratch.targets[..n]);
        let worth = &self.worth[row];
        for ((target, &picked), &worth) in targets.iter_mut().zip(&scratch.picked).zip(worth) {
            *target = picked + (1.0 - picked) * self.discount * worth;
        }
        for ((error, &target), &was) in errors.iter_mut().zip(&*targets).zip(&scratch.was_worth) {
            *error = target - was;
        }
        errors[n_experts..].fill(0.0);
        let mut step = |i: usize, gradient: f32| {
            self.energies[i] += gradient * gradient;
            self.weights[i] += STEP * gradient / self.energies[i].sqrt();
        };
        step(0, errors.iter().sum());
        for (i, had) in scratch.had_predictors.iter().enumerate() {
            step(i + 1, dot(errors, &had[..n]));
        }
        // Of many experts each visit shows a few to the tables: they need far fewer than there are.
        let stride = (n_experts as f32 * self.share) as usize;
        let stride = (n_experts / (16 * stride.max(1))).max(1);
        for expert in (self.n_visits[layer] as usize % stride..n_experts).step_by(stride) {
            let target = targets[expert];
            self.by_age
                .observe(scratch.had_age_cells[expert], target, &self.rates);
            self.by_other
                .observe(scratch.had_other_cells[expert], target, &self.rates);
        }
        if layer % 8 == 7 || layer + 1 == self.rows.len() {
            self.by_age.refresh(self.base);
            self.by_other.refresh(self.base);
        }
    }
}
