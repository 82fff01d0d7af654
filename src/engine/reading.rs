//! What an event reads, and what is read for the next one of a prompt before that is routed.

use super::arrivals::{Target, is_of};
use super::core::{Engine, State};
use super::lane::Lane;
use super::meter::Spent;
use super::ring::{Needs, Order};
use super::run::Routing;
use crate::error::Result;
use crate::tracker::{Phase, Span};
use std::iter;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Experts of the next layer are read in advance that a batch picks with this chance: a wrong one costs its read, and a
/// right one saves as much at best.
const CHANCE_MIN: f64 = 0.75;
/// Tokens for which a flat router counts, beside those of the latest prompts.
const PRIOR_TOKENS: f64 = 8.0;
/// The latest visits of a layer by prompts count most.
const HALF_LIFE: Span = Span::HalfLife(4);

impl Engine {
    /// Submits the reads of what the event of lane `at` misses, `part` first. Of a prompt also those of what the
    /// next layer will need, as far as there is room.
    pub(super) fn read_misses(
        &self,
        state: &mut State,
        at: usize,
        layer: usize,
        part: usize,
        routing: &Routing,
    ) -> Result<()> {
        let clock = &self.lanes[at].clock;
        let began = clock.batch.load(Ordering::Relaxed);
        let spent = self.meter.spent(clock.is_prefill.load(Ordering::Relaxed));
        let hurried = state.ahead.as_mut().map(|ahead| std::mem::take(&mut ahead.hurried));
        let hurried = hurried.unwrap_or_default();
        let State { runs, scratch, .. } = state;
        let run = &mut runs.by_lane[at];
        let Some(plan) = &run.open else {
            return Ok(());
        };
        let is_prefill = routing.batch.is_prefill(routing.picks.n_tokens());
        if routing.batch.is_trial() || !is_prefill && plan.staged.is_empty() {
            let idle = self.read_fills(&mut scratch.reads, layer, part, plan, &hurried, began)?;
            Spent::add(&spent.idle_ns, idle);
            return Ok(());
        }
        if !hurried.is_empty() {
            self.queue.hurry(&|tag| is_of(tag, &hurried));
        }
        if !plan.fills.is_empty() || !plan.staged.is_empty() {
            self.check_files(layer)?;
        }
        let mut next = std::mem::take(&mut scratch.next);
        next.clear();
        if is_prefill {
            self.expect_of_prompt(state, layer + 1, routing, &mut next);
        }
        let State { runs, scratch, .. } = state;
        let run = &mut runs.by_lane[at];
        let plan = run.open.as_ref().expect("it is open");
        let fills: Vec<_> = plan.fills.iter().map(|f| (f.expert, f.slot)).collect();
        let first_slot = self.layout.pools[self.layout.layers[layer].pool].first_slot;
        for (_, slot) in &fills {
            self.arrivals.clear_slot(first_slot + slot);
        }
        let n_parts = self.layout.layers[layer].parts.len();
        let parts: Vec<_> = iter::once(part).chain((0..n_parts).filter(|&p| p != part)).collect();
        let needs = Needs {
            layer,
            parts: &parts,
            fills: &fills,
            staged: &plan.staged,
            next: &next,
        };
        scratch.orders.clear();
        let has_arrived = |sequence| self.arrivals.has_staged(sequence);
        run.is_streamed = self.ring.plan(at, &needs, &has_arrived, &mut scratch.orders);
        let planned = match run.is_streamed {
            true => {
                self.submit_orders(&scratch.orders, false);
                Ok(())
            }
            false => self
                .read_fills(&mut scratch.reads, layer, part, plan, &hurried, began)
                .map(|idle| Spent::add(&spent.idle_ns, idle)),
        };
        scratch.next = next;
        planned
    }

    /// What is not resident of what a prompt will probably pick of `layer`, in the order of the file.
    fn expect_of_prompt(
        &self,
        state: &State,
        layer: usize,
        routing: &Routing,
        expected: &mut Vec<u32>,
    ) {
        let Some(at) = self.layout.layers.get(layer) else {
            return;
        };
        let pool = &state.pools[at.pool];
        // What reads on demand says that a file has changed.
        if pool.residency.holds_all() || !state.follows[layer] || state.is_lent[layer] || self.check_files(layer).is_err() {
            return;
        }
        let counts = pool.tracker.counts(Phase::Prefill, HALF_LIFE, at.pool_layer);
        let flat = routing.picks.top_k() as f64 / f64::from(at.n_experts);
        let n_tokens = f64::from(routing.picks.n_tokens());
        for expert in 0..at.n_experts {
            let picks = counts.picks[expert as usize] + flat * PRIOR_TOKENS;
            let share = (picks / (counts.n_tokens + PRIOR_TOKENS)).min(1.0);
            let chance = 1.0 - libm::pow(1.0 - share, n_tokens);
            if chance >= CHANCE_MIN && !pool.residency.is_resident(self.id(layer, expert)) {
                expected.push(expert);
            }
        }
    }

    /// What has number `number` in the list of the operation has arrived in its place; waits for it, as in `wait`. Returns the
    /// sequence number of its read, and how long that took if it was not there.
    pub(super) fn wait_staged(&self, number: usize, looks: bool, is_trial: bool) -> Result<(u64, Option<Duration>)> {
        let mut waited: Option<Duration> = None;
        loop {
            let sequence = self.ring.sequence(number);
            if let Some(sequence) = sequence {
                let last = self.wait(Target::Place { sequence }, looks)?;
                let both = [waited, last].into_iter().flatten();
                return Ok((sequence, both.reduce(|a, b| a + b)));
            }
            // The place that it will get may be one whose read has to end first.
            let n_done = self.arrivals.n_done();
            self.fill_ring(is_trial);
            let begin = Instant::now();
            self.wait_until(None, looks, || {
                self.ring.sequence(number).is_some() || self.arrivals.n_done() != n_done
            })?;
            *waited.get_or_insert_default() += begin.elapsed();
        }
    }

    /// Reads what there are places for.
    pub(super) fn fill_ring(&self, is_trial: bool) {
        let mut orders = Vec::new();
        self.ring.fill(&|sequence| self.arrivals.has_staged(sequence), &mut orders);
        self.submit_orders(&orders, is_trial);
    }

    /// A thread has left behind what has this number in the list; the last one to do so reads what comes next.
    pub(super) fn leave_staged(&self, lane: &Lane, number: usize) {
        if lane.pass(number) {
            self.leave_place(number, lane.is_trial.load(Ordering::Relaxed));
        }
    }

    /// All threads have left behind what has this number in the list.
    pub(super) fn leave_place(&self, number: usize, is_trial: bool) {
        if let Some((item, slot)) = self.ring.copy(number) {
            let sequence = self.ring.sequence(number).expect("it has arrived");
            let layer = &self.layout.layers[item.layer];
            let from = self.place(sequence);
            let n_bytes = self.need(layer, item.part, item.expert);
            self.arena.copy(from..from + n_bytes, self.region(layer, item.part, slot));
            let target = Target::Slot {
                slot: self.layout.pools[layer.pool].first_slot + slot,
                part: item.part as u32,
            };
            self.note_copy(item.layer, item.part, target);
        }
        let mut orders = Vec::new();
        self.ring.leave(number, &|sequence| self.arrivals.has_staged(sequence), &mut orders);
        self.submit_orders(&orders, is_trial);
    }

    /// Reads what was to be copied from the ring to slots, of owners that are of this kind.
    pub(super) fn settle_ring(&self, is_of: impl Fn(usize) -> bool) {
        let mut orders: Vec<Order> = Vec::new();
        self.ring.settle(is_of, &mut orders);
        self.submit_orders(&orders, false);
    }

    /// Waits until no operation uses the ring; from now on one of `owner` does.
    pub(super) fn take_ring(&self, owner: usize, goes_on: bool) {
        let mut orders = Vec::new();
        self.ring.take(owner, goes_on, &mut orders);
        self.submit_orders(&orders, false);
    }
}
