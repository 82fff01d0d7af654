//! The life of an event: a lane is claimed, the event planned, its pins released.

use super::{Engine, N_LANES, Routing, Run, State};
use crate::error::Result;
use crate::expert::Event;
use std::sync::atomic::Ordering;

/// Events after which one that has not ended is taken for given up: many tokens of any model.
pub(super) const STALE_EVENTS: u64 = 10_000;

impl Engine {
    /// Finds the lane of the calling thread, or an idle one, and lets `key` lead to it.
    ///
    /// The thread identifies a lane over time: a thread pool can live as short as one graph.
    pub(super) fn claim_lane(&self, state: &mut State, key: usize) -> Result<usize> {
        let owner = Some(std::thread::current().id());
        for at in 0..state.n_lanes {
            let run = &state.runs[at];
            if run.open.is_none() || run.owner == owner {
                continue;
            }
            // An event that was cut short, whose thread may never come back. Should it be alive after
            // all, between two operations, it plans again.
            let is_stale = state.n_events - run.begun_at > STALE_EVENTS;
            if self.is_over(run, at) || is_stale && self.lanes[at].is_finished() {
                self.close(state, at)?;
                state.runs[at].parts_begun = 0;
            }
        }
        let used = &state.runs[..state.n_lanes];
        let mine = used.iter().position(|r| r.owner == owner);
        let idle = || (0..N_LANES).find(|&at| self.is_idle(&state.runs[at], at));
        let at = match mine.or_else(idle) {
            Some(at) => at,
            None => {
                let at = (0..N_LANES).find(|&at| self.lanes[at].is_finished());
                let at = at.expect("fewer graphs are computed at once than there are lanes");
                self.close(state, at)?;
                at
            }
        };
        state.n_lanes = state.n_lanes.max(at + 1);
        if state.runs[at].owner != owner {
            state.runs[at].owner = owner;
            state.runs[at].parts_begun = 0;
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
        let run = &mut state.runs[at];
        let Some(plan) = run.open.take() else {
            return Ok(());
        };
        let layer = &self.layout.layers[run.layer];
        let first_slot = self.layout.pools[layer.pool].first_slot;
        for fill in &plan.fills {
            let slot = first_slot + fill.slot;
            self.wait_for_parts(slot, layer.all_parts())?;
        }
        run.buffers = state.residencies[layer.pool].release(plan);
        Ok(())
    }

    /// Plans an event and counts it.
    pub(super) fn begin(
        &self,
        state: &mut State,
        at: usize,
        layer_index: usize,
        routing: &Routing,
    ) -> Result<()> {
        let n_tokens = routing.picks.n_tokens();
        let layer = &self.layout.layers[layer_index];
        let mut run = std::mem::take(&mut state.runs[at]);
        run.layer = layer_index;
        run.parts_begun = 0;
        run.n_tokens = n_tokens;
        run.begun_at = state.n_events;
        state.n_events += 1;
        run.experts.clear();
        run.rows.clear();
        run.staged.clear();
        let n_rows = routing.n_rows.iter().enumerate();
        for (expert, &rows) in n_rows.filter(|(_, r)| **r > 0) {
            run.experts.push(expert as u32);
            run.rows.push(rows as u32);
        }
        routing.best_ranks(&mut run.ranks);
        let event = Event {
            layer: layer.pool_layer,
            n_tokens,
            experts: &run.experts,
            rows: &run.rows,
            ranks: &run.ranks,
        };
        let (picks, batch) = (routing.picks, routing.batch);
        let events = [&event, &event];
        let buffers = std::mem::take(&mut run.buffers);
        let planned = self.plan_tokens(state, layer_index, events, picks, batch, buffers);
        let planned = planned.map(|plan| {
            run.staged.extend_from_slice(&plan.bypassed);
            run.open = Some(plan);
        });
        state.runs[at] = run;
        planned
    }
}

impl Routing<'_> {
    /// Makes `ranks` the best rank of each expert that is picked, by ascending expert.
    fn best_ranks(&self, ranks: &mut Vec<u32>) {
        const NOT_PICKED: u32 = u32::MAX;
        ranks.clear();
        ranks.resize(self.n_rows.len(), NOT_PICKED);
        for (id, rank) in self.picks.ranked() {
            let best = &mut ranks[id as usize];
            *best = rank.min(*best);
        }
        ranks.retain(|&rank| rank != NOT_PICKED);
    }
}

/// Whether an operation belongs to the event that a run has open: another part of the same layer
/// for the same rows.
pub(super) fn continues(run: &Run, layer: usize, part: usize, routing: &Routing) -> bool {
    let is_live = run.parts_begun != 0 && run.layer == layer && run.parts_begun & (1 << part) == 0;
    // Every token picks the same number of experts, so if these rows are the same, the others are
    // none, as they were.
    let mut known = run.experts.iter().zip(&run.rows);
    is_live
        && run.n_tokens == routing.picks.n_tokens()
        && known.all(|(&expert, &rows)| routing.n_rows[expert as usize] == i64::from(rows))
}
