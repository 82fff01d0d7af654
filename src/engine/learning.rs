//! What policies, trackers and the recent events hear of an event, see [`crate::draft_tokens`].

use super::core::{Engine, State};
use crate::draft_tokens::{Batch, Sure};
use crate::error::Result;
use crate::expert::Event;
use crate::profile::recognizer::{Known, Recognized, Recognizer};
use crate::residency::{Buffers, Committed};
use crate::trace::Picks;

impl Engine {
    /// Plans the first of `events` of `layer` and counts its hits and misses. Its policy is told of what is sure of the
    /// second, which is of all that the tokens picked: that is returned, `None` if all is sure, and still to be learnt.
    /// A trial is only planned.
    pub(super) fn plan_tokens(
        &self,
        state: &mut State,
        layer: usize,
        [event, all]: [&Event; 2],
        picks: Picks,
        batch: &Batch,
        buffers: Buffers,
    ) -> Result<(Committed, Option<Sure>)> {
        let pool = self.layout.layers[layer].pool;
        let State { pools, is_lent, .. } = state;
        if batch.is_trial() {
            let plan = pools[pool].residency.plan_trial(event, buffers)?;
            return Ok((plan, None));
        }
        let settled = pools.settle(layer, batch, State::is_kept(is_lent));
        settled.expect("the experts were planned");
        let sure = pools.sort(layer, picks, batch);
        let learnt = Sure::of(&sure, *all);
        let residency = &mut pools[pool].residency;
        let planned = residency.plan_learning(event, &learnt, buffers)?;
        Ok((residency.commit(planned), sure))
    }

    /// Records what was picked: under the lock, so that lanes are recorded in the order in which they were planned.
    pub(super) fn record(&self, state: &mut State, layer: usize, picks: Picks, batch: &Batch) {
        if let Some(recording) = &self.recording {
            let spots = batch.spots(picks.n_tokens());
            recording.record(layer as u32, picks, spots, batch.is_aside());
        }
        state.note_time();
    }

    /// As [`crate::draft_tokens::Drafts::drop_tokens`].
    pub fn drop_tokens(&self, memory: usize, seq: i32, begin: i32, end: i32) {
        self.state().pools.drop_tokens(memory, seq, begin, end);
    }

    /// Learns what is still open: nothing more will be dropped.
    pub fn settle_all(&self) {
        let mut guard = self.state();
        let State { pools, is_lent, .. } = &mut *guard;
        let settled = pools.settle_all(State::is_kept(is_lent));
        settled.expect("the experts were planned");
    }

    /// Tells the policies what is known of the workload, and who guesses what will be picked.
    pub fn prime(&self, known: &Known) {
        let mut state = self.state();
        state.pools.prime(known);
        if let Some(ahead) = &mut state.ahead {
            for (layer, frequency) in known.frequency.iter().enumerate() {
                ahead.foresight.prime(layer, frequency, known.n_tokens);
            }
        }
    }

    /// Policies of this name rank what is resident from now on. They are told what the tracker has counted, what is known
    /// of the workload, and what is resident; who waits for the lock meanwhile waits for some milliseconds. Fails if there
    /// is no such policy, and changes nothing then.
    pub fn rank_with(&self, policy: &str) -> Result<()> {
        self.state().pools.rank_with(policy)
    }

    /// What is compared with other policies begins here.
    pub fn forget_recent(&self) {
        self.state().pools.forget_recent();
    }

    /// What recognises the workload has found last, if anything: which profile, and how sure that is. `None` if an event
    /// is being planned and does not end.
    pub fn recognized(&self) -> Option<Recognized> {
        let state = self.state.soon()?;
        state.pools.recognizer().and_then(Recognizer::recognized)
    }

    /// Recognises the workload from now on; `None`: not any more.
    pub fn recognize_with(&self, recognizer: impl Into<Option<Recognizer>>) {
        self.state().pools.recognize_with(recognizer.into());
    }

    /// A batch begins in lane `at`, or on a device, with an event of `n_tokens`.
    pub(super) fn note_batch(&self, state: &mut State, at: Option<usize>, n_tokens: u32, batch: &Batch) {
        let n_tokens = if batch.is_prefill(n_tokens) { n_tokens } else { 0 };
        if let Some(notice) = state.prompts.note(at, n_tokens, self.meter.bytes_read()) {
            self.notices.tell(notice);
        }
    }
}
