//! Finds memory for the arena while the first tokens are computed.
//!
//! The system commits a page when it is first written: fills it with zeros, and in a virtual machine asks the
//! host for it. A read into new memory would wait for that, with the thread that submits it.

use super::layout::Layout;
use super::resize::Sizing;
use crate::store::Arena;
use std::ops::Range;
use std::sync::{Arc, Weak};

/// Smaller arenas are not worth a thread.
const ARENA_BYTES_MIN: u64 = 64 << 20;
/// About how much is committed at a time: what gives memory back waits for that.
const STEP_BYTES: usize = 8 << 20;

/// A part of the arena that is committed at a time.
struct Step {
    range: Range<usize>,
    /// Slots, counted over all pools, or the ring after them.
    pieces: Range<u32>,
    piece_bytes: usize,
}

/// Commits what is used of `arena` at the start in the background: the ring, which prompts use first, then slots by
/// their numbers, in which order free ones are taken. Ends early with the arena, or when memory is given back.
pub(super) fn in_background(arena: &Arc<Arena>, sizing: &Arc<Sizing>, layout: &Layout) {
    if layout.arena_bytes_start() < ARENA_BYTES_MIN {
        return;
    }
    let (arena, sizing) = (Arc::downgrade(arena), Arc::downgrade(sizing));
    let steps = steps(layout);
    let thread = std::thread::Builder::new().name("hotset-commit".into());
    // Without the thread everything works, a little later.
    let _ = thread.spawn(move || commit(&arena, &sizing, steps));
}

fn commit(arena: &Weak<Arena>, sizing: &Weak<Sizing>, steps: Vec<Step>) {
    for step in steps {
        let (Some(arena), Some(sizing)) = (arena.upgrade(), sizing.upgrade()) else {
            return;
        };
        if !sizing.commit(&arena, step.range, step.pieces, step.piece_bytes) {
            return;
        }
    }
}

fn steps(layout: &Layout) -> Vec<Step> {
    let ring_bytes = layout.arena_bytes - layout.ring.base;
    let n_slots = layout.n_slots();
    let mut steps = vec![Step {
        range: layout.ring.base..layout.arena_bytes,
        pieces: n_slots..n_slots + 1,
        piece_bytes: ring_bytes,
    }];
    for pool in &layout.pools {
        let n_each = (STEP_BYTES / pool.slot_bytes.max(1)).max(1);
        steps.extend((0..pool.n_slots_start).step_by(n_each).map(|begin| {
            let end = pool.n_slots_start.min(begin + n_each as u32);
            Step {
                range: pool.bytes(begin..end),
                pieces: pool.first_slot + begin..pool.first_slot + end,
                piece_bytes: pool.slot_bytes,
            }
        }));
    }
    steps
}
