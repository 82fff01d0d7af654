//! The slots of one pool, and what is in them.

use super::counts::Counts;
use super::spares::Spares;
use crate::expert::{ExpertId, Shape};
use crate::policy::{Policy, Prior};

/// `slot_of` of an expert that is not resident.
pub(super) const NO_SLOT: u32 = u32::MAX;

/// The slots of one pool.
///
/// A slot is free, retired, abandoned, or holds one expert: `experts[slot_of[i]]` is the expert with dense
/// index `i`, for every resident and no other. The policy knows the same residents. Only a slot
/// that holds an expert or is abandoned is pinned.
pub struct Residency {
    pub(super) shape: Shape,
    pub(super) policy: Box<dyn Policy>,
    /// By dense index.
    pub(super) slot_of: Vec<u32>,
    /// By slot.
    pub(super) experts: Vec<Option<ExpertId>>,
    /// By slot: how many plans in flight use it.
    pub(super) pins: Vec<u32>,
    /// The last one is taken next.
    pub(super) free: Vec<u32>,
    /// Slots that hold no expert any more, and are pinned until reads into them have ended.
    pub(super) n_abandoned: u32,
    /// By dense index: whether generation has used a resident since an event brought it, or is expected to.
    pub(super) is_generated: Vec<bool>,
    /// What will probably be picked soon.
    pub(super) expected: Vec<ExpertId>,
    /// Residents that go first.
    pub(super) spares: Spares,
    /// Taken out of use by `resize`.
    pub(super) retired: Vec<u32>,
    /// By layer.
    pub(super) n_resident: Vec<u32>,
    pub(super) counts: Counts,
    /// Expert and rows of each miss of the event being planned; here to be allocated once.
    pub(super) misses: Vec<(u32, u32)>,
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
            is_generated: vec![false; shape.n_total()],
            expected: Vec::new(),
            spares: Spares::new(shape.n_total()),
            retired: Vec::new(),
            n_resident: vec![0; shape.n_layers() as usize],
            counts: Counts::default(),
            misses: Vec::new(),
            shape,
        }
    }

    /// `id` is held elsewhere too, so that it is not used here: if it is resident, it is evicted before all
    /// that is no spare, until a plan uses it or it is [kept](Self::keep). The oldest spare goes first.
    pub fn spare(&mut self, id: ExpertId) {
        if self.is_resident(id) {
            self.spares.add(self.shape.index(id), id);
        }
    }

    /// `id` is held nowhere else any more: if it is resident, it competes for its slot as all others.
    #[inline]
    pub fn keep(&mut self, id: ExpertId) {
        self.spares.remove(self.shape.index(id));
    }

    /// Another policy ranks the residents from now on, which is new and of the same shape. It is told of `priors`, one
    /// after the other, and then that each resident comes, in the order of `rank`, equal ones in that of their slots.
    pub fn rank_with<K: Ord>(
        &mut self,
        mut policy: Box<dyn Policy>,
        priors: &[Prior],
        rank: impl Fn(ExpertId) -> K,
    ) {
        policy.resize(self.n_slots());
        priors.iter().for_each(|prior| policy.prime(prior));
        let mut residents: Vec<ExpertId> = self.experts.iter().copied().flatten().collect();
        residents.sort_by_key(|&id| rank(id));
        residents.iter().for_each(|&id| policy.insert(id));
        self.policy = policy;
    }

    /// Residents that are held elsewhere too.
    pub fn n_spare(&self) -> u32 {
        self.spares.len()
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

    /// Whether every expert is resident.
    pub fn holds_all(&self) -> bool {
        self.n_resident() as usize == self.shape.n_total()
    }

    /// Where `id` is, if it is resident. Panics if there is no such expert.
    #[inline]
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
    #[inline]
    pub(super) fn settle(&mut self, id: ExpertId, slot: u32) {
        self.slot_of[self.shape.index(id)] = slot;
        self.experts[slot as usize] = Some(id);
        self.n_resident[id.layer as usize] += 1;
        self.policy.insert(id);
    }

    /// Takes `id`, which the policy has let go, out of its slot, which is returned.
    #[inline]
    fn vacate(&mut self, id: ExpertId) -> u32 {
        self.keep(id);
        let slot = std::mem::replace(&mut self.slot_of[self.shape.index(id)], NO_SLOT);
        self.experts[slot as usize] = None;
        self.n_resident[id.layer as usize] -= 1;
        slot
    }

    /// Empties the slot of `id`, which is resident; returns it.
    pub(super) fn evict_this(&mut self, id: ExpertId) -> u32 {
        self.policy.evict_this(id);
        self.vacate(id)
    }

    /// Empties the slot of the oldest spare of `layer`, else the one that the policy chooses there, or among the `unused`
    /// there that generation has not used, unless all are pinned or expected.
    pub(super) fn evict_of(&mut self, layer: u32, unused: bool) -> Option<(u32, ExpertId)> {
        let Self {
            policy,
            shape,
            slot_of,
            pins,
            expected,
            is_generated,
            spares,
            ..
        } = self;
        let is_free = |id: ExpertId| {
            let slot = slot_of[shape.index(id)];
            let is_here = id.layer == layer && slot != NO_SLOT;
            is_here && pins[slot as usize] == 0 && !expected.contains(&id)
        };
        let goes = |id: ExpertId| is_free(id) && !(unused && is_generated[shape.index(id)]);
        let victim = match take_spare(&mut **policy, spares, is_free) {
            Some(spare) => spare,
            None => {
                // Mostly there is none, and a policy would ask for all that it knows of.
                let mut experts = (0..shape.n_experts(layer)).map(|expert| ExpertId { layer, expert });
                if !experts.any(goes) {
                    return None;
                }
                let victim = policy.evict(&|id| !goes(id))?;
                assert!(goes(victim), "the policy chose {victim}, which stays");
                victim
            }
        };
        Some((self.vacate(victim), victim))
    }

    /// Empties the slot of the oldest spare, else the one that the policy chooses, unless all are pinned. What
    /// is expected is left in place, if anything else can go.
    pub(super) fn evict(&mut self) -> Option<(u32, ExpertId)> {
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
        let victim = match take_spare(&mut **policy, spares, |id| !is_wanted(id)) {
            Some(spare) => Some(spare),
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
}

/// Takes the oldest spare that may go from the policy.
fn take_spare(
    policy: &mut dyn Policy,
    spares: &Spares,
    may_go: impl Fn(ExpertId) -> bool,
) -> Option<ExpertId> {
    let spare = spares.iter().find(|&id| may_go(id))?;
    policy.evict_this(spare);
    Some(spare)
}
