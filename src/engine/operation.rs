//! The list of an operation: its experts in the order in which they are computed.

use super::arrivals::Target;
use super::core::{Engine, State};
use super::lane::{Entry, Scratch, Source};
use super::ring::Item;
use std::sync::atomic::Ordering;

/// Experts that are there are computed before the first one of the ring, so that its bytes can arrive.
const LEAD: usize = 2;

impl Engine {
    /// Writes the list of the operation on `part`, which has the ring if any of its experts pass through it.
    ///
    /// What the ring holds already comes first: its reads go on only as its entries are computed. Then what is there,
    /// and what is coming; both are in the order in which they were read. What the ring is still to get comes last,
    /// or, if nothing is coming, between what is there.
    pub(super) fn write_list(&self, state: &mut State, at: usize, part: usize, has_ring: bool) {
        let lane = &self.lanes[at];
        let Scratch {
            there,
            coming,
            staged,
            ..
        } = &mut state.scratch;
        let run = &state.runs.by_lane[at];
        let layer = &self.layout.layers[run.layer];
        let pool = &self.layout.pools[layer.pool];
        let first_region = self.arena.addr() + self.region(layer, part, 0);
        let mut n = 0;
        let mut put = |expert, region: usize, source| {
            let entry = Entry {
                expert,
                address: region + self.skip(layer, part, expert),
                source,
            };
            lane.put(n, entry);
            n += 1;
        };
        // Readiness is looked at once: an arrival in between must not drop or repeat an expert.
        there.clear();
        coming.clear();
        staged.clear();
        if has_ring {
            let item = |expert| Item {
                layer: run.layer,
                part,
                expert,
            };
            let fills = run.open.iter().flat_map(|plan| plan.fills.iter().map(|f| item(f.expert)));
            self.ring.list(run.staged.iter().map(|&e| item(e)), fills, staged);
        }
        if let Some(plan) = &run.open {
            let fills = plan.fills.iter().map(|f| (f.expert, f.slot));
            let hits = plan.hits.iter().map(|&hit| (hit, true));
            for ((expert, slot), is_hit) in hits.chain(fills.map(|fill| (fill, false))) {
                if staged.iter().any(|item| item.expert == expert) {
                    continue;
                }
                let region = first_region + slot as usize * pool.slot_bytes;
                let number = pool.first_slot + slot;
                let is_there = self.arrivals.has_part(number, part as u32);
                let target = Target::Slot {
                    slot: number,
                    part: part as u32,
                };
                match is_there && self.is_ready(run.layer, part, target) {
                    true => there.push((expert, region)),
                    false if is_hit => coming.push((expert, region, Source::Early(number))),
                    false => coming.push((expert, region, Source::Slot(number))),
                }
            }
        }
        let n_staged = staged.len();
        let has_arrived = |number: &usize| {
            let sequence = self.ring.sequence(*number);
            sequence.is_some_and(|sequence| self.arrivals.has_staged(sequence))
        };
        let n_arrived = (0..n_staged).take_while(has_arrived).count();
        let numbered = (0..).zip(staged.iter());
        let mut staged = numbered.map(|(number, item)| (item.expert, 0, Source::Ring(number)));
        for (expert, region, source) in staged.by_ref().take(n_arrived) {
            put(expert, region, source);
        }
        let n_there = there.len();
        let mut n_mixed = 0;
        for (i, (expert, region)) in there.iter().copied().enumerate() {
            put(expert, region, Source::Memory);
            if coming.is_empty() && i >= LEAD {
                let wanted = (n_staged - n_arrived) * (i + 1 - LEAD) / (n_there - LEAD);
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
        lane.n_staged.store(n_staged, Ordering::Relaxed);
    }
}
