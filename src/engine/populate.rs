//! Finds memory for the arena while the first tokens are computed.
//!
//! The system commits a page when it is first written: fills it with zeros, and in a virtual machine asks the
//! host for it. A read into new memory would wait for that, with the thread that submits it.

use super::layout::Layout;
use super::sizing::{Sizing, Step};
use crate::store::Arena;
use std::ops::Range;
use std::sync::{Arc, Weak};

/// Smaller arenas are not worth a thread.
const ARENA_BYTES_MIN: u64 = 64 << 20;
/// About how much is committed at a time: what gives memory back waits for that.
const STEP_BYTES: usize = 8 << 20;

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
        if !sizing.commit(&arena, step) {
            return;
        }
    }
}

fn steps(layout: &Layout) -> Vec<Step> {
    let n_slots = layout.n_slots();
    let ring = layout.ring.base..layout.arena_bytes;
    let mut steps: Vec<_> = steps_of_piece(n_slots, ring).collect();
    for pool in &layout.pools {
        let n_each = STEP_BYTES / pool.slot_bytes.max(1);
        for begin in (0..pool.n_slots_start).step_by(n_each.max(1)) {
            let end = pool.n_slots_start.min(begin + n_each.max(1) as u32);
            let range = pool.bytes(begin..end);
            let piece = pool.first_slot + begin;
            match n_each {
                0 => steps.extend(steps_of_piece(piece, range)),
                _ => steps.push(Step {
                    range,
                    pieces: piece..pool.first_slot + end,
                    n_bytes: pool.slot_bytes,
                }),
            }
        }
    }
    steps
}

/// One piece in several steps.
fn steps_of_piece(piece: u32, range: Range<usize>) -> impl Iterator<Item = Step> {
    let begins = range.clone().step_by(STEP_BYTES);
    begins.map(move |begin| {
        let end = range.end.min(begin + STEP_BYTES);
        Step {
            range: begin..end,
            pieces: piece..piece + 1,
            n_bytes: end - range.start,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::layout::Tensor;

    /// Every byte that is used at the start, and every piece as a whole in the end.
    #[test]
    fn all_that_is_used_at_the_start_is_committed() {
        for n_bytes in [5 << 10, 700 << 10, 3 << 20, 20 << 20] {
            let tensor = |block| Tensor {
                name: format!("blk.{block}"),
                block,
                n_experts: 16,
                n_bytes: n_bytes + (1000 * block as usize % 2000),
                file: 0,
                offset: u64::from(block) << 32,
                stride: n_bytes as u64 + 2000,
            };
            let tensors: Vec<_> = (0..4).map(tensor).collect();
            let (budget, most) = (40 * n_bytes as u64, u64::MAX);
            let layout = Layout::growing(&tensors, &[512], budget, most).unwrap();
            assert_eq!(layout.pools.len(), 2);
            let mut n_bytes_of = vec![0; layout.n_slots() as usize + 1];
            let mut n_committed = 0;
            for step in steps(&layout) {
                assert!(step.range.len() <= STEP_BYTES.max(step.n_bytes * step.pieces.len()));
                n_committed += step.range.len() as u64;
                step.pieces
                    .for_each(|piece| n_bytes_of[piece as usize] = step.n_bytes);
            }
            assert_eq!(n_committed, layout.arena_bytes_start());
            for pool in &layout.pools {
                for slot in 0..pool.n_slots {
                    let n_bytes = n_bytes_of[(pool.first_slot + slot) as usize];
                    let is_used = slot < pool.n_slots_start;
                    assert_eq!(n_bytes, if is_used { pool.slot_bytes } else { 0 });
                }
            }
            assert_eq!(
                n_bytes_of.pop().unwrap(),
                layout.arena_bytes - layout.ring.base
            );
        }
    }
}
