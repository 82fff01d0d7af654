//! What is about to be computed is rewritten, if it has to be.

use super::arrivals::Target;
use super::core::Engine;
use super::rewriting::{Rewrite, Rewriting};

impl Engine {
    /// Rewrites parts from now on. Call it before anything is read. Panics if chunks are smaller than a 32,768th of a part.
    pub fn rewrite_with(&self, rewrite: Box<dyn Rewrite>) {
        let n_parts = self.layout.layers.iter().map(|layer| layer.parts.len()).max();
        let n_slots = self.layout.n_slots() as usize;
        self.arrivals.rewrite(n_slots, n_parts.unwrap_or(0), self.layout.ring.n_places);
        let _ = self.rewriting.set(Rewriting::new(&self.layout, rewrite));
    }

    /// Whether any part is rewritten.
    pub fn rewrites(&self) -> bool {
        self.rewriting.get().is_some()
    }

    /// Whether what has arrived at `target`, a part of `layer`, can be computed as it is.
    pub(super) fn is_ready(&self, layer: usize, part: usize, target: Target) -> bool {
        let Some((of, progress)) = self.rewriting.get().zip(self.arrivals.progress(target)) else {
            return true;
        };
        let n = of.chunks(layer, part).n;
        n == 0 || progress.is_done(n)
    }

    /// What has arrived at `target` and is at `address` is part `part` of an expert of `layer`, which is about to be
    /// computed: rewrites it, together with whoever else is about to.
    pub(super) fn make_ready(&self, layer: usize, part: usize, target: Target, address: usize) {
        let Some((of, progress)) = self.rewriting.get().zip(self.arrivals.progress(target)) else {
            return;
        };
        let chunks = of.chunks(layer, part);
        let n_bytes = self.layout.layers[layer].parts[part].tensor.n_bytes;
        progress.work(chunks.n, |number| {
            let begin = number as usize * chunks.n_bytes;
            let n_bytes = chunks.n_bytes.min(n_bytes - begin);
            of.rewrite.rewrite(layer, part, address + begin, n_bytes);
        });
    }

    /// A part of `layer` was copied to `target` after it had been computed.
    pub(super) fn note_copy(&self, layer: usize, part: usize, target: Target) {
        let n = self.rewriting.get().map_or(0, |of| of.chunks(layer, part).n);
        self.arrivals.note_copy(target, n);
    }
}
