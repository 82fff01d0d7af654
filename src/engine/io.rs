//! Which bytes of which file go where in the arena.

use super::core::Engine;
use super::arrivals::Target;
use super::layout::{Layer, Tensor};
use super::ring::Order;
use crate::error::{Error, Result, cause_again};
use crate::residency::Plan;
use crate::store::{Read, ReadFailure, span};
use std::path::Path;
use crate::timeline::What;
use std::sync::atomic::Ordering;
use std::time::Duration;

impl Engine {
    /// Submits the reads of a plan's fills, and of what was guessed right and has not arrived in `hurried`: those of
    /// `part`, which is computed first, then the other parts in their order, which ends with what is computed last.
    /// Returns how long the disk had nothing to do before, since `began`.
    pub(super) fn read_fills(
        &self,
        reads: &mut Vec<Read>,
        number: usize,
        part: usize,
        plan: &Plan,
        hurried: &[u32],
        began: u64,
    ) -> Result<Duration> {
        if plan.fills.is_empty() && hurried.is_empty() {
            return Ok(Duration::ZERO);
        }
        self.check_files(number)?;
        let layer = &self.layout.layers[number];
        let first_slot = self.layout.pools[layer.pool].first_slot;
        for fill in &plan.fills {
            self.arrivals.clear_slot(first_slot + fill.slot);
        }
        let n_parts = layer.parts.len();
        // More than the disk is given at once comes in the order of the parts anyway.
        let is_apart = self.queue.takes_at_once((plan.fills.len() + hurried.len()) * n_parts);
        let mut idle = Duration::ZERO;
        let others = (0..n_parts).filter(|&p| p != part);
        for (turn, part) in std::iter::once(part).chain(others).enumerate() {
            reads.clear();
            for fill in &plan.fills {
                let read = self.slot_read(layer, part, fill.expert, fill.slot);
                reads.push(read);
            }
            self.meter.count(reads);
            idle += self.note_asked(number, reads, false, began);
            let is_needed = |tag| match Target::from_tag(tag) {
                Target::Slot { slot, part: of } => of as usize == part && hurried.contains(&slot),
                Target::Place { .. } => false,
            };
            self.queue.submit_turn(reads, &is_needed, turn > 0 && is_apart);
        }
        Ok(idle)
    }

    /// Reads of `layer` are about to be submitted. Returns how long the disk had nothing to do before, since `began`.
    pub(super) fn note_asked(&self, layer: usize, reads: &[Read], is_guess: bool, began: u64) -> Duration {
        let flight = &self.arrivals.flight;
        if let Some(pen) = flight.pen.get() {
            for read in reads {
                let (part, expert) = self.holder_in(layer, read);
                pen.disk(What::Asked {
                    tag: read.tag,
                    layer: layer as u32,
                    part,
                    expert,
                    is_guess,
                });
            }
        }
        flight.ask(reads.len(), began)
    }

    /// The part of `layer` that a read is of, and the expert.
    fn holder_in(&self, layer: usize, read: &Read) -> (u32, u32) {
        let parts = (0..).zip(&self.layout.layers[layer].parts);
        // The last byte that is needed belongs to the expert; the first may be alignment.
        let byte = read.offset + read.need as u64 - 1;
        let of_file = parts.filter(|(_, part)| part.tensor.file == read.file);
        let mut found = of_file.filter_map(|(number, part)| Some((number, part.tensor.expert_at(byte)?)));
        found.next().expect("reads are of experts of their layer")
    }

    /// The read of one part of `expert` into `slot` of the layer's pool.
    pub(super) fn slot_read(&self, layer: &Layer, part: usize, expert: u32, slot: u32) -> Read {
        let pool = &self.layout.pools[layer.pool];
        let target = Target::Slot {
            slot: pool.first_slot + slot,
            part: part as u32,
        };
        self.sizing
            .use_piece(pool.first_slot + slot, pool.slot_bytes);
        self.read(layer, part, expert, self.region(layer, part, slot), target)
    }

    /// Submits what the ring has ordered, which is not counted if it is for a trial.
    pub(super) fn submit_orders(&self, orders: &[Order], is_trial: bool) {
        if orders.is_empty() {
            return;
        }
        let reads: Vec<_> = orders.iter().map(|order| self.read_of(order)).collect();
        for (order, read) in orders.iter().zip(&reads) {
            let (item, is_guess) = match *order {
                Order::Slot(item, _) => (item, false),
                Order::Place(item, _, is_guess) => (item, is_guess),
            };
            self.note_asked(item.layer, std::slice::from_ref(read), is_guess, u64::MAX);
        }
        if !is_trial {
            self.meter.count(&reads);
            self.meter.has_staged.store(true, Ordering::Relaxed);
        }
        self.queue.submit(&reads);
    }

    fn read_of(&self, order: &Order) -> Read {
        match *order {
            Order::Slot(item, slot) => {
                let layer = &self.layout.layers[item.layer];
                self.slot_read(layer, item.part, item.expert, slot)
            }
            Order::Place(item, sequence, _) => {
                let layer = &self.layout.layers[item.layer];
                let ring_bytes = self.layout.arena_bytes - self.layout.ring.base;
                self.sizing.use_piece(self.layout.n_slots(), ring_bytes);
                let target = Target::Place { sequence };
                self.read(layer, item.part, item.expert, self.place(sequence), target)
            }
        }
    }

    /// How many bytes of a part's region are before and in the part: what of it is read, without what follows.
    pub(super) fn need(&self, layer: &Layer, part: usize, expert: u32) -> usize {
        let tensor = &layer.parts[part].tensor;
        self.skip(layer, part, expert) + tensor.n_bytes
    }

    /// How far in a region or a place the part begins.
    pub(super) fn skip(&self, layer: &Layer, part: usize, expert: u32) -> usize {
        let tensor = &layer.parts[part].tensor;
        let align = self.queue.files()[tensor.file as usize].align() as u64;
        // Alignments are powers of two, which `Engine::new` asserts.
        (tensor.offset_of(expert) & (align - 1)) as usize
    }

    fn read(&self, layer: &Layer, part: usize, expert: u32, dst: usize, target: Target) -> Read {
        let tensor = &layer.parts[part].tensor;
        let align = self.queue.files()[tensor.file as usize].align();
        let span = span(tensor.offset_of(expert), tensor.n_bytes, align);
        Read {
            file: tensor.file,
            offset: span.offset,
            len: span.len,
            need: span.skip + tensor.n_bytes,
            dst,
            tag: target.tag(),
        }
    }

    /// The address of a part of `expert` whose region or place begins at `dst` in the arena.
    pub(super) fn address(&self, layer: &Layer, part: usize, expert: u32, dst: usize) -> usize {
        self.arena.addr() + dst + self.skip(layer, part, expert)
    }

    /// Where a part's region of a slot begins in the arena.
    pub(super) fn region(&self, layer: &Layer, part: usize, slot: u32) -> usize {
        let pool = &self.layout.pools[layer.pool];
        pool.base + slot as usize * pool.slot_bytes + layer.parts[part].region
    }

    /// Where the place of a staged part begins in the arena.
    pub(super) fn place(&self, sequence: u64) -> usize {
        let ring = &self.layout.ring;
        ring.base + (sequence as usize % ring.n_places) * ring.place_bytes
    }

    /// Fails when a file of the layer is no longer what was loaded.
    pub(super) fn check_files(&self, layer: usize) -> Result<()> {
        let mut last = None;
        for part in &self.layout.layers[layer].parts {
            if last.replace(part.tensor.file) != Some(part.tensor.file) {
                self.queue.files()[part.tensor.file as usize].check_unchanged()?;
            }
        }
        Ok(())
    }

    /// The tensor and expert whose bytes a read is for.
    pub(super) fn holder_of(&self, path: &Path, offset: u64, n_bytes: usize) -> String {
        // The last byte that was needed belongs to the expert; the first may be alignment.
        let byte = offset + n_bytes as u64 - 1;
        let files = self.queue.files();
        let expert_of = |t: &Tensor| t.expert_at(byte).filter(|_| files[t.file as usize].path() == path);
        let tensors = self
            .layout
            .layers
            .iter()
            .flat_map(|l| &l.parts)
            .map(|p| &p.tensor);
        let mut holders = tensors.filter_map(|t| Some((t, expert_of(t)?)));
        match holders.next() {
            Some((t, expert)) => format!("tensor '{}' expert {expert}", t.name),
            None => "expert weights".to_string(),
        }
    }

    /// Names the tensor and expert of a failed read.
    pub(super) fn read_error(&self, failure: &ReadFailure) -> Error {
        Error::Read {
            what: self.holder_of(&failure.path, failure.offset, failure.n_bytes),
            path: failure.path.clone(),
            offset: failure.offset,
            n_bytes: failure.n_bytes,
            // Other threads may report the same failure.
            cause: cause_again(&failure.cause),
        }
    }
}
