//! Experts that a device takes: disk -> memory -> device.
//!
//! What a device lacks of an event is planned as one event of memory: what is not there is read into slots,
//! all reads at once, in the order in which the device takes it. The pins of the event are a [`Loan`], because
//! a device may take bytes later than it is told to. What found no slot passes through the staging ring, and
//! is taken at once.
//!
//! The policy hears of all that was picked, as if memory had computed it; what the device keeps is spare here.

use super::arrivals::Target;
use super::core::{Engine, State};
use super::meter::{Meter, Spent};
use super::ring::Item;
use crate::draft_tokens::{Batch, Sure};
use crate::error::Result;
use crate::expert::Picked;
use crate::residency::{Buffers, Committed};
use crate::trace::Picks;
use std::ops::Range;

/// Who has the ring when a device takes what passes through it: no lane.
const DEVICES: usize = usize::MAX - 1;

/// What a device has planned for an event.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// The experts of each token.
    pub picks: Picks<'a>,
    /// Which tokens these are.
    pub batch: &'a Batch,
    /// What the device takes of these, ascending; experts that are not among them do not matter.
    pub missing: &'a [u32],
    /// What it gives up for that: layers and experts.
    pub victims: &'a [(usize, u32)],
    /// Whether it keeps what it takes.
    pub is_kept: bool,
}

/// A part of an expert, for a device to take.
#[derive(Debug, Clone, Copy)]
pub struct Piece {
    /// The expert.
    pub expert: u32,
    /// Its part.
    pub part: usize,
    /// Where its bytes are.
    pub address: usize,
    /// Whether they are there until the loan has ended. If not, they are to be taken at once.
    pub stays: bool,
}

/// Pins of what a device has been told to take. One for each device that takes by itself.
#[derive(Default)]
pub struct Loan {
    layer: usize,
    n_tokens: u32,
    is_prefill: bool,
    is_trial: bool,
    /// What is lent.
    plan: Option<Committed>,
    buffers: Buffers,
    pairs: Vec<(u32, u32)>,
    all: Picked,
    missing: Picked,
}

impl Loan {
    /// Where the time counts that is waited for it, if it does.
    fn spent<'a>(&self, meter: &'a Meter) -> Option<&'a Spent> {
        (!self.is_trial).then(|| meter.spent(self.is_prefill))
    }

    /// All that was picked, ascending.
    pub fn picked(&self) -> &[u32] {
        &self.all.experts
    }

    /// Notes all that was picked, and of this what is missing.
    fn note(&mut self, wanted: &Wanted) {
        self.pairs.clear();
        self.pairs.extend(wanted.picks.ranked());
        self.all.set(&mut self.pairs);
        let is_missing = |id: &u32| wanted.missing.binary_search(id).is_ok();
        self.pairs.retain(|(id, _)| is_missing(id));
        self.missing.set(&mut self.pairs);
        let spots = wanted.batch.spots(self.n_tokens);
        self.all.tokens.set(spots, wanted.picks.rows());
        // Of what each lacks nobody hears.
        self.missing.tokens.place(spots);
    }
}

impl Engine {
    /// The router of `layer` has picked experts that a device computes: brings those that it lacks to memory
    /// and shows each part to `take` when it is there. `loan` must have [ended](Self::end_loan), and holds what
    /// `take` was shown until it does again.
    ///
    /// Called by the thread that computes the layers on the CPU, while it computes none.
    pub fn lend(
        &self,
        layer: usize,
        wanted: &Wanted,
        loan: &mut Loan,
        take: impl FnMut(Piece),
    ) -> Result<()> {
        self.begin_loan(layer, wanted, loan)?;
        self.show(loan, 0..self.layout.layers[layer].parts.len(), take)
    }

    /// As [`Self::lend`], but shows nothing yet. Each part is to be [shown](Self::show) once.
    pub fn begin_loan(&self, layer: usize, wanted: &Wanted, loan: &mut Loan) -> Result<()> {
        assert!(loan.plan.is_none(), "the last loan has ended");
        assert!(!self.rewrites(), "devices take experts as the file has them");
        loan.layer = layer;
        loan.n_tokens = wanted.picks.n_tokens();
        loan.is_prefill = wanted.batch.is_prefill(loan.n_tokens);
        loan.is_trial = wanted.batch.is_trial();
        loan.note(wanted);
        self.plan_loan(&mut self.state(), wanted, loan)
    }

    /// Shows `parts` of what is lent.
    pub fn show(
        &self,
        loan: &Loan,
        parts: Range<usize>,
        mut take: impl FnMut(Piece),
    ) -> Result<()> {
        let Loan { layer, plan, .. } = loan;
        let Some(plan) = plan else {
            return Ok(());
        };
        let fills: Vec<_> = plan.fills.iter().map(|f| (f.expert, f.slot)).collect();
        for slots in [&plan.hits, &fills] {
            self.show_slots(*layer, slots, parts.clone(), (loan.spent(&self.meter), true), &mut take)?;
        }
        self.show_staged(*layer, &plan.staged, parts, loan.spent(&self.meter), &mut take)
    }

    /// The device has taken all that it was shown. Waits for reads of what it was not.
    pub fn end_loan(&self, loan: &mut Loan) -> Result<()> {
        let Some(plan) = loan.plan.take() else {
            return Ok(());
        };
        let layer = &self.layout.layers[loan.layer];
        let first_slot = self.layout.pools[layer.pool].first_slot;
        for fill in &plan.fills {
            self.wait_for_parts(first_slot + fill.slot, layer.all_parts())?;
        }
        loan.buffers = self.state().pools[layer.pool].residency.release(plan);
        Ok(())
    }

    /// Shows all parts of an expert that no event has asked for; they are to be taken at once. No event is
    /// counted or learnt, and what is not in memory does not get there.
    pub fn lend_in_advance(
        &self,
        layer: usize,
        expert: u32,
        mut take: impl FnMut(Piece),
    ) -> Result<()> {
        assert!(!self.rewrites(), "devices take experts as the file has them");
        let pool = self.layout.layers[layer].pool;
        let id = self.id(layer, expert);
        let held = self.state().pools[pool].residency.hold(id);
        self.settle_ring(|_| true);
        let parts = 0..self.layout.layers[layer].parts.len();
        let Some(held) = held else {
            return self.show_staged(layer, &[expert], parts, Some(&self.meter.generation), &mut take);
        };
        let slots = [(expert, held.slot())];
        let spent = Some(&self.meter.generation);
        let shown = self.show_slots(layer, &slots, parts, (spent, false), &mut take);
        let residency = &mut self.state().pools[pool].residency;
        residency.let_go(held);
        residency.spare(id);
        shown
    }

    /// A device no longer holds these experts: layers and experts.
    pub fn keep(&self, experts: &[(usize, u32)]) {
        self.keep_in(&mut self.state(), experts);
    }

    fn keep_in(&self, state: &mut State, experts: &[(usize, u32)]) {
        for &(layer, expert) in experts {
            let pool = self.layout.layers[layer].pool;
            state.pools[pool].residency.keep(self.id(layer, expert));
        }
    }

    /// Plans what is missing, starts the reads, and learns what was picked.
    fn plan_loan(&self, state: &mut State, wanted: &Wanted, loan: &mut Loan) -> Result<()> {
        self.leave_lane(state)?;
        self.settle_ring(|_| true);
        let layer = &self.layout.layers[loan.layer];
        let n_tokens = wanted.picks.n_tokens();
        state.runs.n_events += 1;
        if !wanted.batch.is_trial() {
            self.note_loan(state, loan.layer, n_tokens, wanted.batch);
        }
        let all = loan.all.event(layer.pool_layer, n_tokens);
        let missing = loan.missing.event(layer.pool_layer, n_tokens);
        let (picks, batch) = (wanted.picks, wanted.batch);
        let buffers = std::mem::take(&mut loan.buffers);
        let events = [&missing, &all];
        let (plan, sure) =
            self.plan_tokens(state, loan.layer, events, picks, batch, buffers)?;
        let plan = &*loan.plan.insert(plan);
        if wanted.batch.is_trial() {
            return Ok(());
        }
        let residency = &mut state.pools[layer.pool].residency;
        for &expert in all.experts.iter().filter(|_| wanted.is_kept) {
            residency.spare(self.id(loan.layer, expert));
        }
        self.keep_in(state, wanted.victims);
        self.read_fills(&mut state.scratch.reads, loan.layer, 0, plan, &[], u64::MAX)?;
        let learnt = Sure::of(&sure, all);
        let is_kept = !state.is_lent[loan.layer];
        state.pools.count(loan.layer, &learnt, is_kept);
        if !missing.experts.is_empty() {
            state.pools[layer.pool].recent.push(&missing);
        }
        self.record(state, loan.layer, picks, batch);
        Ok(())
    }

    /// A device computes `layer`: nothing is read ahead for it.
    fn note_loan(&self, state: &mut State, layer: usize, n_tokens: u32, batch: &Batch) {
        for pool in state.pools.iter_mut() {
            pool.residency.expect([]);
        }
        state.is_lent[layer] = true;
        if layer == 0 {
            self.note_batch(state, None, n_tokens, batch);
            if let Some(ahead) = &mut state.ahead {
                ahead.interrupt();
            }
        }
    }

    /// What this thread has computed last is finished, so its pins go.
    fn leave_lane(&self, state: &mut State) -> Result<()> {
        let owner = Some(std::thread::current().id());
        let is_mine = |at: &usize| state.runs.by_lane[*at].owner == owner && self.lanes[*at].is_finished();
        if let Some(at) = (0..state.runs.n_lanes).find(is_mine) {
            self.close(state, at)?;
            state.runs.by_lane[at].parts_begun = 0;
        }
        Ok(())
    }

    /// Shows experts in slots of the layer's pool, part by part, each as soon as it is there.
    fn show_slots(
        &self,
        layer: usize,
        slots: &[(u32, u32)],
        parts: Range<usize>,
        (spent, stays): (Option<&Spent>, bool),
        take: &mut impl FnMut(Piece),
    ) -> Result<()> {
        let layer = &self.layout.layers[layer];
        let first_slot = self.layout.pools[layer.pool].first_slot;
        for part in parts {
            for &(expert, slot) in slots {
                let target = Target::Slot {
                    slot: first_slot + slot,
                    part: part as u32,
                };
                self.wait_for_device(spent, target)?;
                take(Piece {
                    expert,
                    part,
                    address: self.address(layer, part, expert, self.region(layer, part, slot)),
                    stays,
                });
            }
        }
        Ok(())
    }

    /// Waits for what a device takes; that is time of thread 0 if it counts at all.
    fn wait_for_device(&self, spent: Option<&Spent>, target: Target) -> Result<()> {
        let waited = self.wait(target, true)?;
        if let Some((spent, waited)) = spent.zip(waited) {
            Spent::add(&spent.stalled_ns, waited);
        }
        Ok(())
    }

    /// Shows experts that pass through the staging ring, part by part.
    fn show_staged(
        &self,
        layer: usize,
        experts: &[u32],
        parts: Range<usize>,
        spent: Option<&Spent>,
        take: &mut impl FnMut(Piece),
    ) -> Result<()> {
        if experts.is_empty() {
            return Ok(());
        }
        self.check_files(layer)?;
        self.take_ring(DEVICES, false);
        let shown = self.show_ring(layer, experts, parts, spent, take);
        self.ring.release();
        shown
    }

    fn show_ring(
        &self,
        layer_index: usize,
        experts: &[u32],
        parts: Range<usize>,
        spent: Option<&Spent>,
        take: &mut impl FnMut(Piece),
    ) -> Result<()> {
        let layer = &self.layout.layers[layer_index];
        let both = parts.flat_map(|part| experts.iter().map(move |&expert| (part, expert)));
        let items = both.map(|(part, expert)| Item {
            layer: layer_index,
            part,
            expert,
        });
        let is_trial = spent.is_none();
        let mut list = Vec::new();
        self.ring.list(items, std::iter::empty(), &mut list);
        self.fill_ring(is_trial);
        for (number, &Item { part, expert, .. }) in list.iter().enumerate() {
            let (sequence, waited) = self.wait_staged(number, true, is_trial)?;
            if let Some((spent, waited)) = spent.zip(waited) {
                Spent::add(&spent.stalled_ns, waited);
            }
            take(Piece {
                expert,
                part,
                address: self.address(layer, part, expert, self.place(sequence)),
                stays: false,
            });
            self.leave_place(number, is_trial);
        }
        Ok(())
    }
}
