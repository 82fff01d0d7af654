//! Parts that are rewritten in their places before they are computed: what computes may want their bytes in another order
//! than the file has them in.
//!
//! A part is rewritten in chunks. Whoever needs the part takes one chunk after the other until all are taken, and then
//! waits for those that other threads have: so all threads of a lane, or of two, share the work, and nothing that reads
//! has any. How far a part is, is a word for each slot and part, and for each place of the ring:
//!
//! ```text
//!   0 <= done <= taken <= chunks      read, and nobody may compute with it
//!   done == chunks                    rewritten
//! ```
//!
//! It is 0 again when the next read of the part has arrived.

use super::arrivals::Target;
use super::core::Engine;
use super::layout::{Layer, Part};
use std::sync::atomic::{AtomicU32, Ordering};

/// Rewrites parts of experts in their places.
pub trait Rewrite: Send + Sync {
    /// Bytes of a chunk of part `part` of the experts of `layer`, of which the last one may have fewer; 0: the part is
    /// computed as the file has it.
    fn chunk_bytes(&self, layer: usize, part: usize) -> usize;

    /// Rewrites a chunk of `n_bytes` at `address`, which nobody else uses meanwhile.
    fn rewrite(&self, layer: usize, part: usize, address: usize, n_bytes: usize);
}

/// What is rewritten, and by what.
pub(super) struct Rewriting {
    rewrite: Box<dyn Rewrite>,
    /// By layer and part.
    chunks: Vec<Vec<Chunks>>,
}

/// The chunks of a part.
#[derive(Debug, Clone, Copy)]
struct Chunks {
    /// Of all but the last.
    n_bytes: usize,
    /// None if the part is not rewritten.
    n: u32,
}

/// How far the parts of slots and places are.
pub struct Rewritten {
    n_parts: usize,
    slots: Box<[Progress]>,
    places: Box<[Progress]>,
}

impl Rewritten {
    /// Nothing is, of slots with up to `n_parts` parts and of places.
    pub fn new(n_slots: usize, n_parts: usize, n_places: usize) -> Self {
        let new = |n| (0..n).map(|_| Progress::default()).collect();
        Self {
            n_parts,
            slots: new(n_slots * n_parts),
            places: new(n_places),
        }
    }

    /// How far what is at `target` is.
    pub fn of(&self, target: Target) -> &Progress {
        match target {
            Target::Slot { slot, part } => &self.slots[slot as usize * self.n_parts + part as usize],
            Target::Place { sequence } => &self.places[sequence as usize % self.places.len()],
        }
    }
}

/// How far a part is: the chunks that are taken, and in the upper half those that are done.
#[derive(Default)]
pub struct Progress(AtomicU32);

const TAKEN: u32 = 0xffff;
const DONE: u32 = 0x1_0000;
/// Chunks of a part: more threads than the rest of 16 bits do not take one too many at once.
const N_CHUNKS_MAX: usize = 0x8000;
/// Looks at the others' chunks before the core is given to whoever wants it.
const LOOKS: u32 = 256;

impl Progress {
    /// The part has come, and `n` chunks of it are done: none of what was read, all of a copy. Nobody uses it yet, and
    /// whoever tells of it orders this before.
    pub fn begin(&self, n: u32) {
        self.0.store(n | n * DONE, Ordering::Relaxed);
    }

    /// Whether all of `n` chunks are done.
    pub fn is_done(&self, n: u32) -> bool {
        self.0.load(Ordering::Acquire) / DONE == n
    }

    /// Takes chunks of `n`, and returns when all of them are done.
    fn work(&self, n: u32, mut rewrite: impl FnMut(u32)) {
        while self.0.load(Ordering::Relaxed) & TAKEN < n {
            let taken = self.0.fetch_add(1, Ordering::Relaxed) & TAKEN;
            if taken >= n {
                break;
            }
            rewrite(taken);
            self.0.fetch_add(DONE, Ordering::Release);
        }
        let mut n_looks = 0;
        while !self.is_done(n) {
            n_looks += 1;
            match n_looks % LOOKS {
                0 => std::thread::yield_now(),
                _ => std::hint::spin_loop(),
            }
        }
    }
}

impl Engine {
    /// Rewrites parts from now on. Call it before anything is read.
    pub fn rewrite_with(&self, rewrite: Box<dyn Rewrite>) {
        let of_layer = |(number, layer): (usize, &Layer)| {
            let chunks = |(part, of): (usize, &Part)| {
                let n_bytes = rewrite.chunk_bytes(number, part);
                let n = if n_bytes == 0 { 0 } else { of.tensor.n_bytes.div_ceil(n_bytes) };
                assert!(n <= N_CHUNKS_MAX, "chunks of {n_bytes} bytes are too small");
                Chunks { n_bytes, n: n as u32 }
            };
            layer.parts.iter().enumerate().map(chunks).collect()
        };
        let chunks = self.layout.layers.iter().enumerate().map(of_layer).collect();
        let n_parts = self.layout.layers.iter().map(|layer| layer.parts.len()).max();
        self.arrivals.rewrite(self.layout.n_slots() as usize, n_parts.unwrap_or(0), self.layout.ring.n_places);
        let _ = self.rewriting.set(Rewriting { rewrite, chunks });
    }

    /// Whether any part is rewritten.
    pub fn rewrites(&self) -> bool {
        self.rewriting.get().is_some()
    }

    /// Whether what has arrived at `target`, a part of `layer`, can be computed as it is.
    pub(super) fn is_ready(&self, layer: usize, part: usize, target: Target) -> bool {
        let Some((of, progress)) = self.rewriting.get().zip(self.arrivals.rewritten.get()) else {
            return true;
        };
        let n = of.chunks[layer][part].n;
        n == 0 || progress.of(target).is_done(n)
    }

    /// What has arrived at `target` and is `address` is part `part` of an expert of `layer`, which is about to be
    /// computed: rewrites it, together with whoever else is about to.
    #[inline]
    pub(super) fn make_ready(&self, layer: usize, part: usize, target: Target, address: usize) {
        if self.rewriting.get().is_some() && !self.is_ready(layer, part, target) {
            self.rewrite(layer, part, target, address);
        }
    }

    fn rewrite(&self, layer: usize, part: usize, target: Target, address: usize) {
        let Some((of, progress)) = self.rewriting.get().zip(self.arrivals.rewritten.get()) else {
            return;
        };
        let chunks = of.chunks[layer][part];
        let n_bytes = self.layout.layers[layer].parts[part].tensor.n_bytes;
        progress.of(target).work(chunks.n, |number| {
            let begin = number as usize * chunks.n_bytes;
            let n_bytes = chunks.n_bytes.min(n_bytes - begin);
            of.rewrite.rewrite(layer, part, address + begin, n_bytes);
        });
    }

    /// A part of `layer` was copied to `target` after it had been computed.
    pub(super) fn note_copy_ready(&self, layer: usize, part: usize, target: Target) {
        let n = self.rewriting.get().map_or(0, |of| of.chunks[layer][part].n);
        self.arrivals.note_copy(target, n);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[test]
    fn each_chunk_is_rewritten_once_before_anybody_goes_on() {
        for n in [1, 2, 7, 64] {
            let progress = Progress::default();
            let seen = Mutex::new(Vec::new());
            std::thread::scope(|scope| {
                for _ in 0..5 {
                    scope.spawn(|| {
                        progress.work(n, |chunk| {
                            std::thread::sleep(std::time::Duration::from_micros(u64::from(chunk % 3) * 50));
                            seen.lock().unwrap().push(chunk);
                        });
                        assert_eq!(seen.lock().unwrap().len(), n as usize);
                        assert!(progress.is_done(n));
                    });
                }
            });
            let mut seen = seen.into_inner().unwrap();
            seen.sort_unstable();
            assert_eq!(seen, (0..n).collect::<Vec<_>>());
            progress.work(n, |_| panic!("it is done"));
            progress.begin(0);
            assert!(!progress.is_done(n));
            progress.begin(n);
            progress.work(n, |_| panic!("it is done"));
        }
    }
}
