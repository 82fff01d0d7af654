//! How far a part is, of those that are rewritten in their places:
//!
//! ```text
//!   0 <= done <= taken <= chunks      read, and nobody may compute with it
//!   done == chunks                    rewritten
//! ```
//!
//! `tests/progress.rs` looks at all orders in which threads can see it.

use super::words::{AtomicU32, Ordering, spin_loop, yield_now};

/// How far a part is: the chunks that are taken, and in the upper half those that are done.
#[derive(Default)]
pub struct Progress(AtomicU32);

const TAKEN: u32 = 0xffff;
const DONE: u32 = 0x1_0000;
/// Chunks of a part: more threads than the rest of 16 bits do not take one too many at once.
pub const N_CHUNKS_MAX: usize = 0x8000;
/// Looks at the others' chunks before the core is given to whoever wants it.
const LOOKS: u32 = 256;

impl Progress {
    /// The part has come, and `n` chunks of it are done: none of what was read, all of a copy. Nobody uses it yet, and
    /// whoever tells of it orders this before.
    pub fn begin(&self, n: u32) {
        self.0.store(n * (DONE + 1), Ordering::Relaxed);
    }

    /// Whether all of `n` chunks are done.
    pub fn is_done(&self, n: u32) -> bool {
        self.0.load(Ordering::Acquire) / DONE == n
    }

    /// Takes chunks of `n`, and returns when all of them are done.
    pub fn work(&self, n: u32, mut rewrite: impl FnMut(u32)) {
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
                0 => yield_now(),
                _ => spin_loop(),
            }
        }
    }
}
