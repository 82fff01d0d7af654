//! What the policies, the trackers and the logs hear of an event, see [`crate::drafts`].

use super::{Engine, Routing, State};
use crate::drafts::Sure;
use crate::error::Result;
use crate::expert::Event;
use crate::residency::Plan;

impl Engine {
    /// Plans an event of `layer` and teaches what is sure of it; keeps the rest.
    pub(super) fn plan(
        &self,
        state: &mut State,
        layer: usize,
        event: &Event,
        routing: &Routing,
        plan: &mut Plan,
    ) -> Result<()> {
        while let Some(sure) = state.drafts.settle(layer, routing.batch) {
            self.teach(state, &sure);
        }
        let pool = self.layout.layers[layer].pool;
        match state.drafts.sort(layer, routing.picks, routing.batch) {
            None => {
                state.residencies[pool].plan(event, plan)?;
                self.note(state, layer, event);
            }
            Some(sure) => {
                let taught = sure.event(event.layer);
                state.residencies[pool].plan_taught(event, &taught, plan)?;
                self.note(state, layer, &taught);
            }
        }
        Ok(())
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

    /// Counts and logs an event of `layer` that its policy was taught.
    fn note(&self, state: &mut State, layer: usize, event: &Event) {
        let pool = self.layout.layers[layer].pool;
        state.trackers[pool].record(event);
        state.logs[pool].push(event);
        self.recognise(state, layer, event);
    }
}
