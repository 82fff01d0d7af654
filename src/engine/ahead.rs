//! Reading ahead: experts that the next layer will probably pick are read before its router has run.
//!
//! The guess is the next layer's router applied to what this layer's router saw: a layer changes the
//! hidden state little. It is made for a few tokens at a time, after the reads of this layer's
//! misses have been submitted, and read while nothing else is: a guess that turns out right is then
//! an expert like any other, one that turns out wrong is recalled if its reads have not begun.

use super::arrivals::Target;
use super::governor::Governor;
use super::{Engine, Routing, State};
use crate::expert::ExpertId;
use crate::store::Read;
use serde::Serialize;

/// Tells what the router of a layer would say.
pub trait Foresight: Send + Sync {
    /// Makes `scores` one number for each expert of `layer`, higher for what its router prefers, from the
    /// hidden state `input` that the router of an earlier layer saw. False if it cannot tell.
    fn scores(&self, layer: usize, input: &[f32], scores: &mut Vec<f32>) -> bool;
}

/// What the router of an event saw: a row of numbers for each token.
#[derive(Debug, Clone, Copy, Default)]
pub struct Inputs<'a> {
    values: &'a [f32],
    width: usize,
    stride: usize,
}

impl<'a> Inputs<'a> {
    /// Nothing is guessed for events of more tokens: these pick most of a layer.
    pub const N_MAX: usize = 4;

    /// Rows of `width` numbers, each `stride` after the one before. Panics unless `values` ends with a
    /// whole row.
    pub fn new(values: &'a [f32], width: usize, stride: usize) -> Self {
        assert!(0 < width && width <= stride, "{width} numbers in {stride}");
        assert_eq!(values.len() % stride, width % stride);
        Self {
            values,
            width,
            stride,
        }
    }

    /// The row of each token; none where the inputs are not known.
    pub fn rows(&self) -> impl Iterator<Item = &'a [f32]> {
        let width = self.width;
        let rows = self.values.chunks(self.stride.max(1));
        rows.map(move |row| &row[..width])
    }
}

/// What became of the guesses of a model. Each was an expert that was not resident.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct AheadTally {
    /// Experts that were to be read ahead.
    pub guesses: u64,
    /// Of these, the ones that the router picked.
    pub right: u64,
    /// Of these, the ones that were there when it did.
    pub in_time: u64,
    /// Wrong ones of which nothing was read, because they were recalled before.
    pub recalled: u64,
    /// Bytes read for wrong ones.
    pub wasted_bytes: u64,
}

/// An expert that is being read ahead, or was. Its slot is held until its reads have ended.
struct Guess {
    lane: usize,
    layer: usize,
    id: ExpertId,
    slot: u32,
    /// Its place among the experts of its token, best first.
    rank: usize,
    /// Bytes of the reads of each part.
    part_bytes: Vec<usize>,
    /// One bit per part that was recalled.
    recalled: u32,
    /// Whether it is known if it was right.
    is_settled: bool,
}

/// What a model reads ahead; under the state lock.
pub(super) struct Ahead {
    foresight: Box<dyn Foresight>,
    pub governor: Governor,
    guesses: Vec<Guess>,
    pub tally: AheadTally,
    scores: Vec<f32>,
    /// Experts by score.
    order: Vec<u32>,
    /// The experts that the next layer is expected to pick, and their ranks.
    wanted: Vec<(u32, usize)>,
    reads: Vec<Read>,
}

impl Engine {
    /// Reads ahead from now on, as far as it pays.
    pub fn look_ahead_with(&self, foresight: Box<dyn Foresight>) {
        self.state().ahead = Some(Ahead {
            foresight,
            governor: Governor::default(),
            guesses: Vec::new(),
            tally: AheadTally::default(),
            scores: Vec::new(),
            order: Vec::new(),
            wanted: Vec::new(),
            reads: Vec::new(),
        });
    }

    /// What became of the guesses so far; `None` if nothing is read ahead, or an event is being planned.
    pub fn ahead(&self) -> Option<AheadTally> {
        let state = self.state.try_lock().ok()?;
        state.ahead.as_ref().map(|ahead| ahead.tally)
    }

    /// An event of `layer` begins in lane `at`, with `n_rows` tokens for each expert: this lane's guesses
    /// were right or wrong.
    pub(super) fn settle_guesses(
        &self,
        state: &mut State,
        at: usize,
        layer: usize,
        n_rows: &[i64],
    ) {
        let Some(mut ahead) = state.ahead.take() else {
            return;
        };
        let mut hurried = Vec::new();
        let mut useless = Vec::new();
        for guess in &mut ahead.guesses {
            if guess.is_settled || guess.lane != at {
                continue;
            }
            guess.is_settled = true;
            let is_right = guess.layer == layer && n_rows[guess.id.expert as usize] > 0;
            ahead.governor.learn(guess.rank, is_right);
            if is_right {
                ahead.tally.right += 1;
            }
            if self.has_arrived(guess) {
                ahead.tally.in_time += u64::from(is_right);
            } else if is_right {
                hurried.push(self.slot_number(guess));
            } else if !self.is_used(state, guess) {
                useless.push(self.slot_number(guess));
            }
            if !is_right {
                ahead.tally.wasted_bytes += guess.part_bytes.iter().sum::<usize>() as u64;
            }
        }
        let of = |slots: &[u32], tag| matches!(Target::from_tag(tag), Target::Slot { slot, .. } if slots.contains(&slot));
        if !hurried.is_empty() {
            self.queue.hurry(&|tag| of(&hurried, tag));
        }
        if !useless.is_empty() {
            for tag in self.queue.recall(&|tag| of(&useless, tag)) {
                self.note_recalled(&mut ahead, tag);
            }
            self.read_rest(&mut ahead);
        }
        self.sweep(state, &mut ahead);
        state.ahead = Some(ahead);
    }

    fn note_recalled(&self, ahead: &mut Ahead, tag: u64) {
        let Target::Slot { slot, part } = Target::from_tag(tag) else {
            unreachable!("only slots are read ahead");
        };
        let mut guesses = ahead.guesses.iter_mut();
        let guess = guesses.find(|g| self.slot_number(g) == slot);
        let guess = guess.expect("only guesses are recalled");
        guess.recalled |= 1 << part;
        let n_bytes = guess.part_bytes[part as usize];
        self.meter.uncount(n_bytes);
        ahead.tally.wasted_bytes -= n_bytes as u64;
        if guess.recalled == self.layout.layers[guess.layer].all_parts() {
            ahead.tally.recalled += 1;
        }
    }

    /// Reads on what was recalled of guesses of which a part has begun: their experts are resident, and any
    /// event that picks one waits for all of it.
    fn read_rest(&self, ahead: &mut Ahead) {
        ahead.reads.clear();
        for guess in &mut ahead.guesses {
            let layer = &self.layout.layers[guess.layer];
            if guess.recalled == layer.all_parts() {
                continue;
            }
            let recalled = std::mem::take(&mut guess.recalled);
            for part in (0..layer.parts.len()).filter(|part| recalled & (1 << part) != 0) {
                let read = self.slot_read(layer, part, guess.id.expert, guess.slot);
                ahead.tally.wasted_bytes += read.len as u64;
                ahead.reads.push(read);
            }
        }
        self.meter.count(&ahead.reads);
        self.queue.submit_ahead(&ahead.reads);
    }

    /// Lets go of the slots of guesses that are settled and whose reads have ended; those that were
    /// recalled in part are free again.
    fn sweep(&self, state: &mut State, ahead: &mut Ahead) {
        ahead.guesses.retain(|guess| {
            let layer = &self.layout.layers[guess.layer];
            let left = layer.all_parts() & !guess.recalled;
            let slot = self.slot_number(guess);
            if !guess.is_settled || !self.arrivals.has_parts(slot, left) {
                return true;
            }
            let residency = &mut state.residencies[layer.pool];
            residency.let_go(guess.slot);
            if guess.recalled != 0 {
                residency.unfill(guess.id);
            }
            false
        });
    }

    /// Reads what the layer after `layer` will probably pick, now that lane `at` has planned an event of
    /// `layer`.
    pub(super) fn look_ahead(&self, state: &mut State, at: usize, layer: usize, routing: &Routing) {
        let next = layer + 1;
        if next == self.layout.layers.len() || routing.picks.n_tokens() as usize > Inputs::N_MAX {
            return;
        }
        let Some(mut ahead) = state.ahead.take() else {
            return;
        };
        if ahead.guess(next, routing.picks.n_used(), &routing.inputs) {
            self.read_wanted(state, &mut ahead, at, next);
        }
        state.ahead = Some(ahead);
    }

    fn read_wanted(&self, state: &mut State, ahead: &mut Ahead, at: usize, layer_index: usize) {
        let layer = &self.layout.layers[layer_index];
        let residency = &mut state.residencies[layer.pool];
        let id = |expert| ExpertId {
            layer: layer.pool_layer,
            expert,
        };
        ahead.reads.clear();
        for &(expert, rank) in &ahead.wanted {
            let wanted = id(expert);
            if residency.is_resident(wanted) || !ahead.governor.allows(rank) {
                continue;
            }
            let is_wanted = |other: ExpertId| {
                let mut wanted = ahead.wanted.iter();
                other.layer == layer.pool_layer && wanted.any(|&(e, _)| e == other.expert)
            };
            let Some(slot) = residency.fill_ahead(wanted, &is_wanted) else {
                break;
            };
            let n_before = ahead.reads.len();
            for part in 0..layer.parts.len() {
                ahead.reads.push(self.slot_read(layer, part, expert, slot));
            }
            let guess = Guess {
                lane: at,
                layer: layer_index,
                id: wanted,
                slot,
                rank,
                part_bytes: ahead.reads[n_before..].iter().map(|r| r.len).collect(),
                recalled: 0,
                is_settled: false,
            };
            self.arrivals.clear_slot(self.slot_number(&guess));
            ahead.guesses.push(guess);
            ahead.tally.guesses += 1;
        }
        if !ahead.reads.is_empty() {
            self.meter.count(&ahead.reads);
            self.queue.submit_ahead(&ahead.reads);
        }
    }

    /// The slot of a guess among the slots of all pools.
    fn slot_number(&self, guess: &Guess) -> u32 {
        let pool = self.layout.layers[guess.layer].pool;
        self.layout.pools[pool].first_slot + guess.slot
    }

    /// Whether an event of another lane, which found it resident, waits for it or computes with it.
    fn is_used(&self, state: &State, guess: &Guess) -> bool {
        let pool = self.layout.layers[guess.layer].pool;
        state.residencies[pool].is_used(guess.slot)
    }

    fn has_arrived(&self, guess: &Guess) -> bool {
        let all = self.layout.layers[guess.layer].all_parts();
        self.arrivals.has_parts(self.slot_number(guess), all)
    }
}

impl Ahead {
    /// Makes `wanted` what the routers of `layer` will probably pick, the surest first. False if there is
    /// nothing to tell.
    fn guess(&mut self, layer: usize, n_used: usize, inputs: &Inputs) -> bool {
        self.wanted.clear();
        for input in inputs.rows() {
            if !self.foresight.scores(layer, input, &mut self.scores) {
                return false;
            }
            let scores = &self.scores;
            self.order.clear();
            self.order.extend(0..scores.len() as u32);
            let n = n_used.min(scores.len());
            let by_score = |a: &u32, b: &u32| scores[*b as usize].total_cmp(&scores[*a as usize]);
            if n < scores.len() {
                self.order.select_nth_unstable_by(n, by_score);
                self.order.truncate(n);
            }
            self.order.sort_unstable_by(by_score);
            for (rank, &expert) in self.order.iter().enumerate() {
                match self.wanted.iter_mut().find(|(e, _)| *e == expert) {
                    Some((_, best)) => *best = rank.min(*best),
                    None => self.wanted.push((expert, rank)),
                }
            }
        }
        self.wanted.sort_by_key(|&(_, rank)| rank);
        !self.wanted.is_empty()
    }
}
