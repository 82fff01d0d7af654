//! Random events, and what the residency must make of them.

use hotset::error::Error;
use hotset::expert::{Event, ExpertId, Shape};
use hotset::residency::{Counts, Fill, Plan, Residency};
use std::collections::{BTreeMap, BTreeSet};

/// Random numbers that are the same on any machine (splitmix64).
pub struct Rng(pub u64);

impl Rng {
    /// A number below `limit`.
    pub fn below(&mut self, limit: u32) -> u32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % u64::from(limit)) as u32
    }
}

/// Owns what an `Event` borrows.
pub struct OwnedEvent {
    layer: u32,
    n_tokens: u32,
    experts: Vec<u32>,
    rows: Vec<u32>,
    ranks: Vec<u32>,
    sequences: Vec<u32>,
    positions: Vec<u32>,
    picks: Vec<u32>,
}

impl OwnedEvent {
    /// One in five has many tokens: it is a scan, or these are generated side by side. Low experts are picked more often,
    /// so that frequencies differ.
    pub fn random(rng: &mut Rng, shape: &Shape) -> Self {
        let layer = rng.below(shape.n_layers());
        let n_experts = shape.n_experts(layer);
        let is_prefill = rng.below(5) == 0;
        let n_tokens = if is_prefill {
            33 + rng.below(100)
        } else {
            1 + rng.below(2) * rng.below(32)
        };
        let n_picks = rng.below(if is_prefill { 2 * n_experts } else { 5 });
        let pick = |_| rng.below(n_experts).min(rng.below(n_experts));
        let experts: Vec<u32> = (0..n_picks)
            .map(pick)
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect();
        // Few different values, so that there are ties.
        let rows = experts
            .iter()
            .map(|_| 1 + rng.below(n_tokens.min(4)))
            .collect();
        // Of numbers of their own, so that policies which look at no ranks decide as without them.
        let mut rng = Rng(!rng.0);
        let n_ranks = experts.len() * rng.below(2) as usize;
        let ranks = (0..n_ranks).map(|_| rng.below(4)).collect();
        let n_known = n_tokens * rng.below(2);
        let n_sequences = 1 + rng.below(n_tokens);
        let sequences = (0..n_known).map(|token| token % n_sequences).collect();
        let first = rng.below(8);
        let positions = (0..n_known)
            .map(|token| first + token / n_sequences)
            .collect();
        let n_picks = match n_known {
            0 | 1 => 0,
            n_known => n_known as usize * experts.len().min(1),
        };
        let picks = (0..n_picks)
            .map(|_| experts[rng.below(experts.len() as u32) as usize])
            .collect();
        Self {
            layer,
            n_tokens,
            experts,
            rows,
            ranks,
            sequences,
            positions,
            picks,
        }
    }

    /// Borrows it.
    pub fn event(&self) -> Event<'_> {
        Event {
            layer: self.layer,
            n_tokens: self.n_tokens,
            experts: &self.experts,
            rows: &self.rows,
            ranks: &self.ranks,
            sequences: &self.sequences,
            positions: &self.positions,
            picks: &self.picks,
        }
    }

    /// Of its experts only the first half.
    pub fn half(&self) -> Event<'_> {
        let n_experts = self.experts.len() / 2;
        Event {
            experts: &self.experts[..n_experts],
            rows: &self.rows[..n_experts],
            ranks: &self.ranks[..n_experts.min(self.ranks.len())],
            ..self.event()
        }
    }
}

/// What the residency must be, kept the plain way: it takes the victims from the plans and derives
/// everything else.
#[derive(Clone)]
pub struct Model {
    pub shape: Shape,
    pub n_slots: usize,
    /// Every resident.
    pub slot_of: BTreeMap<ExpertId, u32>,
    /// Every pinned slot.
    pub pins: BTreeMap<u32, u32>,
    /// What generation has used since an event brought it.
    pub generated: BTreeSet<ExpertId>,
    pub counts: Counts,
}

impl Model {
    pub fn new(shape: &Shape, n_slots: u32) -> Self {
        Self {
            shape: shape.clone(),
            n_slots: n_slots as usize,
            slot_of: BTreeMap::new(),
            pins: BTreeMap::new(),
            generated: BTreeSet::new(),
            counts: Counts::default(),
        }
    }

    /// Checks `plan` against the rules and follows it; `label` says where in the test this is.
    pub fn follow(&mut self, event: &Event, plan: &Plan, label: &str) {
        let slot_of = |expert: u32| {
            let id = ExpertId {
                layer: event.layer,
                expert,
            };
            self.slot_of.get(&id).copied()
        };
        let hits = event.experts.iter().filter_map(|&e| Some((e, slot_of(e)?)));
        assert_eq!(plan.hits, hits.collect::<Vec<_>>(), "{label}: hits");
        let picks = event
            .experts
            .iter()
            .copied()
            .zip(event.rows.iter().copied());
        let misses = picks
            .filter(|&(expert, _)| slot_of(expert).is_none())
            .collect();
        for &(_, slot) in &plan.hits {
            *self.pins.entry(slot).or_default() += 1;
        }
        let n_free = self.n_slots - self.slot_of.len();
        self.check_fills(event, misses, plan, label);
        let n_victims = plan.fills.iter().filter(|f| f.victim.is_some()).count();
        let n_missing = plan.fills.len().saturating_sub(n_free);
        assert!(
            n_victims == n_missing || event.is_large(),
            "{label}: evicted while slots are free"
        );
        let is_needed = |id: &ExpertId| id.layer != event.layer || self.is_protected(event, id);
        let mut victims = plan.fills.iter().filter_map(|fill| fill.victim);
        assert!(
            !event.is_large() || !victims.any(|id| is_needed(&id)),
            "{label}: a large event evicted what is needed"
        );
        for fill in &plan.fills {
            self.fill(event.layer, fill, label);
        }
    }

    /// Whether generation has used `id`, which a scan leaves alone.
    fn is_protected(&self, event: &Event, id: &ExpertId) -> bool {
        event.is_prefill() && self.generated.contains(id)
    }

    /// Which misses (experts and rows) get a slot and in which order, and which do not.
    fn check_fills(&self, event: &Event, mut misses: Vec<(u32, u32)>, plan: &Plan, label: &str) {
        let n_fills = if event.is_large() {
            misses.sort_by_key(|&(expert, rows)| (u32::MAX - rows, expert));
            let n_here = self
                .slot_of
                .keys()
                .filter(|id| id.layer == event.layer)
                .count();
            let n_experts = self.shape.n_experts(event.layer) as usize;
            let share = (self.n_slots * n_experts).div_ceil(self.shape.n_total());
            let n_free = self.n_slots - self.slot_of.len();
            let is_unused = |(id, slot): &(&ExpertId, &u32)| {
                let is_free = id.layer == event.layer && !self.pins.contains_key(slot);
                is_free && !self.is_protected(event, id)
            };
            let n_unused = self.slot_of.iter().filter(is_unused).count();
            (n_free.min(share.saturating_sub(n_here)) + n_unused).min(misses.len())
        } else {
            (self.n_slots - self.pins.len()).min(misses.len())
        };
        let (filled, staged) = misses.split_at(n_fills);
        let experts = |misses: &[(u32, u32)]| misses.iter().map(|m| m.0).collect::<Vec<_>>();
        let fills: Vec<u32> = plan.fills.iter().map(|fill| fill.expert).collect();
        assert_eq!(fills, experts(filled), "{label}: fills of {event:?}");
        let mut staged = experts(staged);
        staged.sort();
        assert_eq!(plan.staged, staged, "{label}: staged of {event:?}");
    }

    fn fill(&mut self, layer: u32, fill: &Fill, label: &str) {
        let &Fill {
            expert,
            slot,
            victim,
        } = fill;
        if let Some(victim) = victim {
            let was_in = self.slot_of.remove(&victim);
            assert_eq!(
                was_in,
                Some(slot),
                "{label}: {victim} was not in the slot of {fill:?}"
            );
            assert!(
                !self.pins.contains_key(&slot),
                "{label}: {victim} was pinned"
            );
        }
        let is_taken = self.slot_of.values().any(|&s| s == slot);
        assert!(!is_taken, "{label}: {fill:?} is taken");
        self.slot_of.insert(ExpertId { layer, expert }, slot);
        self.pins.insert(slot, 1);
    }

    pub fn commit(&mut self, event: &Event, plan: &Plan) {
        let tally = if event.is_prefill() {
            &mut self.counts.prefill
        } else {
            &mut self.counts.decode
        };
        tally.events += 1;
        tally.tokens += u64::from(event.n_tokens) * u64::from(event.layer == 0);
        tally.hits += plan.hits.len() as u64;
        tally.misses += (event.experts.len() - plan.hits.len()) as u64;
        tally.evictions += plan.fills.iter().filter(|f| f.victim.is_some()).count() as u64;
        tally.staged += plan.staged.len() as u64;
        let id = |expert| ExpertId {
            layer: event.layer,
            expert,
        };
        let filled = plan.fills.iter().map(|fill| id(fill.expert));
        if event.is_prefill() {
            filled.for_each(|id| {
                self.generated.remove(&id);
            });
        } else {
            self.generated
                .extend(filled.chain(plan.hits.iter().map(|&(expert, _)| id(expert))));
        }
    }

    pub fn release(&mut self, plan: &Plan) {
        let fills = plan.fills.iter().map(|fill| fill.slot);
        for slot in plan.hits.iter().map(|&(_, slot)| slot).chain(fills) {
            let pins = self.pins.get_mut(&slot).unwrap();
            *pins -= 1;
            if *pins == 0 {
                self.pins.remove(&slot);
            }
        }
    }

    /// The victims are where they were, unless another plan has brought them back.
    pub fn rollback(&mut self, plan: &Plan) {
        self.release(plan);
        for fill in &plan.fills {
            let (layer, expert) = (plan.layer, fill.expert);
            self.slot_of.remove(&ExpertId { layer, expert });
        }
        for fill in &plan.fills {
            if let Some(victim) = fill.victim {
                self.slot_of.entry(victim).or_insert(fill.slot);
            }
        }
    }

    /// Resizes both and checks what the residency gave up.
    pub fn resize(&mut self, residency: &mut Residency, n_slots: usize, label: &str) {
        let retired = residency.resize(n_slots as u32);
        if n_slots < self.pins.len() {
            assert!(
                matches!(retired, Err(Error::Setting { .. })),
                "{label}: {retired:?}"
            );
            return;
        }
        let retired = retired.unwrap();
        let n_before = std::mem::replace(&mut self.n_slots, n_slots);
        assert_eq!(
            retired.len(),
            n_before.saturating_sub(n_slots),
            "{label}: {retired:?}"
        );
        let n_resident = self.slot_of.len();
        self.slot_of.retain(|_, slot| !retired.contains(slot));
        let n_evicted = n_resident - self.slot_of.len();
        let n_missing = retired.len().saturating_sub(n_before - n_resident);
        assert_eq!(
            n_evicted, n_missing,
            "{label}: {retired:?}, free slots first"
        );
        let is_pinned = |slot| self.pins.contains_key(slot);
        assert!(
            !retired.iter().any(is_pinned),
            "{label}: {retired:?} were pinned"
        );
    }

    /// Fills the free slots of both: with the first experts that are not resident.
    pub fn fill_free(&mut self, residency: &mut Residency, label: &str) {
        let n_free = self.n_slots - self.slot_of.len();
        let all = (0..self.shape.n_total()).map(|index| self.shape.id(index));
        let missing = all.filter(|id| !self.slot_of.contains_key(id));
        let expected: Vec<ExpertId> = missing.take(n_free).collect();
        let filled = residency.fill_free(0..self.shape.n_total());
        let experts: Vec<ExpertId> = filled.iter().map(|&(id, _)| id).collect();
        assert_eq!(experts, expected, "{label}: {filled:?}");
        self.generated.extend(experts);
        self.slot_of.extend(filled);
    }

    pub fn check(&self, residency: &Residency, label: &str) {
        residency.validate();
        for index in 0..self.shape.n_total() {
            let id = self.shape.id(index);
            let slot = self.slot_of.get(&id).copied();
            assert_eq!(residency.slot_of(id), slot, "{label}: {id}");
            assert_eq!(residency.is_resident(id), slot.is_some(), "{label}: {id}");
        }
        assert_eq!(residency.n_slots() as usize, self.n_slots, "{label}");
        assert_eq!(
            residency.n_resident() as usize,
            self.slot_of.len(),
            "{label}"
        );
        assert!(
            self.slot_of.len() <= self.n_slots,
            "{label}: more residents than slots"
        );
        assert_eq!(residency.counts(), self.counts, "{label}");
    }
}
