//! What the ring reads when, without bytes.

use super::*;
use std::cell::RefCell;
use std::collections::HashSet;

/// A ring whose reads end when that is said.
struct Bench {
    ring: Ring,
    arrived: RefCell<HashSet<u64>>,
}

/// What was ordered: part and expert, and whether for a layer whose router has not run.
type Ordered = Vec<(usize, u32, bool)>;

impl Bench {
    fn new(n_places: usize) -> Self {
        Self {
            ring: Ring::new(n_places, 16),
            arrived: RefCell::default(),
        }
    }

    /// Plans layer `layer`, of two parts, in lane `owner`. Its reads have ended at once.
    fn plan(&self, owner: usize, layer: usize, staged: &[u32], next: &[u32]) -> Option<Ordered> {
        let needs = Needs {
            layer,
            parts: &[0, 1],
            fills: &[],
            staged,
            next,
        };
        let mut orders = Vec::new();
        let has_arrived = |sequence: u64| self.arrived.borrow().contains(&sequence);
        let is_planned = self.ring.plan(owner, &needs, &has_arrived, &mut orders);
        is_planned.then(|| self.end(&orders))
    }

    /// Computes part `part` of what `layer` has staged; returns what was read meanwhile.
    fn compute(&self, owner: usize, layer: usize, part: usize, staged: &[u32]) -> Ordered {
        let mut orders = Vec::new();
        self.ring.take(owner, true, &mut orders);
        let item = |&expert: &u32| Item { layer, part, expert };
        let mut list = Vec::new();
        self.ring.list(staged.iter().map(item), std::iter::empty(), &mut list);
        assert_eq!(list.len(), staged.len());
        let mut ordered = self.end(&orders);
        for number in 0..list.len() {
            let mut orders = Vec::new();
            if self.ring.sequence(number).is_none() {
                self.ring.fill(&|s| self.arrived.borrow().contains(&s), &mut orders);
                ordered.extend(self.end(&orders));
                orders.clear();
            }
            assert!(self.ring.sequence(number).is_some(), "{number} of {list:?} gets no place");
            self.ring.leave(number, &|s| self.arrived.borrow().contains(&s), &mut orders);
            ordered.extend(self.end(&orders));
        }
        self.ring.release();
        ordered
    }

    fn end(&self, orders: &[Order]) -> Ordered {
        let ended = orders.iter().map(|order| match *order {
            Order::Place(item, sequence, is_guess) => {
                self.arrived.borrow_mut().insert(sequence);
                (item.part, item.expert, is_guess)
            }
            Order::Slot(..) => panic!("nothing gets a slot"),
        });
        ended.collect()
    }
}

/// The parts of a layer in the order in which they are computed, and then the next layer's; each once.
#[test]
fn the_next_layer_is_read_when_all_of_this_one_is() {
    let bench = Bench::new(3);
    let first = bench.plan(0, 4, &[1, 2], &[7]).unwrap();
    assert_eq!(first, [(0, 1, false), (0, 2, false), (1, 1, false)]);
    assert_eq!(bench.compute(0, 4, 0, &[1, 2]), [(1, 2, false), (0, 7, true)]);
    assert_eq!(bench.compute(0, 4, 1, &[1, 2]), [(1, 7, true)]);
    // The router names it, and another one.
    assert_eq!(bench.plan(0, 5, &[7, 8], &[]).unwrap(), [(0, 8, false)]);
    assert_eq!(bench.compute(0, 5, 0, &[7, 8]), [(1, 8, false)]);
    assert_eq!(bench.compute(0, 5, 1, &[7, 8]), []);
}

#[test]
fn what_was_expected_in_vain_makes_room() {
    let bench = Bench::new(2);
    assert_eq!(bench.plan(0, 0, &[], &[3, 4]).unwrap(), [(0, 3, true), (0, 4, true)]);
    assert_eq!(bench.plan(0, 1, &[4, 5], &[]).unwrap(), [(0, 5, false)]);
    assert_eq!(bench.compute(0, 1, 0, &[4, 5]), [(1, 4, false), (1, 5, false)]);
    // All places are taken for what comes later: the latest goes.
    assert_eq!(bench.plan(0, 2, &[], &[1, 2]).unwrap(), [(0, 1, true), (0, 2, true)]);
    assert_eq!(bench.compute(0, 2, 0, &[9]), [(0, 9, false), (0, 2, true)]);
}

/// After that nothing is read in advance for a while.
#[test]
fn lanes_that_get_into_each_others_way_read_nothing_in_advance() {
    let bench = Bench::new(4);
    assert!(bench.plan(0, 0, &[], &[3]).is_some());
    assert!(bench.plan(1, 0, &[], &[3]).is_none(), "the ring is the other's");
    bench.compute(1, 0, 0, &[5]);
    for _ in 0..QUIET_EVENTS {
        assert!(bench.plan(1, 1, &[], &[3]).is_none());
    }
    assert!(bench.plan(1, 1, &[], &[3]).is_some());
}
