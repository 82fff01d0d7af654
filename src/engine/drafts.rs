//! What the policies, the trackers and the logs hear of an event, see [`crate::draft_tokens`].

use super::{Engine, State};
use crate::draft_tokens::{Batch, Sure};
use crate::error::Result;
use crate::expert::Event;
use crate::residency::{Buffers, Committed};
use crate::trace::Picks;

impl Engine {
    /// Plans, counts and records the first of `events` of `layer`, and teaches what is sure of the second, which is of
    /// all that the tokens picked; keeps the rest. A trial is only planned.
    pub(super) fn plan_tokens(
        &self,
        state: &mut State,
        layer: usize,
        [event, all]: [&Event; 2],
        picks: Picks,
        batch: &Batch,
        buffers: Buffers,
    ) -> Result<Committed> {
        let pool = self.layout.layers[layer].pool;
        if batch.is_trial() {
            return state.residencies[pool].plan_trial(event, buffers);
        }
        while let Some(sure) = state.drafts.settle(layer, batch) {
            self.teach(state, &sure);
        }
        let sure = state.drafts.sort(layer, picks, batch);
        let taught = sure.as_ref().map_or(*all, |sure| sure.event(all.layer));
        let residency = &mut state.residencies[pool];
        let planned = residency.plan_taught(event, &taught, buffers)?;
        let plan = residency.commit(planned);
        self.note(state, layer, &taught);
        // Under the lock, so that lanes are recorded in the order in which they were planned.
        if let Some(recording) = &self.recording {
            recording.record(layer as u32, picks, batch.is_aside());
        }
        state.note_time();
        Ok(plan)
    }

    fn teach(&self, state: &mut State, sure: &Sure) {
        let layer = &self.layout.layers[sure.layer];
        let event = sure.event(layer.pool_layer);
        let taught = state.residencies[layer.pool].teach(&event);
        taught.expect("the experts were planned");
        self.note(state, sure.layer, &event);
    }

    /// As [`Drafts::drop_tokens`].
    pub fn drop_tokens(&self, memory: usize, seq: i32, begin: i32, end: i32) {
        self.state().drafts.drop_tokens(memory, seq, begin, end);
    }

    /// Teaches what is still open: nothing more will be dropped.
    pub fn settle_all(&self) {
        let mut state = self.state();
        for sure in state.drafts.settle_all() {
            self.teach(&mut state, &sure);
        }
    }

    /// Counts an event of `layer` that its policy was taught, and logs it if memory has to have its experts.
    fn note(&self, state: &mut State, layer: usize, event: &Event) {
        let pool = self.layout.layers[layer].pool;
        state.trackers[pool].record(event);
        if !state.is_lent[layer] {
            state.logs[pool].push(event);
        }
        self.recognise(state, layer, event);
    }
}
