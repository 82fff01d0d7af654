//! When guesses are made: while the thread that makes them would wait, or while others compute.
//!
//! Guessing goes through some hundred kilobytes of weights a layer. An event that misses something will wait for it, so
//! the lane's last thread guesses meanwhile; so does the first one if it comes to the next operation without having
//! waited. An event that misses nothing has the disk to itself, and its last thread guesses before it computes.

use super::ahead::{Ahead, Thought};
use super::core::{Engine, State};
use super::foresight::Inputs;
use super::lane::{Lane, Thinks};
use super::layout::Layer;
use super::predict::DISTANCE_MAX;
use super::run::Routing;
use crate::draft_tokens::Batch;
use crate::trace::Picks;
use std::sync::atomic::Ordering;

impl Engine {
    /// The event of `layer` in lane `at` is planned, and what it misses is asked for: notes what its router saw, to think
    /// about it.
    pub(super) fn look_ahead(&self, state: &mut State, at: usize, layer: usize, routing: &Routing) {
        let waits = self.will_wait(state, at, layer);
        let Some(ahead) = &mut state.ahead else {
            return;
        };
        ahead.outlook(at).next = None;
        ahead.foresight.meet(layer, routing.batch.ids(), routing.picks);
        if layer == 0 {
            ahead.memories.insert(routing.batch.memory());
        }
        // Where every expert is resident there is nothing to read or to spare.
        let has_misses = |layer: &Layer| !state.pools[layer.pool].residency.holds_all();
        let mut layers = self.layout.layers.iter().skip(layer).take(1 + DISTANCE_MAX);
        if routing.inputs.rows().next().is_none() || !layers.any(has_misses) {
            return;
        }
        let is_prompt = routing.picks.n_tokens() as usize > Inputs::N_MAX;
        if !is_prompt && !ahead.governor.is_guessing() {
            return;
        }
        ahead.foresight.see(at, layer, &routing.inputs);
        if is_prompt {
            ahead.foresight.learn(at, layer, None);
            return;
        }
        ahead.outlook(at).thought = Thought::of(layer, routing.picks);
        let thinks = if waits { Thinks::WAITING } else { Thinks::COMPUTING };
        self.lanes[at].thinks.store(thinks, Ordering::Relaxed);
    }

    /// The calling thread is about to compute `batch`: reads what its tokens will probably pick in the first layers, if
    /// they are few, and its context and this thread have computed with the model before.
    pub fn begin_batch(&self, batch: &Batch) {
        if batch.ids().is_empty() || batch.n_tokens() > Inputs::N_MAX || batch.is_trial() {
            return;
        }
        let mut guard = self.state();
        let state = &mut *guard;
        let owner = Some(std::thread::current().id());
        let used = &state.runs.by_lane[..state.runs.n_lanes];
        let Some(at) = used.iter().position(|run| run.owner == owner) else {
            return;
        };
        let is_ours = |ahead: &mut Ahead| {
            ahead.memories.contains(&batch.memory()) && ahead.governor.is_on() && ahead.top_k > 0
        };
        let Some(mut ahead) = state.ahead.take_if(is_ours) else {
            return;
        };
        ahead.remember(at, batch.ids());
        self.spare(&mut state.pools, 0, &ahead.outlook(at).near);
        self.note_misses(state, &mut ahead, at, 0);
        self.read_likely(state, &mut ahead, at);
        state.ahead = Some(ahead);
    }

    /// Whether something of the event of `layer` in lane `at` has not arrived.
    fn will_wait(&self, state: &State, at: usize, layer: usize) -> bool {
        let layer = &self.layout.layers[layer];
        let first_slot = self.layout.pools[layer.pool].first_slot;
        let is_coming = |slot: u32| !self.arrivals.has_parts(first_slot + slot, layer.all_parts());
        let plan = state.runs.by_lane[at].open.as_ref();
        plan.is_some_and(|plan| !plan.fills.is_empty() || plan.hits.iter().any(|&(_, slot)| is_coming(slot)))
    }

    /// Thread `ith` of `lane` begins to compute, or is about to wait: it may think instead. The last one does: others
    /// compute most of what it would have, as far as work is given out in small pieces, and the first one looks after
    /// the disk.
    #[inline]
    pub(super) fn think_instead(&self, lane: &Lane, ith: u32, when: u8) {
        if lane.thinks.load(Ordering::Relaxed) == when && ith + 1 == lane.n_threads.load(Ordering::Relaxed) {
            self.think_now(lane);
        }
    }

    #[cold]
    fn think_now(&self, lane: &Lane) {
        if lane.thinks.swap(Thinks::NOT, Ordering::Relaxed) != Thinks::NOT {
            let mut state = self.state();
            self.think(&mut state, lane.number);
        }
    }

    /// Another operation of the event of lane `at` begins: the disk may have time for more of what was guessed.
    pub(super) fn look_further(&self, state: &mut State, at: usize) {
        if self.lanes[at].thinks.swap(Thinks::NOT, Ordering::Relaxed) != Thinks::NOT {
            return self.think(state, at);
        }
        if let Some(mut ahead) = state.ahead.take() {
            self.read_likely(state, &mut ahead, at);
            state.ahead = Some(ahead);
        }
    }

    /// Guesses what comes after the event of lane `at`, reads of that what there is time for, and learns.
    fn think(&self, state: &mut State, at: usize) {
        let Some(mut ahead) = state.ahead.take() else {
            return;
        };
        let thought = std::mem::take(&mut ahead.outlook(at).thought);
        if let Some(layer) = thought.layer {
            let picks = Picks::new(&thought.ids, thought.top_k, thought.top_k);
            ahead.guess(at, layer, thought.top_k);
            self.note_misses(state, &mut ahead, at, layer + 1);
            self.read_likely(state, &mut ahead, at);
            ahead.foresight.learn(at, layer, Some(picks));
        }
        state.ahead = Some(ahead);
    }
}
