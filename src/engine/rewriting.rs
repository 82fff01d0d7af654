//! Parts that are rewritten in their places before they are computed: what computes may want their bytes in another order
//! than the file has them in.
//!
//! A part is rewritten in chunks. Whoever needs the part takes one chunk after the other until all are taken, and then
//! waits for those that other threads have: so all threads of a lane, or of two, share the work, and nothing that reads
//! has any. How far a part is, is a word ([`Progress`]) for each slot and part, and for each place of the ring, which is 0
//! again when the next read of the part has arrived.

use super::layout::{Layer, Layout, Part};
use super::progress::{N_CHUNKS_MAX, Progress};

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
    pub rewrite: Box<dyn Rewrite>,
    /// By layer and part.
    chunks: Vec<Vec<Chunks>>,
}

/// The chunks of a part.
#[derive(Debug, Clone, Copy)]
pub(super) struct Chunks {
    /// Bytes of all but the last.
    pub n_bytes: usize,
    /// None if the part is not rewritten.
    pub n: u32,
}

impl Rewriting {
    /// Of the parts of `layout`. Panics if a part has too many chunks.
    pub fn new(layout: &Layout, rewrite: Box<dyn Rewrite>) -> Self {
        let of_layer = |(number, layer): (usize, &Layer)| {
            let chunks = |(part, of): (usize, &Part)| {
                let n_bytes = rewrite.chunk_bytes(number, part);
                let n = if n_bytes == 0 { 0 } else { of.tensor.n_bytes.div_ceil(n_bytes) };
                assert!(n <= N_CHUNKS_MAX, "chunks of {n_bytes} bytes are too small");
                Chunks { n_bytes, n: n as u32 }
            };
            layer.parts.iter().enumerate().map(chunks).collect()
        };
        let chunks = layout.layers.iter().enumerate().map(of_layer).collect();
        Self { rewrite, chunks }
    }

    /// Whether any part is rewritten.
    pub fn has_any(&self) -> bool {
        self.chunks.iter().flatten().any(|chunks| chunks.n > 0)
    }

    /// The chunks of a part of `layer`.
    pub fn chunks(&self, layer: usize, part: usize) -> Chunks {
        self.chunks[layer][part]
    }
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

    /// How far a part of what is in `slot` is.
    pub fn slot(&self, slot: u32, part: u32) -> &Progress {
        &self.slots[slot as usize * self.n_parts + part as usize]
    }

    /// How far what is in the place of `sequence` is.
    pub fn place(&self, sequence: u64) -> &Progress {
        &self.places[sequence as usize % self.places.len()]
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
