//! What the policies made of queues share: which residents are in the queues.

use super::lists::Lists;
use crate::expert::{Event, ExpertId, Shape};
use crate::policy::contract::{Policy, Prior};
use crate::policy::recency::Foretold;
use crate::policy::scored::Scored;

/// Orders the experts that generation picked. It sees them as dense indices.
pub(super) trait Queues: Send {
    /// How many lists it wants.
    const N_LISTS: u8;
    /// The lists below this hold residents, the others experts that were evicted.
    const N_RESIDENT_LISTS: u8;
    /// Whether the hits of an event come in the order of the router, where that is known, else by number.
    const BY_RANK: bool = false;

    /// The pool has `n_slots` slots from now on.
    fn resize(&mut self, n_slots: u32, lists: &mut Lists);

    /// Learns what is known before the first event.
    fn prime(&mut self, prior: &Prior) {
        let _ = prior;
    }

    /// Learns from one event, prompts included, before `hit` and `arrive` are called for it; `first`
    /// is the dense index of its layer's expert 0.
    fn route(&mut self, event: &Event, first: usize) {
        let _ = (event, first);
    }

    /// `rows` tokens of generation picked `index`, which is in a list of residents.
    fn hit(&mut self, index: u32, rows: u32, lists: &mut Lists);

    /// Generation picked `index`, which is resident now and must be put into a list of residents.
    fn arrive(&mut self, index: u32, lists: &mut Lists);

    /// Takes an expert for which `pinned` is false out of the lists of residents. If there is none it
    /// changes nothing.
    fn evict(&mut self, pinned: &dyn Fn(u32) -> bool, lists: &mut Lists) -> Option<u32>;

    /// Panics if the lists are not as they must be.
    fn validate(&self, lists: &Lists) {
        let _ = lists;
    }
}

/// A policy made of queues.
///
/// A resident is in the queues since generation picked it, and until then in `unused`, where a prior
/// and the prompts say which is evicted first; all of those go before any that is in the queues.
pub(super) struct Queued<Q> {
    shape: Shape,
    queues: Q,
    lists: Lists,
    unused: Scored<Foretold>,
    /// The experts of the last event that were not resident, ascending; none if it was a prompt.
    missing: Vec<u32>,
    /// The picks of the event that is learnt, as they are taken.
    order: Vec<usize>,
}

impl<Q: Queues> Queued<Q> {
    /// No residents.
    pub(super) fn new(shape: &Shape, queues: Q) -> Self {
        Self {
            shape: shape.clone(),
            queues,
            lists: Lists::new(Q::N_LISTS, shape.n_total()),
            unused: Scored::new(shape, Foretold::new(shape.n_total())),
            missing: Vec::new(),
            order: Vec::new(),
        }
    }

    fn is_queued(&self, index: u32) -> bool {
        let list = self.lists.list_of(index);
        list.is_some_and(|list| list < Q::N_RESIDENT_LISTS)
    }
}

impl<Q: Queues> Policy for Queued<Q> {
    fn resize(&mut self, n_slots: u32) {
        self.queues.resize(n_slots, &mut self.lists);
    }

    fn prime(&mut self, prior: &Prior) {
        self.unused.prime(prior);
        self.queues.prime(prior);
    }

    fn route(&mut self, event: &Event) {
        self.unused.route(event);
        self.missing.clear();
        let id = |expert| ExpertId {
            layer: event.layer,
            expert,
        };
        let first = self.shape.index(id(0));
        self.queues.route(event, first);
        if event.is_prefill() {
            return;
        }
        self.order.clear();
        self.order.extend(0..event.experts.len());
        if Q::BY_RANK && !event.ranks.is_empty() {
            self.order.sort_unstable_by_key(|&i| (event.ranks[i], i));
        }
        for &i in &self.order {
            let (expert, rows) = (event.experts[i], event.rows[i]);
            let index = first as u32 + expert;
            if self.is_queued(index) {
                self.queues.hit(index, rows, &mut self.lists);
            } else if self.unused.holds(index as usize) {
                self.unused.evict_this(id(expert));
                self.queues.arrive(index, &mut self.lists);
            } else {
                self.missing.push(index);
            }
        }
        if Q::BY_RANK {
            self.missing.sort_unstable();
        }
    }

    fn insert(&mut self, id: ExpertId) {
        let index = self.shape.index(id) as u32;
        if self.missing.binary_search(&index).is_ok() {
            self.queues.arrive(index, &mut self.lists);
        } else {
            self.unused.insert(id);
        }
    }

    fn evict_this(&mut self, id: ExpertId) {
        let index = self.shape.index(id);
        if self.unused.holds(index) {
            self.unused.evict_this(id);
        } else {
            self.lists.take(index as u32);
        }
    }

    fn evict(&mut self, pinned: &dyn Fn(ExpertId) -> bool) -> Option<ExpertId> {
        if let Some(victim) = self.unused.evict(pinned) {
            return Some(victim);
        }
        let pinned = |index| pinned(self.shape.id(index as usize));
        let victim = self.queues.evict(&pinned, &mut self.lists)?;
        Some(self.shape.id(victim as usize))
    }

    fn validate(&self) {
        self.lists.validate();
        self.queues.validate(&self.lists);
        self.unused.validate();
        let is_twice = |&index: &u32| self.is_queued(index) && self.unused.holds(index as usize);
        assert_eq!((0..self.shape.n_total() as u32).find(is_twice), None);
    }
}
