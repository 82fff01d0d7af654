//! The life of an event: a lane is claimed, the event planned, its pins released.

use super::core::{Engine, State};
use super::run::{N_LANES, Routing, Run, STALE_EVENTS};
use crate::draft_tokens::Sure;
use crate::error::Result;
use std::sync::atomic::Ordering;

impl Engine {
    /// Finds the lane of the calling thread, or an idle one, and lets `key` lead to it.
    ///
    /// The thread identifies a lane over time: a thread pool can live as short as one graph.
    pub(super) fn claim_lane(&self, state: &mut State, key: usize) -> Result<usize> {
        let owner = Some(std::thread::current().id());
        for at in 0..state.runs.n_lanes {
            let run = &state.runs.by_lane[at];
            if run.open.is_none() || run.owner == owner {
                continue;
            }
            // An event that was cut short, whose thread may never come back. Should it be alive after
            // all, between two operations, it plans again.
            let is_stale = state.runs.n_events - run.begun_at > STALE_EVENTS;
            if self.is_over(run, at) || is_stale && self.lanes[at].is_finished() {
                self.close(state, at)?;
                state.runs.by_lane[at].parts_begun = 0;
            }
        }
        let used = &state.runs.by_lane[..state.runs.n_lanes];
        let mine = used.iter().position(|r| r.owner == owner);
        let idle = || (0..N_LANES).find(|&at| self.is_idle(&state.runs.by_lane[at], at));
        let at = match mine.or_else(idle) {
            Some(at) => at,
            None => {
                let at = (0..N_LANES).find(|&at| self.lanes[at].is_finished());
                let at = at.expect("fewer graphs are computed at once than there are lanes");
                self.close(state, at)?;
                at
            }
        };
        state.runs.n_lanes = state.runs.n_lanes.max(at + 1);
        if state.runs.by_lane[at].owner != owner {
            state.runs.by_lane[at].owner = owner;
            state.runs.by_lane[at].parts_begun = 0;
            state.prompts.forget(at);
        }
        if self.lanes[at].key.load(Ordering::Relaxed) != key {
            for lane in &self.lanes {
                let _ = lane
                    .key
                    .compare_exchange(key, 0, Ordering::Relaxed, Ordering::Relaxed);
            }
            self.lanes[at].key.store(key, Ordering::Relaxed);
        }
        Ok(at)
    }

    /// Whether all operations of a run's event are finished.
    fn is_over(&self, run: &Run, at: usize) -> bool {
        run.parts_begun == self.layout.layers[run.layer].all_parts() && self.lanes[at].is_finished()
    }

    /// Whether a lane holds no pins and computes nothing, so that another thread can have it.
    fn is_idle(&self, run: &Run, at: usize) -> bool {
        run.open.is_none() && self.lanes[at].is_finished()
    }

    /// Ends a run's event: its pins go. Reads of an event that was cut short must have arrived
    /// before their slots can be used for anything else.
    pub(super) fn close(&self, state: &mut State, at: usize) -> Result<()> {
        let run = &mut state.runs.by_lane[at];
        let Some(plan) = run.open.take() else {
            return Ok(());
        };
        self.settle_ring(|owner| owner == at);
        let layer = &self.layout.layers[run.layer];
        let first_slot = self.layout.pools[layer.pool].first_slot;
        for fill in &plan.fills {
            let slot = first_slot + fill.slot;
            self.wait_for_parts(slot, layer.all_parts())?;
        }
        run.buffers = state.pools[layer.pool].residency.release(plan);
        Ok(())
    }

    /// Plans an event and counts its hits and misses. Returns what is sure of it, `None` if all is: that is still to be
    /// learnt.
    pub(super) fn begin(
        &self,
        state: &mut State,
        at: usize,
        layer_index: usize,
        routing: &Routing,
    ) -> Result<Option<Sure>> {
        let layer = &self.layout.layers[layer_index];
        let n_events = state.runs.n_events;
        state.runs.n_events += 1;
        let mut run = std::mem::take(&mut state.runs.by_lane[at]);
        let follows_prompt = run.layer + 1 == layer_index && run.event(0).is_prefill();
        run.begin(layer_index, n_events, routing);
        if follows_prompt && !routing.batch.is_trial() {
            state.follows[layer_index] = run.event(0).is_prefill();
        }
        let buffers = std::mem::take(&mut run.buffers);
        let event = run.event(layer.pool_layer);
        let (picks, batch) = (routing.picks, routing.batch);
        let planned =
            self.plan_tokens(state, layer_index, [&event, &event], picks, batch, buffers);
        let planned = planned.map(|(plan, sure)| {
            run.staged.extend_from_slice(&plan.staged);
            run.open = Some(plan);
            sure
        });
        state.runs.by_lane[at] = run;
        planned
    }

    /// Learns from the event of lane `at`, of which `sure` is sure.
    pub(super) fn learn(
        &self,
        state: &mut State,
        at: usize,
        layer: usize,
        routing: &Routing,
        sure: Option<Sure>,
    ) {
        let local = self.layout.layers[layer].pool_layer;
        let State { runs, pools, .. } = state;
        let all = runs.by_lane[at].event(local);
        let event = Sure::of(&sure, all);
        pools.count(layer, &event, !state.is_lent[layer]);
        self.record(state, layer, routing.picks, routing.batch);
    }
}
