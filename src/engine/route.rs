//! The two calls of compute threads.

use super::arrivals::Target;
use super::core::{Engine, State};
use super::lane::{Source, Thinks};
use super::run::Routing;
use crate::error::Result;
use std::sync::atomic::Ordering;

impl Engine {
    /// An operation on part `part` of `layer` begins in the lane known as `key`.
    ///
    /// Called by thread 0 before the lane's `n_threads` threads acquire. Waits only for the ring. Returns whether
    /// an event began.
    pub fn route(
        &self,
        layer: usize,
        part: usize,
        key: usize,
        n_threads: u32,
        routing: &Routing,
    ) -> Result<bool> {
        let begin = self.arrivals.flight.now();
        let begins = self.route_op(layer, part, key, n_threads, routing)?;
        self.note_route(self.lane(key), layer, begin, begins, routing);
        Ok(begins)
    }

    fn route_op(&self, layer: usize, part: usize, key: usize, n_threads: u32, routing: &Routing) -> Result<bool> {
        let mut guard = self.state();
        let state = &mut *guard;
        let at = self.claim_lane(state, key)?;
        let begins = !state.runs.by_lane[at].continues(layer, part, routing);
        let is_trial = routing.batch.is_trial();
        if begins {
            let is_prefill = routing.batch.is_prefill(routing.picks.n_tokens());
            self.lanes[at].clock.begin(self.arrivals.flight.now(), is_prefill, layer == 0);
            self.close(state, at)?;
            // Nobody thinks about an event that was cut short.
            self.lanes[at].thinks.store(Thinks::NOT, Ordering::Relaxed);
            self.settle_ring(|owner| owner != at);
            if !is_trial {
                self.foresee(state, at, layer, routing);
            }
            let sure = self.begin(state, at, layer, routing)?;
            self.read_misses(state, at, layer, part, routing)?;
            if !is_trial {
                self.look_ahead(state, at, layer, routing);
                self.learn(state, at, layer, routing, sure);
            }
        } else if !is_trial {
            self.look_further(state, at);
        }
        let run = &mut state.runs.by_lane[at];
        run.parts_begun |= 1 << part;
        // From here on the lane is busy for everybody who looks, also while the lock is dropped.
        self.lanes[at].begin(n_threads, is_trial);
        let goes_on = run.is_streamed;
        // What gets a slot may pass through the ring before.
        let fills = run.open.as_ref().map_or(0, |plan| plan.fills.len());
        if run.staged.is_empty() && (!goes_on || fills == 0) {
            self.write_list(state, at, part, false);
            return Ok(begins);
        }
        drop(guard);
        self.take_ring(at, goes_on);
        let mut guard = self.state();
        self.write_list(&mut guard, at, part, true);
        drop(guard);
        if self.lanes[at].n_staged.load(Ordering::Relaxed) == 0 {
            self.ring.release();
            return Ok(begins);
        }
        self.check_files(layer)?;
        self.fill_ring(is_trial);
        Ok(begins)
    }

    /// Entry `i` of the operation of the lane known as `key`, for thread `ith`: the expert and the
    /// address of its weights, or `None` after the last. Waits until the weights are there.
    #[inline]
    pub fn acquire(
        &self,
        layer: usize,
        key: usize,
        ith: u32,
        i: usize,
    ) -> Result<Option<(u32, usize)>> {
        let lane = self.lane(key);
        if i <= 1 && self.arrivals.flight.pen.get().is_some() {
            self.draw_begin(lane, layer, ith, i);
        }
        if i > 0
            && let Source::Ring(number) = lane.source(i - 1)
        {
            self.leave_staged(lane, number as usize);
        }
        if i >= lane.n_entries.load(Ordering::Relaxed) {
            self.note_end(lane, layer, ith);
            if lane.finish() {
                self.ring.release();
            }
            return Ok(None);
        }
        if i == 0 {
            self.think_instead(lane, ith, Thinks::COMPUTING);
        }
        // Between two experts: what has been read is told of sooner, and the next read begins sooner, than if another
        // thread had to get a core for that.
        if self.arrivals.flight.has_reads() {
            self.queue.help();
        }
        let entry = lane.entry(i);
        let is_trial = || lane.is_trial.load(Ordering::Relaxed);
        let mut address = entry.address;
        let waited = match entry.source {
            Source::Memory => None,
            Source::Slot(slot) | Source::Early(slot) => {
                let part = lane.part.load(Ordering::Relaxed);
                if !self.arrivals.has_part(slot, part) {
                    self.think_instead(lane, ith, Thinks::WAITING);
                }
                let target = Target::Slot { slot, part };
                let waited = self.wait(target, ith == 0)?;
                self.make_ready(layer, part as usize, target, address);
                waited
            }
            Source::Ring(number) => {
                let (sequence, waited) = self.wait_staged(number as usize, ith == 0, is_trial())?;
                address += self.arena.addr() + self.place(sequence);
                let part = lane.part.load(Ordering::Relaxed) as usize;
                self.make_ready(layer, part, Target::Place { sequence }, address);
                waited
            }
        };
        if let Some(waited) = waited {
            self.note_wait(lane, layer, ith, entry, waited);
        }
        Ok(Some((entry.expert, address)))
    }

    /// An event of `layer` is about to be planned in lane `at`: what was guessed of it, and what is spared for
    /// the next.
    fn foresee(&self, state: &mut State, at: usize, layer: usize, routing: &Routing) {
        state.is_lent[layer] = false;
        if layer == 0 {
            self.note_batch(state, Some(at), routing.picks.n_tokens(), routing.batch);
        }
        self.settle_guesses(state, at, layer, routing);
        self.expect_next(state, at, layer);
    }
}
