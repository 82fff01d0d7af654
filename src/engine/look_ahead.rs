//! Reads ahead what was guessed, and settles it; `ahead.rs` says what that is.

use super::ahead::{Ahead, Guess, Miss};
use super::arrivals::{Target, is_of};
use super::core::{Engine, State};
use super::foresight::{AheadTally, Foresight, Likely};
use super::governor::{Governor, When};
use super::run::{Routing, STALE_EVENTS};
use crate::pooled::Pools;
use crate::store::Recalled;
use crate::timeline::What;

/// Nothing is read ahead into a pool of fewer slots than this many times what a token uses: all that is resident is
/// about to be used again.
const COLD_SLOTS_MIN: f64 = 1.25;
/// Experts that the next layer picks with this chance at least are read ahead, and those that the one after it does.
const NEAR_CHANCE_MIN: f32 = 0.35;
const FAR_CHANCE_MIN: f32 = 0.5;
/// What a guess of the layer after the next is worth beside one of the next: there will be a better one.
const FAR_WORTH: f32 = 0.8;
/// Experts with this chance are not evicted, if anything else can go.
const SPARE_CHANCE_MIN: f32 = 0.3;
/// Experts that are read ahead and have not arrived: what the disk can read while a layer is computed, and little more,
/// because each has taken a slot.
const N_OPEN_MAX: usize = 3;

impl Engine {
    /// Reads ahead what `foresight` guesses.
    pub fn look_ahead_with(&self, foresight: Box<dyn Foresight>, when: When) {
        self.state().ahead = Some(Ahead::new(foresight, Governor::new(when)));
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
        ahead.count(at, layer, n_rows);
        if layer == 0 {
            ahead.note_time(at, routing.picks.n_tokens());
        }
        let mut hurried = std::mem::take(&mut ahead.hurried);
        hurried.clear();
        let mut useless = Vec::new();
        for guess in &mut ahead.guesses {
            let is_picked = guess.layer == layer && n_rows[guess.id.expert as usize] > 0;
            let has_arrived = self.has_arrived(guess);
            let slot = self.slot_number(guess);
            // Other lanes wait for it too if they find it resident.
            if is_picked && !has_arrived && guess.held.is_some() {
                hurried.push(slot);
            }
            // Of a lane whose thread may never come back, others say that it is over. A guess of a layer that is still to
            // come waits for it.
            let is_due = guess.layer <= layer || guess.layer > layer + 1;
            let is_over = guess.lane == at && is_due || state.runs.n_events - guess.begun_at > STALE_EVENTS;
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
        // They go with the other reads of the layer.
        ahead.hurried = hurried;
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

    /// Spares what the layer after `layer` will pick, as lane `at` has guessed one layer before. Call this before the
    /// event of `layer` is planned.
    pub(super) fn expect_next(&self, state: &mut State, at: usize, layer: usize) {
        let Some(ahead) = &mut state.ahead else {
            return;
        };
        for pool in state.pools.iter_mut() {
            pool.residency.expect([]);
        }
        let outlook = ahead.outlook(at);
        let next = layer + 1;
        // What a device computes, memory need not have.
        let is_known = outlook.next.is_some_and(|near| near + 1 == next);
        if !is_known || state.is_lent.get(next).is_none_or(|&is_lent| is_lent) {
            return;
        }
        self.spare(&mut state.pools, next, &outlook.far);
    }

    /// Until others are expected, the likeliest of `likely` in the layer with this `number` are not evicted, if anything
    /// else can go.
    pub(super) fn spare(&self, pools: &mut Pools, number: usize, likely: &Likely) {
        let layer = &self.layout.layers[number];
        let likely = likely.iter().filter(|(_, chance)| *chance >= SPARE_CHANCE_MIN);
        let expected = likely.map(|&(expert, _)| self.id(number, expert));
        pools[layer.pool].residency.expect(expected);
    }

    /// Notes which of the guesses of `layer` are not resident.
    pub(super) fn note_misses(&self, state: &State, ahead: &mut Ahead, at: usize, number: usize) {
        let Some(layer) = self.layout.layers.get(number) else {
            return;
        };
        let residency = &state.pools[layer.pool].residency;
        let likely = &ahead.outlooks[at].near;
        for &(expert, _) in likely.iter().take_while(|(_, chance)| *chance >= NEAR_CHANCE_MIN) {
            if !residency.is_resident(self.id(number, expert)) {
                ahead.misses.push(Miss {
                    lane: at,
                    layer: number,
                    expert,
                });
            }
        }
    }

    /// Begins to read the likeliest of what lane `at` has guessed and is not resident, while only a few guesses have not
    /// arrived.
    pub(super) fn read_likely(&self, state: &mut State, ahead: &mut Ahead, at: usize) {
        if !ahead.governor.is_on() || ahead.outlook(at).next.is_none() {
            return;
        }
        let is_open = |guess: &&Guess| guess.abandoned.is_none() && !self.has_arrived(guess);
        let mut n_open = ahead.guesses.iter().filter(is_open).count();
        while n_open < N_OPEN_MAX && self.read_likeliest(state, ahead, at) {
            n_open += 1;
        }
    }

    /// Begins to read one more expert. False if none is worth it.
    fn read_likeliest(&self, state: &mut State, ahead: &mut Ahead, at: usize) -> bool {
        let outlook = &ahead.outlooks[at];
        let next = outlook.next.expect("it was guessed");
        let of_layer = |number: usize, likely: &[(u32, f32)], least: f32| {
            let layer = self.layout.layers.get(number)?;
            let residency = &state.pools[layer.pool].residency;
            // What little more than one token uses is all about to be used again.
            let cycle = residency.shape().n_layers() * ahead.top_k as u32;
            let has_cold_slots = f64::from(residency.n_slots()) >= COLD_SLOTS_MIN * f64::from(cycle);
            if state.is_lent[number] || !has_cold_slots {
                return None;
            }
            let likely = likely.iter().take_while(|(_, chance)| *chance >= least);
            let mut missing = likely.map(|&(expert, chance)| (chance, number, self.id(number, expert)));
            missing.find(|(_, _, id)| !residency.is_resident(*id))
        };
        let near = of_layer(next, &outlook.near, NEAR_CHANCE_MIN);
        let far = of_layer(next + 1, &outlook.far, FAR_CHANCE_MIN);
        let best = match (near, far) {
            (Some(near), Some(far)) if near.0 < FAR_WORTH * far.0 => far,
            (Some(near), _) => near,
            (None, Some(far)) => far,
            (None, None) => return false,
        };
        let (_, number, id) = best;
        // What reads on demand says that a file has changed.
        if self.check_files(number).is_err() {
            return false;
        }
        let layer = &self.layout.layers[number];
        let Some(held) = state.pools[layer.pool].residency.fill_ahead(id) else {
            return false;
        };
        let slot = held.slot();
        ahead.reads.clear();
        for part in 0..layer.parts.len() {
            ahead.reads.push(self.slot_read(layer, part, id.expert, slot));
        }
        let guess = Guess {
            lane: at,
            begun_at: state.runs.n_events,
            layer: number,
            id,
            slot,
            part_bytes: ahead.reads.iter().map(|r| r.len).collect(),
            dropped: 0,
            held: Some(held),
            abandoned: None,
            is_settled: false,
        };
        self.arrivals.clear_slot(self.slot_number(&guess));
        ahead.guesses.push(guess);
        ahead.tally.reads += 1;
        self.meter.count(&ahead.reads);
        self.note_asked(number, &ahead.reads, true, u64::MAX);
        self.queue.submit_ahead(&ahead.reads);
        true
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
