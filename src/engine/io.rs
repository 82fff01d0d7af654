//! Which bytes of which file go where in the arena.

use super::arrivals::Target;
use super::layout::{Layer, Tensor};
use super::{Engine, State};
use crate::error::{Error, Result};
use crate::store::{Read, ReadFailure, Span, span};
use std::sync::atomic::Ordering;

impl Engine {
    /// Whether the budget holds every expert.
    pub fn holds_all(&self) -> bool {
        let pools = &self.layout.pools;
        pools
            .iter()
            .all(|p| p.n_slots as usize == p.shape.n_total())
    }

    /// Reads experts into all free slots, in the order of the file, and waits until they are there.
    /// Calls `progress` with the bytes done now and then.
    ///
    /// For a budget that holds every expert: then nothing is ever evicted, and the model starts as
    /// fast as one that is loaded as usual.
    pub fn preload(&self, mut progress: impl FnMut(u64)) -> Result<()> {
        let mut waits = Vec::new();
        {
            let mut state = self.state();
            let mut reads = Vec::new();
            for (at, residency) in state.residencies.iter_mut().enumerate() {
                let filled = residency.fill_free();
                let first_slot = self.layout.pools[at].first_slot;
                for layer in self.layout.layers.iter().filter(|l| l.pool == at) {
                    let mine = filled.iter().filter(|(id, _)| id.layer == layer.pool_layer);
                    for (id, slot) in mine {
                        self.arrivals.clear_slot(first_slot + slot);
                        waits.push((first_slot + slot, layer.parts.len()));
                        reads.extend((0..layer.parts.len()).map(|part| {
                            let target = Target::Slot {
                                slot: first_slot + slot,
                                part: part as u32,
                            };
                            let dst = self.region(layer, part, *slot);
                            self.read(layer, part, id.expert, dst, target)
                        }));
                    }
                }
            }
            reads.sort_by_key(|r| (r.file, r.offset));
            self.queue.submit(&reads);
        }
        for (slot, n_parts) in waits {
            let all = (1 << n_parts) - 1;
            self.arrivals
                .wait_until(|| self.arrivals.has_parts(slot, all))
                .map_err(|failure| self.read_error(failure))?;
            progress(self.queue.stats().bytes_read);
        }
        Ok(())
    }

    /// Submits the reads of a plan's fills, those of `part` before those of the other parts.
    pub(super) fn read_fills(&self, state: &mut State, at: usize, part: usize) -> Result<()> {
        let run = &state.runs[at];
        if run.plan.fills.is_empty() {
            return Ok(());
        }
        self.check_files(run.layer)?;
        let layer = &self.layout.layers[run.layer];
        let first_slot = self.layout.pools[layer.pool].first_slot;
        for fill in &run.plan.fills {
            self.arrivals.clear_slot(first_slot + fill.slot);
        }
        let n_parts = layer.parts.len();
        state.reads.clear();
        for part in (0..n_parts).map(|i| (part + i) % n_parts) {
            for fill in &run.plan.fills {
                let dst = self.region(layer, part, fill.slot);
                let target = Target::Slot {
                    slot: first_slot + fill.slot,
                    part: part as u32,
                };
                state
                    .reads
                    .push(self.read(layer, part, fill.expert, dst, target));
            }
        }
        self.meter.count(&state.reads);
        self.queue.submit(&state.reads);
        Ok(())
    }

    pub(super) fn staged_read(
        &self,
        layer: usize,
        part: usize,
        expert: u32,
        sequence: u64,
    ) -> Read {
        let layer = &self.layout.layers[layer];
        let target = Target::Place { sequence };
        let read = self.read(layer, part, expert, self.place(sequence), target);
        self.meter.count(&[read]);
        self.meter.has_staged.store(true, Ordering::Relaxed);
        read
    }

    fn read(&self, layer: &Layer, part: usize, expert: u32, dst: usize, target: Target) -> Read {
        let tensor = &layer.parts[part].tensor;
        let span = self.span(layer, part, expert);
        Read {
            file: tensor.file,
            offset: span.offset,
            len: span.len,
            need: span.skip + tensor.n_bytes,
            dst,
            tag: target.tag(),
        }
    }

    /// The bytes of a file that hold one part of an expert.
    pub(super) fn span(&self, layer: &Layer, part: usize, expert: u32) -> Span {
        let tensor = &layer.parts[part].tensor;
        let offset = tensor.offset + u64::from(expert) * tensor.n_bytes as u64;
        span(
            offset,
            tensor.n_bytes,
            self.queue.files()[tensor.file as usize].align(),
        )
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

    /// Names the tensor and expert of a failed read.
    pub(super) fn read_error(&self, failure: &ReadFailure) -> Error {
        // The last byte that was needed belongs to the expert; the first may be alignment.
        let byte = failure.offset + failure.n_bytes as u64 - 1;
        let files = self.queue.files();
        let holds = |t: &Tensor| {
            let end = t.offset + u64::from(t.n_experts) * t.n_bytes as u64;
            files[t.file as usize].path() == failure.path && (t.offset..end).contains(&byte)
        };
        let mut tensors = self
            .layout
            .layers
            .iter()
            .flat_map(|l| &l.parts)
            .map(|p| &p.tensor);
        let what = match tensors.find(|t| holds(t)) {
            Some(t) => {
                let expert = (byte - t.offset) / t.n_bytes as u64;
                format!("tensor '{}' expert {expert}", t.name)
            }
            None => "expert weights".to_string(),
        };
        Error::Read {
            what,
            path: failure.path.clone(),
            offset: failure.offset,
            n_bytes: failure.n_bytes,
            // An io::Error cannot be cloned; other threads may report the same failure.
            cause: match failure.cause.raw_os_error() {
                Some(code) => std::io::Error::from_raw_os_error(code),
                None => std::io::Error::new(failure.cause.kind(), failure.cause.to_string()),
            },
        }
    }
}
