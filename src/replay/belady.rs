//! The offline optimum: what a policy that knows the future would have hit.

use crate::error::Result;
use crate::expert::{Event, ExpertId, Shape};
use crate::residency::{Counts, check};
use std::collections::BinaryHeap;
use std::ops::Range;

/// The most hits any policy can have on `events`, from an empty pool of `n_slots`, knowing the future.
///
/// It bounds the hits of [`replay`](super::replay) for every policy, those of prompts and generation
/// together: one of the two alone may exceed it at the cost of the other. The rules of the bound:
/// after an event that is not large all its experts are resident, if they fit. After any other
/// event, any of its experts and of those resident before may be. Where the rules leave a choice, it
/// keeps the experts that are used again soonest.
///
/// # Why nothing beats it
///
/// The engine keeps these rules: it bypasses no miss of an event that is not large while there is a slot to be
/// had, and its large events do less than the rules allow. Now take a best schedule,
/// and the first event after which it holds some q but not some p, used again no later, which it
/// could hold instead. Change it to hold p for q, and to drop p if it drops q before p is used. Where
/// p is used next, the changed schedule hits and the other misses. After that it can hold all that
/// the other holds, except q if the other still has it; then it misses q once, later, and holds the
/// same. So it has no fewer hits, and step by step it becomes this one.
///
/// An engine that serves such misses without keeping them could do better. Ours does not.
pub fn belady<'a>(
    events: impl IntoIterator<Item = Event<'a>>,
    shape: &Shape,
    n_slots: u32,
) -> Result<Counts> {
    belady_from(events, shape, n_slots, &[]).map(|(counts, _)| counts)
}

/// The same from a pool that holds the experts with the dense indices `start`, at most `n_slots`; also
/// returns the hits of each event. The argument above holds from any start.
pub fn belady_from<'a>(
    events: impl IntoIterator<Item = Event<'a>>,
    shape: &Shape,
    n_slots: u32,
    start: &[usize],
) -> Result<(Counts, Vec<u32>)> {
    let future = Future::read(events, shape)?;
    let mut pool = OptimalPool {
        resident: vec![false; shape.n_total()],
        n_resident: 0,
        farthest: BinaryHeap::new(),
    };
    for &index in start {
        let pick = Pick {
            index: index as u32,
            next_use: future.first_uses[index],
        };
        pool.touch(&pick);
        pool.offer(&[pick]);
    }
    let mut hits = Vec::with_capacity(future.events.len());
    let mut arrived_at = vec![NEVER; shape.n_total()];
    let mut counts = Counts::default();
    for (now, event) in (0..).zip(&future.events) {
        let picks = &future.picks[event.picks.clone()];
        let tally = counts.of(event.is_prefill);
        tally.events += 1;
        tally.tokens += event.n_tokens_at_layer_0;
        let n_hits_before = tally.hits;
        for pick in picks {
            if pool.touch(pick) {
                tally.hits += 1;
            } else {
                tally.misses += 1;
                arrived_at[pick.index as usize] = now;
            }
        }
        hits.push((tally.hits - n_hits_before) as u32);
        // What must stay is offered to be evicted only afterwards.
        let must_stay = !event.is_large && picks.len() <= n_slots as usize;
        if !must_stay {
            pool.offer(picks);
        }
        while pool.n_resident > n_slots {
            if arrived_at[pool.evict(now)] == now {
                tally.staged += 1;
            } else {
                tally.evictions += 1;
            }
        }
        if must_stay {
            pool.offer(picks);
        }
    }
    Ok((counts, hits))
}

/// The number of an event that never comes.
const NEVER: u32 = u32::MAX;

/// An expert in an event.
pub(super) struct Pick {
    /// Its dense index.
    pub(super) index: u32,
    /// The number of the next event that picks it.
    pub(super) next_use: u32,
}

pub(super) struct PastEvent {
    is_prefill: bool,
    is_large: bool,
    n_tokens_at_layer_0: u64,
    pub(super) picks: Range<usize>,
}

/// All events, and for each pick when the next one of the same expert comes.
pub(super) struct Future {
    pub(super) events: Vec<PastEvent>,
    pub(super) picks: Vec<Pick>,
    /// By dense index: the number of the event that picks the expert first.
    pub(super) first_uses: Vec<u32>,
}

impl Future {
    pub(super) fn read<'a>(
        events: impl IntoIterator<Item = Event<'a>>,
        shape: &Shape,
    ) -> Result<Self> {
        let mut future = Self {
            events: Vec::new(),
            picks: Vec::new(),
            first_uses: Vec::new(),
        };
        for event in events {
            check(shape, &event)?;
            let start = future.picks.len();
            future
                .picks
                .extend(event.experts.iter().map(|&expert| Pick {
                    index: shape.index(ExpertId {
                        layer: event.layer,
                        expert,
                    }) as u32,
                    next_use: NEVER,
                }));
            future.events.push(PastEvent {
                is_prefill: event.is_prefill(),
                is_large: event.is_large(),
                n_tokens_at_layer_0: if event.layer == 0 {
                    event.n_tokens.into()
                } else {
                    0
                },
                picks: start..future.picks.len(),
            });
        }
        let mut next_use = vec![NEVER; shape.n_total()];
        for (now, event) in (0..future.events.len() as u32).zip(&future.events).rev() {
            for pick in &mut future.picks[event.picks.clone()] {
                pick.next_use = std::mem::replace(&mut next_use[pick.index as usize], now);
            }
        }
        future.first_uses = next_use;
        Ok(future)
    }
}

/// The residents of [`belady`], which may be too many until it has evicted.
struct OptimalPool {
    /// By dense index.
    resident: Vec<bool>,
    n_resident: u32,
    /// Next use and dense index, one entry for each resident that may go. Entries of uses that have
    /// come to pass stay behind, and are never reached: those of residents lie in the future.
    farthest: BinaryHeap<(u32, u32)>,
}

impl OptimalPool {
    /// Makes a pick resident; says whether it was.
    fn touch(&mut self, pick: &Pick) -> bool {
        let was_resident = std::mem::replace(&mut self.resident[pick.index as usize], true);
        self.n_resident += u32::from(!was_resident);
        was_resident
    }

    /// Lets `evict` choose among `picks` too.
    fn offer(&mut self, picks: &[Pick]) {
        let entries = picks.iter().map(|pick| (pick.next_use, pick.index));
        self.farthest.extend(entries);
    }

    /// Drops the resident used last, of those offered, and returns its dense index.
    fn evict(&mut self, now: u32) -> usize {
        let (next_use, index) = self.farthest.pop().expect("more are offered than go");
        assert!(next_use > now, "only residents are offered");
        self.resident[index as usize] = false;
        self.n_resident -= 1;
        index as usize
    }
}
