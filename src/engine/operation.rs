//! The list of an operation: its experts in the order in which they are computed.

use super::core::{Engine, State};
use super::lane::{Entry, Lane, Scratch, Source};
use std::sync::atomic::Ordering;

/// Experts that are there are computed before the first one of the ring, so that its bytes can arrive.
const LEAD: usize = 2;

impl Engine {
    /// Writes the list of the operation on `part`, in which experts pass through the ring as number `first`
    /// and on.
    ///
    /// What is there comes first, then what is coming; both are in the order in which they were read. What
    /// passes through the ring comes last, or, if nothing is coming, between what is there: the ring is
    /// small, and its reads go on only as its entries are computed.
    pub(super) fn write_list(&self, state: &mut State, at: usize, part: usize, first: u64) {
        let lane = &self.lanes[at];
        let Scratch { there, coming, .. } = &mut state.scratch;
        let run = &state.runs.by_lane[at];
        let layer = &self.layout.layers[run.layer];
        let pool = &self.layout.pools[layer.pool];
        let first_region = self.arena.addr() + self.region(layer, part, 0);
        let tensor = &layer.parts[part].tensor;
        let align = self.queue.files()[tensor.file as usize].align() as u64;
        let mut n = 0;
        let mut put = |expert, region: usize, source| {
            // What `span` skips; alignments are powers of two, which `Engine::new` asserts.
            let skip = (tensor.offset_of(expert) & (align - 1)) as usize;
            let entry = Entry {
                expert,
                address: region + skip,
                source,
            };
            lane.put(n, entry);
            n += 1;
        };
        // Readiness is looked at once: an arrival in between must not drop or repeat an expert.
        there.clear();
        coming.clear();
        if let Some(plan) = &run.open {
            let fills = plan.fills.iter().map(|f| (f.expert, f.slot));
            let hits = plan.hits.iter().map(|&hit| (hit, true));
            for ((expert, slot), is_hit) in hits.chain(fills.map(|fill| (fill, false))) {
                let region = first_region + slot as usize * pool.slot_bytes;
                let number = pool.first_slot + slot;
                match self.arrivals.has_part(number, part as u32) {
                    true => there.push((expert, region)),
                    false if is_hit => coming.push((expert, region, Source::Early(number))),
                    false => coming.push((expert, region, Source::Slot(number))),
                }
            }
        }
        let mut staged = (0..).zip(&run.staged).map(|(number, &expert)| {
            let place = self.arena.addr() + self.place(first + u64::from(number));
            (expert, place, Source::Ring(number))
        });
        let n_there = there.len();
        let mut n_mixed = 0;
        for (i, (expert, region)) in there.iter().copied().enumerate() {
            put(expert, region, Source::Memory);
            if coming.is_empty() && i >= LEAD {
                let wanted = run.staged.len() * (i + 1 - LEAD) / (n_there - LEAD);
                for (expert, region, source) in staged.by_ref().take(wanted - n_mixed) {
                    put(expert, region, source);
                }
                n_mixed = wanted;
            }
        }
        for (expert, region, source) in coming.iter().copied().chain(staged) {
            put(expert, region, source);
        }
        lane.part.store(part as u32, Ordering::Relaxed);
        lane.n_entries.store(n, Ordering::Relaxed);
        lane.n_staged.store(run.staged.len(), Ordering::Relaxed);
        lane.first_sequence.store(first, Ordering::Relaxed);
    }

    /// A thread has left behind what passed through the ring after `number` others; the last one to do so
    /// reads the next expert into the place.
    pub(super) fn leave_staged(&self, lane: &Lane, layer: usize, number: usize) {
        if !lane.pass(number) {
            return;
        }
        let next = number + self.layout.ring.n_places;
        if next < lane.n_staged.load(Ordering::Relaxed) {
            let sequence = lane.first_sequence.load(Ordering::Relaxed) + next as u64;
            let part = lane.part.load(Ordering::Relaxed) as usize;
            let expert = lane.staged(next);
            let read = self.staged_read(layer, part, expert, sequence);
            self.submit_staged(layer, &[read], lane.is_trial.load(Ordering::Relaxed));
        }
    }
}
