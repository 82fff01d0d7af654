//! Segmented LRU: what generation used twice is protected from what it used once.
//!
//! What llama.cpp's GPU expert cache became in b12032: the same halves, the same places on each list. In one pool
//! for all layers it does worse than LRU when little fits: there, hardly anything is used twice before it is evicted.

use super::lists::Lists;
use super::queued::{Queued, Queues};
use crate::policy::contract::Spec;

pub(in crate::policy) const SPEC: Spec = Spec {
    name: "slru",
    about: "evict the oldest that generation used once; then the oldest of the protected half",
    when: "to compare with llama.cpp; in one pool for all layers it loses to lru below a third",
    source: "segmented LRU (Karedla et al. 1994), as in llama.cpp's GPU expert cache at b12032",
    param: None,
    build: |shape, _| Box::new(Queued::new(shape, Slru { n_protected_max: 0 })),
};

const PROBATION: u8 = 0;
const PROTECTED: u8 = 1;

/// A hit protects; what that pushes out of the protected is the newest on probation.
struct Slru {
    n_protected_max: u32,
}

impl Slru {
    fn demote(&self, lists: &mut Lists) {
        while lists.len(PROTECTED) > self.n_protected_max {
            let oldest = lists.oldest(PROTECTED).expect("it is not empty");
            lists.push(oldest, PROBATION);
        }
    }
}

impl Queues for Slru {
    const N_LISTS: u8 = 2;
    const N_RESIDENT_LISTS: u8 = 2;
    const BY_RANK: bool = true;

    fn resize(&mut self, n_slots: u32, lists: &mut Lists) {
        self.n_protected_max = n_slots / 2;
        self.demote(lists);
    }

    fn hit(&mut self, index: u32, _rows: u32, lists: &mut Lists) {
        lists.push(index, PROTECTED);
        self.demote(lists);
    }

    fn arrive(&mut self, index: u32, lists: &mut Lists) {
        lists.push(index, PROBATION);
    }

    fn evict(&mut self, pinned: &dyn Fn(u32) -> bool, lists: &mut Lists) -> Option<u32> {
        let victim = lists.oldest_free(&[PROBATION, PROTECTED], pinned)?;
        lists.take(victim);
        Some(victim)
    }

    fn validate(&self, lists: &Lists) {
        assert!(lists.len(PROTECTED) <= self.n_protected_max);
    }
}

#[cfg(test)]
mod tests {
    use crate::expert::{Event, ExpertId, Shape};
    use crate::policy::by_name;
    use crate::policy::testing::replay;

    /// Of six, three are protected: `d` and `e` push out `a` and `b`, which are then newer than `f` on probation.
    #[test]
    fn what_was_used_once_goes_first() {
        assert_eq!(replay("slru", 6, "abcdefabcdeghi"), "++++++.....fab");
    }

    /// Of two that one token hits, the router's second choice is protected last, and so pushes out the first.
    #[test]
    fn hits_come_in_the_order_of_the_router() {
        let shape = Shape::uniform(1, 2);
        for (ranks, victim) in [([0, 1], 0), ([1, 0], 1)] {
            let mut policy = by_name("slru", &shape).unwrap();
            policy.resize(2);
            let event = Event {
                n_tokens: 1,
                experts: &[0, 1],
                rows: &[1, 1],
                ranks: &ranks,
                ..Event::default()
            };
            let id = |expert| ExpertId { layer: 0, expert };
            policy.route(&event);
            (0..2).for_each(|expert| policy.insert(id(expert)));
            policy.route(&event);
            assert_eq!(policy.evict(&|_| false), Some(id(victim)), "{ranks:?}");
        }
    }
}
