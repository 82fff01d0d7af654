//! The staging ring: places of one part each, through which experts pass that have no slot.
//!
//! It belongs to one operation at a time. What it holds is in it by name, a part of an expert of a layer, so
//! who begins an operation finds what was read for it before. A lane that plans an event says which parts will
//! come through the ring, in the order in which they are computed, and what the next layer will probably need
//! after these: they are read as places become free, so that the disk goes on between operations.
//!
//! ```text
//!         fill()           leave(): all threads have left it
//!   free -------> taken ------------------------------------> free
//!                   | nobody needs it                           ^
//!                   +----------------> dropped -----------------+ its read has ended
//! ```
//!
//! What is read here for an expert that turns out to get a slot is copied there when it has been computed
//! (`slot`). If that operation does not come, or somebody else may wait for the slot, it is read again.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard};

/// Events of any lane that are not read for in advance after two lanes have got into each other's way: what one
/// has read the other drops.
const QUIET_EVENTS: u32 = 64;

/// A part of an expert.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Item {
    pub layer: usize,
    pub part: usize,
    pub expert: u32,
}

/// A read that is to be submitted when the lock is free.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// Into the place of this sequence number; for a layer whose router has not run, or not.
    Place(Item, u64, bool),
    /// Into a slot of the layer's pool.
    Slot(Item, u32),
}

/// What an event needs.
pub(super) struct Needs<'a> {
    pub layer: usize,
    /// The parts in the order in which they are computed.
    pub parts: &'a [usize],
    /// Experts that get a slot, and these.
    pub fills: &'a [(u32, u32)],
    /// Those that get none.
    pub staged: &'a [u32],
    /// What the next layer will probably need and does not have.
    pub next: &'a [u32],
}

/// A place that is taken.
struct Taken {
    item: Item,
    /// Its number in the list of the operation that is computed.
    number: Option<usize>,
    /// The slot that it is to be copied to.
    slot: Option<u32>,
    /// When it was taken: more for what came later.
    order: u64,
}

struct Inner {
    /// Whether an operation uses the ring.
    is_busy: bool,
    /// Whose items these are, and the layer whose event was planned last.
    owner: usize,
    layer: usize,
    /// By place: the sequence number of its latest read, and what that is for.
    places: Vec<(u64, Option<Taken>)>,
    free: Vec<usize>,
    /// Places that nobody needs any more, whose reads have not ended.
    dropped: Vec<usize>,
    /// The taken places.
    held: HashMap<Item, usize>,
    /// What the operation that is computed still has to read, by number.
    now: VecDeque<(usize, Item)>,
    /// What comes after that.
    later: VecDeque<Item>,
    n_orders: u64,
    n_quiet: u32,
}

/// The staging ring, without its bytes.
pub(super) struct Ring {
    inner: Mutex<Inner>,
    is_free: Condvar,
    /// By number in the list of the operation: the sequence number of its read plus 1, 0 until that has begun.
    sequences: Box<[AtomicU64]>,
}

/// Whether the read with this sequence number has ended.
type HasArrived<'a> = &'a dyn Fn(u64) -> bool;

impl Ring {
    /// A ring of `n_places`, for lists of up to `n_items`.
    pub fn new(n_places: usize, n_items: usize) -> Self {
        let inner = Inner {
            is_busy: false,
            owner: usize::MAX,
            layer: 0,
            places: (0..n_places as u64).map(|place| (place, None)).collect(),
            free: (0..n_places).rev().collect(),
            dropped: Vec::new(),
            held: HashMap::new(),
            now: VecDeque::new(),
            later: VecDeque::new(),
            n_orders: 0,
            n_quiet: 0,
        };
        Self {
            inner: Mutex::new(inner),
            is_free: Condvar::new(),
            sequences: (0..n_items).map(|_| AtomicU64::new(0)).collect(),
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("no thread panics with it")
    }

    /// Waits until no operation uses the ring; from now on one of `owner` does. It drops what others have there,
    /// and what is still to be read later unless that `goes_on`.
    pub fn take(&self, owner: usize, goes_on: bool, orders: &mut Vec<Order>) {
        let inner = self.inner();
        let mut inner = self
            .is_free
            .wait_while(inner, |inner| inner.is_busy)
            .expect("no thread panics with it");
        inner.is_busy = true;
        if inner.owner != owner {
            if !inner.is_empty() {
                inner.n_quiet = QUIET_EVENTS;
            }
            inner.keep(orders, |_| false);
            inner.owner = owner;
        }
        if !goes_on {
            inner.later.clear();
        }
    }

    /// The operation that uses the ring is finished.
    pub fn release(&self) {
        let mut inner = self.inner();
        inner.now.clear();
        inner.is_busy = false;
        drop(inner);
        self.is_free.notify_one();
    }

    /// An event of `owner` begins that needs this: makes a plan of it, and `orders` what can be read at once.
    /// False if the ring is somebody else's; then nothing is planned.
    pub fn plan(
        &self,
        owner: usize,
        needs: &Needs,
        has_arrived: HasArrived,
        orders: &mut Vec<Order>,
    ) -> bool {
        let mut inner = self.inner();
        if inner.n_quiet > 0 {
            inner.n_quiet -= 1;
            return false;
        }
        if inner.is_busy || inner.owner != owner && !inner.is_empty() {
            return false;
        }
        inner.owner = owner;
        inner.layer = needs.layer;
        inner.plan(needs, orders);
        let Needs { layer, parts, .. } = *needs;
        for &part in parts {
            let item = |expert| Item {
                layer,
                part,
                expert,
            };
            for &(expert, slot) in needs.fills {
                match inner.taken(item(expert)) {
                    Some(taken) => taken.slot = Some(slot),
                    None => orders.push(Order::Slot(item(expert), slot)),
                }
            }
            inner.queue(needs.staged.iter().map(|&expert| item(expert)));
            inner.fill(&self.sequences, has_arrived, orders);
        }
        for &part in parts {
            let layer = layer + 1;
            inner.queue(needs.next.iter().map(|&expert| Item {
                layer,
                part,
                expert,
            }));
        }
        inner.fill(&self.sequences, has_arrived, orders);
        true
    }

    /// Writes the list of the operation that has the ring: of `items`, and of `fills` those that are copied to
    /// their slots, in the order in which they arrive. Their numbers are their places in the list.
    pub fn list(
        &self,
        items: impl Iterator<Item = Item>,
        fills: impl Iterator<Item = Item>,
        list: &mut Vec<Item>,
    ) {
        let mut guard = self.inner();
        let inner = &mut *guard;
        list.clear();
        list.extend(fills.filter(|item| inner.is_copied(item)));
        list.extend(items);
        // What is not there yet keeps its order.
        list.sort_by_key(|item| inner.taken(*item).map_or(u64::MAX, |taken| taken.order));
        if let Some(first) = list.first() {
            inner.layer = first.layer;
            let is_of_now = |item: &Item| (item.layer, item.part) == (first.layer, first.part);
            inner.later.retain(|item| !is_of_now(item));
        }
        for (number, &item) in list.iter().enumerate() {
            let sequence = match inner.held.get(&item) {
                Some(&at) => {
                    let (sequence, taken) = &mut inner.places[at];
                    taken.as_mut().expect("it is held").number = Some(number);
                    *sequence + 1
                }
                None => {
                    inner.now.push_back((number, item));
                    0
                }
            };
            self.sequences[number].store(sequence, Ordering::Release);
        }
    }

    /// The sequence number of the read of what has this number in the list, if that has begun.
    pub fn sequence(&self, number: usize) -> Option<u64> {
        self.sequences[number].load(Ordering::Acquire).checked_sub(1)
    }

    /// Makes `orders` what can be read now.
    pub fn fill(&self, has_arrived: HasArrived, orders: &mut Vec<Order>) {
        self.inner().fill(&self.sequences, has_arrived, orders);
    }

    /// What has this number in the list, and the slot that it is to be copied to.
    pub fn copy(&self, number: usize) -> Option<(Item, u32)> {
        let mut inner = self.inner();
        let at = self.place(&inner, number);
        let taken = inner.places[at].1.as_mut().expect("it is listed");
        taken.slot.map(|slot| (taken.item, slot))
    }

    /// All threads have left behind what has this number in the list. Makes `orders` what can be read now.
    pub fn leave(&self, number: usize, has_arrived: HasArrived, orders: &mut Vec<Order>) {
        let mut inner = self.inner();
        let at = self.place(&inner, number);
        let taken = inner.places[at].1.take().expect("it is listed");
        inner.held.remove(&taken.item);
        inner.free.push(at);
        inner.fill(&self.sequences, has_arrived, orders);
    }

    fn place(&self, inner: &Inner, number: usize) -> usize {
        let sequence = self.sequence(number).expect("it has arrived");
        sequence as usize % inner.places.len()
    }

    /// Who waits for a slot waits for no operation that may not come: what was to be copied is read. `is_of` says whose
    /// items.
    pub fn settle(&self, is_of: impl Fn(usize) -> bool, orders: &mut Vec<Order>) {
        let mut inner = self.inner();
        if is_of(inner.owner) {
            inner.keep(orders, |taken| taken.slot.is_none());
        }
    }
}

impl Inner {
    /// Whether nothing is here or will be.
    fn is_empty(&self) -> bool {
        self.held.is_empty() && self.later.is_empty()
    }

    fn taken(&mut self, item: Item) -> Option<&mut Taken> {
        let at = *self.held.get(&item)?;
        self.places[at].1.as_mut()
    }

    fn is_copied(&mut self, item: &Item) -> bool {
        self.taken(*item).is_some_and(|taken| taken.slot.is_some())
    }

    /// Keeps what the event needs, and nothing else.
    fn plan(&mut self, needs: &Needs, orders: &mut Vec<Order>) {
        self.later.clear();
        let is_needed = |item: &Item| {
            item.layer == needs.layer
                && (needs.staged.contains(&item.expert)
                    || needs.fills.iter().any(|fill| fill.0 == item.expert))
        };
        self.keep(orders, |taken| is_needed(&taken.item));
    }

    /// What is not here is to be read later.
    fn queue(&mut self, items: impl Iterator<Item = Item>) {
        let held = &self.held;
        self.later.extend(items.filter(|item| !held.contains_key(item)));
    }

    /// Drops what is not to be kept, and what of that was to be copied to a slot is read into it. What is listed
    /// stays until it is left.
    fn keep(&mut self, orders: &mut Vec<Order>, is_kept: impl Fn(&Taken) -> bool) {
        for at in 0..self.places.len() {
            let is_over = |taken: &mut Taken| taken.number.is_none() && !is_kept(taken);
            if let Some(taken) = self.places[at].1.take_if(is_over) {
                self.held.remove(&taken.item);
                self.dropped.push(at);
                orders.extend(taken.slot.map(|slot| Order::Slot(taken.item, slot)));
            }
        }
    }

    /// Gives free places to what is to be read.
    fn fill(
        &mut self,
        sequences: &[AtomicU64],
        has_arrived: HasArrived,
        orders: &mut Vec<Order>,
    ) {
        loop {
            let Self { dropped, places, .. } = self;
            self.free
                .extend(dropped.extract_if(.., |at| has_arrived(places[*at].0)));
            let is_stuck = self.free.is_empty() && self.dropped.is_empty() && !self.now.is_empty();
            if is_stuck && self.drop_latest(orders) {
                continue;
            }
            let Some(at) = self.free.pop() else { return };
            let (number, item) = match (self.now.pop_front(), self.later.is_empty()) {
                (Some((number, item)), _) => (Some(number), item),
                (None, false) => (None, self.later.pop_front().expect("there is one")),
                (None, true) => return self.free.push(at),
            };
            self.n_orders += 1;
            let sequence = self.places[at].0 + self.places.len() as u64;
            let taken = Taken {
                item,
                number,
                slot: None,
                order: self.n_orders,
            };
            self.places[at] = (sequence, Some(taken));
            self.held.insert(item, at);
            if let Some(number) = number {
                sequences[number].store(sequence + 1, Ordering::Release);
            }
            orders.push(Order::Place(item, sequence, item.layer != self.layer));
        }
    }

    /// All places are taken for later, and the operation needs one: drops what came last, which is read again when there is
    /// room. False if the operation has a place, which it will leave.
    fn drop_latest(&mut self, orders: &mut Vec<Order>) -> bool {
        let taken = || self.places.iter().filter_map(|(_, taken)| taken.as_ref());
        if taken().any(|taken| taken.number.is_some()) {
            return false;
        }
        let latest = taken().max_by_key(|taken| taken.order);
        let Some((order, item, slot)) = latest.map(|taken| (taken.order, taken.item, taken.slot)) else {
            return true;
        };
        self.keep(orders, |taken| taken.order != order);
        // What was to be copied to a slot is read into it.
        if slot.is_none() {
            self.later.push_front(item);
        }
        true
    }
}

#[cfg(test)]
#[path = "ring_tests.rs"]
mod tests;
