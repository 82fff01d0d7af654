//! Finds memory for the arena while the first tokens are computed.
//!
//! The system commits a page when it is first written: fills it with zeros, and in a virtual machine asks the
//! host for it. A read into new memory would wait for that, with the thread that submits it.

use super::layout::RingLayout;
use crate::store::Arena;
use std::sync::{Arc, Weak};

/// Smaller arenas are not worth a thread.
const ARENA_BYTES_MIN: usize = 64 << 20;
/// How much is committed at a time, a multiple of every page.
const STEP_BYTES: usize = 32 << 20;

/// Commits `arena` in the background: the ring, which prompts use first, then slots by their numbers, in which
/// order free ones are taken. Ends early with the arena, or when memory is given back.
pub(super) fn in_background(arena: &Arc<Arena>, ring: RingLayout) {
    if arena.len() < ARENA_BYTES_MIN {
        return;
    }
    let arena = Arc::downgrade(arena);
    let thread = std::thread::Builder::new().name("hotset-commit".into());
    // Without the thread everything works, a little later.
    let _ = thread.spawn(move || commit(&arena, ring.base));
}

fn commit(arena: &Weak<Arena>, ring_base: usize) {
    let ring_begin = ring_base - ring_base % STEP_BYTES;
    let mut begin = ring_begin;
    loop {
        let Some(arena) = arena.upgrade() else { return };
        let end = (begin + STEP_BYTES).min(arena.len());
        if !arena.commit(begin..end) {
            return;
        }
        begin = if end == arena.len() { 0 } else { end };
        if begin == ring_begin {
            return;
        }
    }
}
