//! Reading ahead: experts that the next layer will probably pick are read before its router has run.
//!
//! The guess is the next layer's router applied to what this layer's router saw: a layer changes the
//! hidden state little. It is made for a few tokens at a time, after the reads of this layer's
//! misses have been submitted, and read while nothing else is: a guess that turns out right is then
//! an expert like any other, one that turns out wrong is recalled if its reads have not begun.

use super::arrivals::Target;
use super::event_life::STALE_EVENTS;
use super::foresight::{AheadTally, Foresight, Inputs};
use super::governor::Governor;
use super::layout::Layer;
use super::odds::Lead;
use super::{Engine, Routing, State};
use crate::expert::ExpertId;
use crate::residency::{Abandoned, Hold};
use crate::store::{Read, Recalled};
use std::time::{Duration, Instant};

/// Nothing is read ahead into a pool of fewer slots than this many times what a token uses: all that is resident is
/// about to be used again.
const COLD_SLOTS_MIN: f64 = 1.25;

/// An expert that is not resident and will probably be picked.
struct Miss {
    lane: usize,
    layer: usize,
    expert: u32,
    lead: Lead,
}

/// An expert that is being read ahead, or was. Until its reads have ended, its slot is held or abandoned.
struct Guess {
    lane: usize,
    /// The value of `State::n_events` when it was made.
    begun_at: u64,
    layer: usize,
    id: ExpertId,
    slot: u32,
    /// Bytes of the reads of each part, without those that were dropped.
    part_bytes: Vec<usize>,
    /// One bit per part whose read was dropped.
    dropped: u32,
    held: Option<Hold>,
    /// Of one that is not resident any more, because not all of it is read.
    abandoned: Option<Abandoned>,
    /// Whether it is known if it was right.
    is_settled: bool,
}

/// What a model reads ahead; under the state lock.
pub(super) struct Ahead {
    foresight: Box<dyn Foresight>,
    governor: Governor,
    begin: Instant,
    /// The lane of the latest token.
    lane: usize,
    misses: Vec<Miss>,
    guesses: Vec<Guess>,
    tally: AheadTally,
    scores: Vec<f32>,
    /// Experts that a token picks of a layer.
    n_used: usize,
    /// Experts by score.
    order: Vec<u32>,
    /// The experts that the next layer is expected to pick, and their leads.
    wanted: Vec<(u32, Lead)>,
    reads: Vec<Read>,
}

impl Engine {
    /// Reads ahead after `warm_up` batches of generation, as far as it pays: until then the disk is busy with what
    /// is needed and not there yet, and which guesses are right is not known.
    pub fn look_ahead_with(&self, foresight: Box<dyn Foresight>, warm_up: u32) {
        self.state().ahead = Some(Ahead {
            foresight,
            governor: Governor::new(warm_up),
            begin: Instant::now(),
            lane: 0,
            misses: Vec::new(),
            guesses: Vec::new(),
            tally: AheadTally::default(),
            scores: Vec::new(),
            n_used: 0,
            order: Vec::new(),
            wanted: Vec::new(),
            reads: Vec::new(),
        });
    }

    /// What became of the guesses so far; `None` if nothing is read ahead, or an event is being planned
    /// and does not end.
    pub fn ahead(&self) -> Option<AheadTally> {
        let state = self.state.soon()?;
        let ahead = state.ahead.as_ref()?;
        let ms = |took: Duration| took.as_secs_f64() * 1e3;
        let verdict = ahead.governor.verdict();
        Some(AheadTally {
            token_ms_on: verdict.map(|v| ms(v.on)),
            token_ms_off: verdict.map(|v| ms(v.off)),
            ..ahead.tally
        })
    }

    /// An event of `layer` begins in lane `at`: this lane's guesses were right or wrong.
    pub(super) fn settle_guesses(
        &self,
        state: &mut State,
        at: usize,
        layer: usize,
        routing: &Routing,
    ) {
        let Some(mut ahead) = state.ahead.take() else {
            return;
        };
        let n_rows = routing.n_rows;
        ahead.learn(at, layer, n_rows);
        if layer == 0 {
            ahead.note_time(at, routing.picks.n_tokens());
        }
        let mut hurried = Vec::new();
        let mut useless = Vec::new();
        for guess in &mut ahead.guesses {
            let is_picked = guess.layer == layer && n_rows[guess.id.expert as usize] > 0;
            let has_arrived = self.has_arrived(guess);
            let slot = self.slot_number(guess);
            // Other lanes wait for it too if they find it resident.
            if is_picked && !has_arrived && guess.held.is_some() {
                hurried.push(slot);
            }
            // Of a lane whose thread may never come back, others say that it is over.
            let is_over = guess.lane == at || state.n_events - guess.begun_at > STALE_EVENTS;
            if guess.is_settled || !is_over {
                continue;
            }
            guess.is_settled = true;
            if is_picked {
                ahead.tally.right_reads += 1;
                ahead.tally.in_time += u64::from(has_arrived);
                continue;
            }
            ahead.tally.wasted_bytes += guess.part_bytes.iter().sum::<usize>() as u64;
            let pool = self.layout.layers[guess.layer].pool;
            let is_free = |held| !state.residencies[pool].is_used(held);
            if !has_arrived && guess.held.as_ref().is_some_and(is_free) {
                useless.push(slot);
            }
        }
        if !hurried.is_empty() {
            self.queue.hurry(&|tag| is_of(tag, &hurried));
        }
        if !useless.is_empty() {
            let recalled = self.queue.recall(&|tag| is_of(tag, &useless));
            self.abandon(state, &mut ahead, &recalled);
        }
        self.sweep(state, &mut ahead);
        state.ahead = Some(ahead);
    }

    /// Guesses of which reads were recalled are not resident any more.
    fn abandon(&self, state: &mut State, ahead: &mut Ahead, recalled: &Recalled) {
        let dropped = recalled
            .dropped
            .iter()
            .copied()
            .map(|(tag, n)| (tag, Some(n)));
        let cut = recalled.cut.iter().map(|&tag| (tag, None));
        for (tag, n_arrived) in dropped.chain(cut) {
            let Target::Slot { slot, part } = Target::from_tag(tag) else {
                unreachable!("only slots are read ahead");
            };
            let mut guesses = ahead.guesses.iter_mut();
            let guess = guesses.find(|g| self.slot_number(g) == slot);
            let guess = guess.expect("only guesses are recalled");
            let layer = &self.layout.layers[guess.layer];
            if let Some(held) = guess.held.take() {
                guess.abandoned = Some(state.residencies[layer.pool].abandon(held));
            }
            let Some(n_arrived) = n_arrived else { continue };
            guess.dropped |= 1 << part;
            let part_bytes = &mut guess.part_bytes[part as usize];
            let n_bytes = std::mem::replace(part_bytes, n_arrived) - n_arrived;
            self.meter.uncount(n_bytes, n_arrived == 0);
            ahead.tally.wasted_bytes -= n_bytes as u64;
            ahead.tally.recalled += u64::from(guess.part_bytes.iter().all(|&n| n == 0));
        }
    }

    /// Lets go of the slots of guesses that are settled and whose reads have ended.
    fn sweep(&self, state: &mut State, ahead: &mut Ahead) {
        let is_over = |guess: &mut Guess| {
            let left = self.layout.layers[guess.layer].all_parts() & !guess.dropped;
            guess.is_settled && self.arrivals.has_parts(self.slot_number(guess), left)
        };
        for guess in ahead.guesses.extract_if(.., is_over) {
            let slot = self.slot_number(&guess);
            let residency = &mut state.residencies[self.layout.layers[guess.layer].pool];
            if let Some(abandoned) = guess.abandoned {
                self.arrivals.clear_slot(slot);
                residency.reclaim(abandoned);
            }
            if let Some(held) = guess.held {
                residency.let_go(held);
            }
        }
    }

    /// Guesses what the layer after `layer` will pick, and spares it from now on. Call this before the
    /// event of `layer` is planned.
    pub(super) fn expect_next(&self, state: &mut State, layer: usize, routing: &Routing) {
        let Some(ahead) = &mut state.ahead else {
            return;
        };
        let next = layer + 1;
        let n_used = routing.picks.n_used();
        // Where every expert is resident there is nothing to read or to spare.
        let has_misses = |layer: &Layer| {
            let residency = &state.residencies[layer.pool];
            (residency.n_resident() as usize) < residency.shape().n_total()
        };
        // What a device computes, memory need not have.
        let is_lent = state.is_lent.get(next).is_some_and(|&is_lent| is_lent);
        let is_worth_it = !is_lent && self.layout.layers.get(next).is_some_and(has_misses);
        if !is_worth_it || !ahead.guess(next, n_used, &routing.inputs) {
            ahead.wanted.clear();
        }
        for residency in &mut state.residencies {
            residency.expect([]);
        }
        if let Some(layer) = self.layout.layers.get(next) {
            let wanted = ahead.wanted.iter();
            state.residencies[layer.pool].expect(wanted.map(|&(expert, _)| ExpertId {
                layer: layer.pool_layer,
                expert,
            }));
        }
    }

    /// Reads what the layer after `layer` will probably pick, in lane `at`.
    pub(super) fn look_ahead(&self, state: &mut State, at: usize, layer: usize) {
        let Some(mut ahead) = state.ahead.take() else {
            return;
        };
        if !ahead.wanted.is_empty() {
            self.read_wanted(state, &mut ahead, at, layer + 1);
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
        // What little more than one token uses is all about to be used again.
        let cycle = residency.shape().n_layers() * ahead.n_used as u32;
        let has_cold_slots = f64::from(residency.n_slots()) >= COLD_SLOTS_MIN * f64::from(cycle);
        ahead.reads.clear();
        for &(expert, lead) in &ahead.wanted {
            let wanted = id(expert);
            if residency.is_resident(wanted) {
                continue;
            }
            ahead.misses.push(Miss {
                lane: at,
                layer: layer_index,
                expert,
                lead,
            });
            if !has_cold_slots || !ahead.governor.allows(layer_index, lead) {
                continue;
            }
            // What reads on demand says that a file has changed.
            if ahead.reads.is_empty() && self.check_files(layer_index).is_err() {
                break;
            }
            let Some(held) = residency.fill_ahead(wanted) else {
                break;
            };
            let slot = held.slot();
            let n_before = ahead.reads.len();
            for part in 0..layer.parts.len() {
                ahead.reads.push(self.slot_read(layer, part, expert, slot));
            }
            let guess = Guess {
                lane: at,
                begun_at: state.n_events,
                layer: layer_index,
                id: wanted,
                slot,
                part_bytes: ahead.reads[n_before..].iter().map(|r| r.len).collect(),
                dropped: 0,
                held: Some(held),
                abandoned: None,
                is_settled: false,
            };
            self.arrivals.clear_slot(self.slot_number(&guess));
            ahead.guesses.push(guess);
            ahead.tally.reads += 1;
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

    fn has_arrived(&self, guess: &Guess) -> bool {
        let all = self.layout.layers[guess.layer].all_parts();
        self.arrivals.has_parts(self.slot_number(guess), all)
    }
}

/// Whether the read with this tag is of one of `slots`.
fn is_of(tag: u64, slots: &[u32]) -> bool {
    matches!(Target::from_tag(tag), Target::Slot { slot, .. } if slots.contains(&slot))
}

impl Ahead {
    /// Compares what was guessed in lane `at` with what was picked.
    fn learn(&mut self, at: usize, layer: usize, n_rows: &[i64]) {
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

    /// A batch of `n_tokens` begins in lane `at`.
    fn note_time(&mut self, at: usize, n_tokens: u32) {
        if n_tokens > 1 || at != self.lane {
            self.governor.interrupt();
        }
        self.lane = at;
        if n_tokens as usize <= Inputs::N_MAX {
            self.governor.batch();
        }
        if n_tokens == 1 {
            self.governor.token(self.begin.elapsed());
        }
    }

    /// Makes `wanted` what the routers of `layer` will probably pick, the surest first. False if there is
    /// nothing to tell.
    fn guess(&mut self, layer: usize, n_used: usize, inputs: &Inputs) -> bool {
        self.wanted.clear();
        self.n_used = n_used;
        for input in inputs.rows() {
            if !self.foresight.scores(layer, input, &mut self.scores) {
                return false;
            }
            self.note_best(n_used);
        }
        self.wanted.sort_unstable_by(|a, b| b.1.total_cmp(&a.1));
        !self.wanted.is_empty()
    }

    /// Adds the `n_used` experts of the highest scores to `wanted`.
    fn note_best(&mut self, n_used: usize) {
        let scores = &self.scores;
        self.order.clear();
        self.order.extend(0..scores.len() as u32);
        if n_used >= scores.len() {
            return;
        }
        let by_score = |a: &u32, b: &u32| scores[*b as usize].total_cmp(&scores[*a as usize]);
        let (best, next, _) = self.order.select_nth_unstable_by(n_used, by_score);
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
