//! Which experts are resident, and in which slot: the slots of one pool and the policy that ranks
//! what is in them. It moves no bytes: a [`Plan`] says what to read where.
//!
//! # The life of a plan
//!
//! ```text
//!          plan()            commit()
//!   idle -----------> planned ------> committed
//!    ^                  |                 |
//!    +---- rollback() --+--- release() ---+
//! ```
//!
//! A lane (one threadpool) owns one plan and uses it again for each event. `plan` makes room and pins
//! every slot the event reads or fills, `commit` counts it, `release` drops the pins once no thread
//! reads the slots any more. Plans of several lanes may be committed at a time and are released in
//! any order. `rollback` undoes a plan, and is allowed while nothing else was planned: plan and
//! commit under one lock, and fail in between.

use crate::error::Result;
use crate::expert::{Event, ExpertId, Shape};
use crate::policy::Policy;

mod ahead;
mod plan;
pub mod pools;
mod resize;
mod spare;
mod teach;

use plan::State;
pub use plan::{Counts, Fill, Plan, Tally, check};
use spare::Spares;

/// `slot_of` of an expert that is not resident.
const NO_SLOT: u32 = u32::MAX;

/// The slots of one pool.
///
/// A slot is free, retired, abandoned, or holds one expert: `experts[slot_of[i]]` is the expert with dense
/// index `i`, for every resident and no other. The policy knows the same residents. Only a slot
/// that holds an expert or is abandoned is pinned.
pub struct Residency {
    shape: Shape,
    policy: Box<dyn Policy>,
    /// By dense index.
    slot_of: Vec<u32>,
    /// By slot.
    experts: Vec<Option<ExpertId>>,
    /// By slot: how many plans in flight use it.
    pins: Vec<u32>,
    /// The last one is taken next.
    free: Vec<u32>,
    /// Slots that hold no expert any more, and are pinned until reads into them have ended.
    n_abandoned: u32,
    /// What will probably be picked soon.
    expected: Vec<ExpertId>,
    /// Residents that go first.
    spares: Spares,
    /// Taken out of use by `resize`.
    retired: Vec<u32>,
    /// By layer.
    n_resident: Vec<u32>,
    counts: Counts,
    /// Plans made and sizes changed: a plan is undone only if it is the latest change.
    n_changes: u64,
    /// Expert and rows of each miss of the event being planned; here to be allocated once.
    misses: Vec<(u32, u32)>,
}

impl Residency {
    /// `n_slots` free slots, which may be none; `policy` must be new and of the same shape.
    pub fn new(shape: Shape, n_slots: u32, mut policy: Box<dyn Policy>) -> Self {
        policy.resize(n_slots);
        Self {
            policy,
            slot_of: vec![NO_SLOT; shape.n_total()],
            experts: vec![None; n_slots as usize],
            pins: vec![0; n_slots as usize],
            free: (0..n_slots).rev().collect(),
            n_abandoned: 0,
            expected: Vec::new(),
            spares: Spares::new(shape.n_total()),
            retired: Vec::new(),
            n_resident: vec![0; shape.n_layers() as usize],
            counts: Counts::default(),
            n_changes: 0,
            misses: Vec::new(),
            shape,
        }
    }

    /// Finds or makes a place for each expert of `event`, and pins it.
    ///
    /// A miss takes a free slot, else evicts, else, when all slots are pinned, is bypassed. In a scan
    /// a miss only takes a free slot, hottest experts first, and only while the layer has less than
    /// its share of all slots. So a prompt fills an empty pool evenly and pushes nothing out.
    ///
    /// An `event` that [`check`] refuses changes nothing. Panics if `plan` is in flight.
    pub fn plan(&mut self, event: &Event, plan: &mut Plan) -> Result<()> {
        check(&self.shape, event)?;
        self.place(event, event, plan);
        Ok(())
    }

    /// Plans `event`, which is checked, and tells the policy of `taught`.
    fn place(&mut self, event: &Event, taught: &Event, plan: &mut Plan) {
        assert_eq!(
            plan.state,
            State::Idle,
            "the lane's last plan still holds its pins"
        );
        self.n_changes += 1;
        plan.begin(event, self.n_changes);
        self.policy.route(taught);
        let mut misses = std::mem::take(&mut self.misses);
        misses.clear();
        // All hits before any miss: a miss must not evict what the same event needs.
        for (&expert, &rows) in event.experts.iter().zip(event.rows) {
            let id = ExpertId {
                layer: event.layer,
                expert,
            };
            match self.slot_of(id) {
                Some(slot) => {
                    self.pins[slot as usize] += 1;
                    self.keep(id);
                    plan.hits.push((expert, slot));
                }
                None => misses.push((expert, rows)),
            }
        }
        if plan.is_scan {
            self.fill_from_scan(&mut misses, plan);
        } else {
            self.fill(&misses, plan);
        }
        self.misses = misses;
    }

    fn fill(&mut self, misses: &[(u32, u32)], plan: &mut Plan) {
        for &(expert, _) in misses {
            let place = match self.free.pop() {
                Some(slot) => Some((slot, None)),
                None => self.evict().map(|(slot, victim)| (slot, Some(victim))),
            };
            match place {
                Some((slot, victim)) => self.fill_slot(expert, slot, victim, plan),
                None => plan.bypassed.push(expert),
            }
        }
    }

    fn fill_from_scan(&mut self, misses: &mut [(u32, u32)], plan: &mut Plan) {
        let room = self
            .share(plan.layer)
            .saturating_sub(self.n_resident[plan.layer as usize]);
        let n_fills = misses.len().min(room as usize).min(self.free.len());
        misses.sort_unstable_by_key(|&(expert, rows)| (std::cmp::Reverse(rows), expert));
        let (hottest, others) = misses.split_at(n_fills);
        for &(expert, _) in hottest {
            let slot = self
                .free
                .pop()
                .expect("n_fills is at most the number of free slots");
            self.fill_slot(expert, slot, None, plan);
        }
        plan.bypassed
            .extend(others.iter().map(|&(expert, _)| expert));
        plan.bypassed.sort_unstable();
    }

    fn fill_slot(&mut self, expert: u32, slot: u32, victim: Option<ExpertId>, plan: &mut Plan) {
        let id = ExpertId {
            layer: plan.layer,
            expert,
        };
        self.settle(id, slot);
        self.pins[slot as usize] = 1;
        plan.fills.push(Fill {
            expert,
            slot,
            victim,
        });
    }

    /// The part of all slots that belongs to `layer` by its number of experts, rounded up.
    fn share(&self, layer: u32) -> u32 {
        let part = u64::from(self.n_slots()) * u64::from(self.shape.n_experts(layer));
        part.div_ceil(self.shape.n_total() as u64) as u32
    }

    /// Counts a plan, which can then no longer be undone. Its pins stay until [`Self::release`].
    pub fn commit(&mut self, plan: &mut Plan) {
        assert_eq!(
            plan.state,
            State::Planned,
            "only a planned plan is committed"
        );
        let tally = self.counts.of(plan.is_scan);
        tally.events += 1;
        tally.tokens += if plan.layer == 0 {
            u64::from(plan.n_tokens)
        } else {
            0
        };
        tally.hits += plan.hits.len() as u64;
        tally.misses += (plan.fills.len() + plan.bypassed.len()) as u64;
        tally.evictions += plan
            .fills
            .iter()
            .filter(|fill| fill.victim.is_some())
            .count() as u64;
        tally.bypassed += plan.bypassed.len() as u64;
        plan.state = State::Committed;
    }

    /// Undoes a plan: victims are back in their slots, nothing is counted. Only what the policy
    /// learnt from the event stays. Panics if anything was planned or resized since.
    pub fn rollback(&mut self, plan: &mut Plan) {
        assert_eq!(
            plan.state,
            State::Planned,
            "only a planned plan is rolled back"
        );
        assert_eq!(
            plan.number, self.n_changes,
            "only the latest plan is rolled back"
        );
        self.unpin(plan);
        for fill in plan.fills.iter().rev() {
            let id = ExpertId {
                layer: plan.layer,
                expert: fill.expert,
            };
            self.policy.remove(id);
            self.vacate(id);
            match fill.victim {
                Some(victim) => {
                    self.occupy(victim, fill.slot);
                    self.policy.restore(victim);
                }
                None => self.free.push(fill.slot),
            }
        }
        plan.state = State::Idle;
    }

    /// Drops the pins of a committed plan, in any order with those of other lanes.
    pub fn release(&mut self, plan: &mut Plan) {
        assert_eq!(
            plan.state,
            State::Committed,
            "only a committed plan is released"
        );
        self.unpin(plan);
        plan.state = State::Idle;
    }

    /// Slots in use or free.
    pub fn n_slots(&self) -> u32 {
        (self.experts.len() - self.retired.len()) as u32
    }

    /// Slots that plans in flight use.
    pub fn n_pinned(&self) -> u32 {
        self.pins.iter().filter(|&&pins| pins > 0).count() as u32
    }

    /// Residents of all layers.
    pub fn n_resident(&self) -> u32 {
        self.n_slots() - self.free.len() as u32 - self.n_abandoned
    }

    /// Where `id` is, if it is resident. Panics if there is no such expert.
    pub fn slot_of(&self, id: ExpertId) -> Option<u32> {
        Some(self.slot_of[self.shape.index(id)]).filter(|&slot| slot != NO_SLOT)
    }

    /// Whether `id` is resident. Panics if there is no such expert.
    pub fn is_resident(&self, id: ExpertId) -> bool {
        self.slot_of(id).is_some()
    }

    /// What the committed plans add up to.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// The shape it was made for.
    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// Panics if the invariant is broken. Tests call it after each step.
    pub fn validate(&self) {
        let mut n_resident = vec![0; self.n_resident.len()];
        let mut n_abandoned = 0;
        for (slot, &id) in self.experts.iter().enumerate() {
            let n_lists = [&self.free, &self.retired]
                .map(|list| list.iter().filter(|&&s| s as usize == slot).count());
            let is_abandoned = id.is_none() && self.pins[slot] > 0;
            n_abandoned += u32::from(is_abandoned);
            assert_eq!(
                n_lists[0] + n_lists[1] + usize::from(id.is_some() || is_abandoned),
                1,
                "slot {slot}"
            );
            if let Some(id) = id {
                assert_eq!(self.slot_of(id), Some(slot as u32), "{id}");
                n_resident[id.layer as usize] += 1;
            }
        }
        assert_eq!(n_resident, self.n_resident);
        assert_eq!(n_abandoned, self.n_abandoned);
        assert!(self.spares.iter().all(|id| self.is_resident(id)));
        let n_mapped = self.slot_of.iter().filter(|&&slot| slot != NO_SLOT).count();
        assert_eq!(n_mapped, self.n_resident() as usize);
        self.policy.validate();
    }

    /// Makes `id` resident in `slot`, which must be empty and not in the list of free ones.
    fn settle(&mut self, id: ExpertId, slot: u32) {
        self.occupy(id, slot);
        self.policy.insert(id);
    }

    /// Does what `settle` does, without telling the policy.
    fn occupy(&mut self, id: ExpertId, slot: u32) {
        self.slot_of[self.shape.index(id)] = slot;
        self.experts[slot as usize] = Some(id);
        self.n_resident[id.layer as usize] += 1;
    }

    /// Takes `id`, which the policy has let go, out of its slot, which is returned.
    fn vacate(&mut self, id: ExpertId) -> u32 {
        self.keep(id);
        let slot = std::mem::replace(&mut self.slot_of[self.shape.index(id)], NO_SLOT);
        self.experts[slot as usize] = None;
        self.n_resident[id.layer as usize] -= 1;
        slot
    }

    /// Empties the slot of the oldest spare, else the one that the policy chooses, unless all are pinned. What
    /// is expected is left in place, if anything else can go.
    fn evict(&mut self) -> Option<(u32, ExpertId)> {
        let Self {
            policy,
            shape,
            slot_of,
            pins,
            expected,
            spares,
            ..
        } = self;
        let is_pinned = |id| pins[slot_of[shape.index(id)] as usize] > 0;
        let is_wanted = |id| is_pinned(id) || expected.contains(&id);
        let victim = match spares.iter().find(|&id| !is_wanted(id)) {
            // The policy evicts it, so that a rollback can bring it back.
            Some(spare) => policy.evict(&|id| id != spare),
            None if expected.is_empty() => None,
            None => policy.evict(&is_wanted),
        };
        let victim = victim.or_else(|| policy.evict(&is_pinned))?;
        // The one mistake of a policy that would let an operation read another expert's bytes.
        assert!(
            !is_pinned(victim),
            "the policy chose {victim}, which is pinned"
        );
        Some((self.vacate(victim), victim))
    }

    fn unpin(&mut self, plan: &Plan) {
        for slot in plan.slots() {
            self.pins[slot as usize] -= 1;
        }
    }
}
