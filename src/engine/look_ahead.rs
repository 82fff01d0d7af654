//! Reads ahead what was guessed, and settles it; `ahead.rs` says what that is.

use super::ahead::{Ahead, Guess, Miss};
use super::arrivals::Target;
use super::core::{Engine, State};
use super::foresight::{AheadTally, Foresight};
use super::governor::Governor;
use super::layout::Layer;
use super::run::{Routing, STALE_EVENTS};
use crate::expert::ExpertId;
use crate::store::Recalled;
use crate::timeline::What;
use crate::trial::Turn;

/// Nothing is read ahead into a pool of fewer slots than this many times what a token uses: all that is resident is
/// about to be used again.
const COLD_SLOTS_MIN: f64 = 1.25;

impl Engine {
    /// Reads ahead after `warm_up` batches of generation, as far as it pays: until then the disk is busy with what
    /// is needed and not there yet, and which guesses are right is not known. `turn` is that of the comparison.
    pub fn look_ahead_with(&self, foresight: Box<dyn Foresight>, warm_up: u32, turn: Turn) {
        self.state().ahead = Some(Ahead::new(foresight, Governor::new(warm_up, turn)));
    }

    /// What became of the guesses so far; `None` if nothing is read ahead, or an event is being planned
    /// and does not end.
    pub fn ahead(&self) -> Option<AheadTally> {
        let state = self.state.soon()?;
        let ahead = state.ahead.as_ref()?;
        let verdict = ahead.governor.verdict();
        Some(AheadTally {
            token_ms_on: verdict.map(|v| v.ms_with),
            token_ms_off: verdict.map(|v| v.ms_without),
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
            let is_over = guess.lane == at || state.runs.n_events - guess.begun_at > STALE_EVENTS;
            if guess.is_settled || !is_over {
                continue;
            }
            guess.is_settled = true;
            if let Some(pen) = self.arrivals.flight.pen.get() {
                let what = What::Guess {
                    layer: guess.layer as u32,
                    expert: guess.id.expert,
                    is_right: is_picked,
                    is_there: has_arrived,
                };
                pen.mark(0, what);
            }
            if is_picked {
                ahead.tally.right_reads += 1;
                ahead.tally.in_time += u64::from(has_arrived);
                continue;
            }
            ahead.tally.wasted_bytes += guess.part_bytes.iter().sum::<usize>() as u64;
            let pool = self.layout.layers[guess.layer].pool;
            let is_free = |held| !state.pools[pool].residency.is_used(held);
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
                guess.abandoned = Some(state.pools[layer.pool].residency.abandon(held));
            }
            let Some(n_arrived) = n_arrived else { continue };
            guess.dropped |= 1 << part;
            let part_bytes = &mut guess.part_bytes[part as usize];
            let n_bytes = std::mem::replace(part_bytes, n_arrived) - n_arrived;
            self.meter.uncount(n_bytes, n_arrived == 0);
            self.arrivals.flight.recall(tag);
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
            let residency = &mut state.pools[self.layout.layers[guess.layer].pool].residency;
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
        let top_k = routing.picks.top_k();
        // Where every expert is resident there is nothing to read or to spare.
        let has_misses = |layer: &Layer| {
            let residency = &state.pools[layer.pool].residency;
            (residency.n_resident() as usize) < residency.shape().n_total()
        };
        // What a device computes, memory need not have.
        let is_lent = state.is_lent.get(next).is_some_and(|&is_lent| is_lent);
        let is_worth_it = !is_lent && self.layout.layers.get(next).is_some_and(has_misses);
        if !is_worth_it || !ahead.guess(next, top_k, &routing.inputs) {
            ahead.wanted.clear();
        }
        for pool in state.pools.iter_mut() {
            pool.residency.expect([]);
        }
        if let Some(layer) = self.layout.layers.get(next) {
            let wanted = ahead.wanted.iter();
            state.pools[layer.pool].residency.expect(wanted.map(|&(expert, _)| ExpertId {
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
        let residency = &mut state.pools[layer.pool].residency;
        let id = |expert| ExpertId {
            layer: layer.pool_layer,
            expert,
        };
        // What little more than one token uses is all about to be used again.
        let cycle = residency.shape().n_layers() * ahead.top_k as u32;
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
                begun_at: state.runs.n_events,
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
            self.note_asked(layer_index, &ahead.reads, true, u64::MAX);
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
