//! The offline optimum where experts differ in size.

use super::belady::{Future, Pick};
use crate::error::Result;
use crate::expert::{Event, Shape};
use std::collections::BinaryHeap;

/// No arrangement of `n_bytes` hits more bytes of `events` than this, which is returned for each
/// event. `start` is what is resident at first: dense indices of experts of at most `n_bytes`.
///
/// An arrangement may share its bytes between pools as it likes, need not use all of them, and may
/// serve any miss without keeping it.
///
/// # Why nothing beats it
///
/// Let every byte of an expert be a page of its own. An arrangement of whole experts is one of their
/// pages, so the best arrangement of pages hits as many bytes or more. Pages are of one size, and none
/// has to be kept: after each event the best one keeps those used again soonest, by the argument of
/// [`belady()`](super::belady()) with no rule about what must stay. The pages of an expert are used at the
/// same times, so that whole experts go, those used again last first, and of the last victim only
/// the part that does not fit.
pub fn belady_bytes<'a>(
    events: impl IntoIterator<Item = Event<'a>>,
    shape: &Shape,
    n_bytes: u64,
    start: &[usize],
) -> Result<Vec<u64>> {
    let future = Future::read(events, shape)?;
    let mut memory = Memory {
        held: vec![0; shape.n_total()],
        n_held: 0,
        farthest: BinaryHeap::new(),
    };
    let size = |pick: &Pick| shape.expert_bytes(shape.id(pick.index as usize).layer);
    for &index in start {
        let pick = Pick {
            index: index as u32,
            next_use: future.first_uses[index],
        };
        memory.take(&pick, size(&pick));
    }
    let mut hits = Vec::with_capacity(future.events.len());
    for event in &future.events {
        let picks = &future.picks[event.picks.clone()];
        hits.push(picks.iter().map(|pick| memory.take(pick, size(pick))).sum());
        memory.shrink_to(n_bytes);
    }
    Ok(hits)
}

/// What is resident, which may be too much until it has shrunk.
struct Memory {
    /// Bytes by dense index.
    held: Vec<u64>,
    n_held: u64,
    /// Next use and dense index of what is held. Entries of uses that have come to pass stay behind,
    /// and are never reached: those of what is held lie in the future.
    farthest: BinaryHeap<(u32, u32)>,
}

impl Memory {
    /// Makes the whole of a pick resident; returns how much of it was.
    fn take(&mut self, pick: &Pick, n_bytes: u64) -> u64 {
        self.farthest.push((pick.next_use, pick.index));
        let before = std::mem::replace(&mut self.held[pick.index as usize], n_bytes);
        self.n_held += n_bytes - before;
        before
    }

    fn shrink_to(&mut self, n_bytes: u64) {
        while self.n_held > n_bytes {
            let (_, index) = *self.farthest.peek().expect("what is held has an entry");
            let held = &mut self.held[index as usize];
            let part = (*held).min(self.n_held - n_bytes);
            *held -= part;
            self.n_held -= part;
            if *held == 0 {
                self.farthest.pop();
            }
        }
    }
}
