//! S3-FIFO: newcomers wait in a small queue, and only what is used there gets into the main one.
//!
//! Nothing moves on a hit, and the main queue gives what was used another round.

use super::lists::Lists;
use super::queued::{Queued, Queues};
use crate::policy::contract::Spec;

pub(in crate::policy) const SPEC: Spec = Spec {
    name: "s3fifo",
    about: "evict the oldest newcomer not used twice more, else the oldest of the rest not used since",
    when: "for comparison; better than lru on average, far worse on some recorded routing",
    source: "S3-FIFO (Yang et al. 2023)",
    param: None,
    build: |shape, _| Box::new(Queued::new(shape, S3Fifo { n_slots: 0 })),
};

/// A tenth of the slots.
const SMALL: u8 = 0;
const MAIN: u8 = 1;
/// What was evicted from `SMALL`: it comes back to `MAIN`.
const GHOST: u8 = 2;

/// Tokens that picked an expert since it came, or since the last round, are counted up to this.
const USES_MAX: u8 = 3;

struct S3Fifo {
    n_slots: u32,
}

impl S3Fifo {
    fn n_small_max(&self) -> u32 {
        (self.n_slots / 10).max(1)
    }

    fn drop_ghosts(&self, lists: &mut Lists) {
        while lists.len(GHOST) > self.n_slots {
            let oldest = lists.oldest(GHOST).expect("it is not empty");
            lists.take(oldest);
        }
    }

    fn evict_small(&self, index: u32, lists: &mut Lists) -> Option<u32> {
        lists.push(index, GHOST);
        self.drop_ghosts(lists);
        Some(index)
    }

    /// Ends because each round lowers the uses of all that are not pinned.
    fn evict_main(&self, pinned: &dyn Fn(u32) -> bool, lists: &mut Lists) -> Option<u32> {
        for _round in 0..=USES_MAX {
            let mut next = lists.oldest(MAIN);
            for _ in 0..lists.len(MAIN) {
                let index = next?;
                next = lists.newer(index);
                if pinned(index) {
                    continue;
                }
                let uses = lists.uses(index);
                if uses == 0 {
                    lists.take(index);
                    return Some(index);
                }
                lists.push(index, MAIN);
                lists.set_uses(index, uses - 1);
            }
        }
        None
    }
}

impl Queues for S3Fifo {
    const N_LISTS: u8 = 3;
    const N_RESIDENT_LISTS: u8 = 2;

    fn resize(&mut self, n_slots: u32, lists: &mut Lists) {
        self.n_slots = n_slots;
        self.drop_ghosts(lists);
    }

    fn hit(&mut self, index: u32, rows: u32, lists: &mut Lists) {
        let uses = u32::from(lists.uses(index)).saturating_add(rows);
        lists.set_uses(index, uses.min(USES_MAX.into()) as u8);
    }

    fn arrive(&mut self, index: u32, lists: &mut Lists) {
        let was_ghost = lists.list_of(index) == Some(GHOST);
        lists.push(index, if was_ghost { MAIN } else { SMALL });
        lists.set_uses(index, 0);
    }

    fn evict(&mut self, pinned: &dyn Fn(u32) -> bool, lists: &mut Lists) -> Option<u32> {
        let mut next = lists.oldest(SMALL);
        while lists.len(SMALL) >= self.n_small_max() || lists.len(MAIN) == 0 {
            let Some(index) = next else { break };
            next = lists.newer(index);
            if pinned(index) {
                continue;
            }
            if lists.uses(index) <= 1 {
                return self.evict_small(index, lists);
            }
            lists.push(index, MAIN);
            lists.set_uses(index, 0);
            if lists.len(MAIN) + self.n_small_max() > self.n_slots
                && let Some(victim) = self.evict_main(pinned, lists)
            {
                return Some(victim);
            }
        }
        // What is left is in the small queue, or pinned.
        self.evict_main(pinned, lists).or_else(|| {
            let index = lists.oldest_free(&[SMALL], pinned)?;
            self.evict_small(index, lists)
        })
    }

    fn validate(&self, lists: &Lists) {
        assert!(lists.len(GHOST) <= self.n_slots);
    }
}

#[cfg(test)]
mod tests {
    use crate::policy::testing::replay;

    #[test]
    fn one_use_does_not_save_a_newcomer() {
        assert_eq!(replay("s3fifo", 4, "abcdae"), "++++.a");
    }

    /// `b`, used twice, and the ghosts `a`, `c` and `d` get into the main queue; there `b`, used
    /// again, outlives `a`, which is newer.
    #[test]
    fn the_main_queue_takes_what_was_used_and_ghosts() {
        assert_eq!(replay("s3fifo", 4, "abcdbbefacbdg"), "++++..acde.fa");
    }

    /// `a` comes back from the ghosts and outlives `f`, which is newer.
    #[test]
    fn a_ghost_is_no_newcomer() {
        assert_eq!(replay("s3fifo", 4, "abcdeafghi"), "++++abcdef");
    }
}
