//! Where every byte goes: layers, slots and the staging ring in one arena of the budget's size.
//!
//! Experts whose parts have the same sizes share a *pool* of slots, because layers of one model
//! differ in quantisation. A slot holds all parts (gate, up, down) of one expert. Each part has its
//! own region of the slot, large enough for the aligned span of the file that covers it, so that a
//! direct read lands where it is used and is never copied.
//!
//! Beside the slots lies a small ring of staging places, one part each. Experts that find no slot
//! pass through it, so that any budget gives correct output.

use crate::error::{Error, Result};
use crate::expert::Shape;
use crate::residency::pools::{self, Demand};
use crate::store::span;
use std::ops::Range;

/// One expert tensor of a model, as it was loaded.
#[derive(Debug, Clone)]
pub struct Tensor {
    /// Its name in the GGUF file.
    pub name: String,
    /// The block it belongs to.
    pub block: u32,
    /// How many experts it holds.
    pub n_experts: u32,
    /// Bytes of one expert.
    pub n_bytes: usize,
    /// Which of the model's files holds it.
    pub file: u32,
    /// Where in that file expert 0 begins.
    pub offset: u64,
    /// From there to where the next expert begins, at least `n_bytes`.
    pub stride: u64,
}

impl Tensor {
    /// Where in the file `expert` begins.
    pub fn offset_of(&self, expert: u32) -> u64 {
        self.offset + u64::from(expert) * self.stride
    }

    /// The expert that byte `at` of the file belongs to, if it is one of these.
    pub fn expert_at(&self, at: u64) -> Option<u32> {
        let from_first = at.checked_sub(self.offset)?;
        let (expert, byte) = (from_first / self.stride, from_first % self.stride);
        (expert < self.n_experts.into() && byte < self.n_bytes as u64).then_some(expert as u32)
    }
}

/// One part of the experts of a layer: a tensor and its region in the slots.
#[derive(Debug, Clone)]
pub struct Part {
    /// The tensor.
    pub tensor: Tensor,
    /// Where the region begins in a slot.
    pub region: usize,
}

/// A layer with streamed experts.
#[derive(Debug, Clone)]
pub struct Layer {
    /// The block of the model.
    pub block: u32,
    /// The pool that holds its experts.
    pub pool: usize,
    /// The number of this layer among the pool's layers.
    pub pool_layer: u32,
    /// Experts of the layer.
    pub n_experts: u32,
    /// What an expert consists of.
    pub parts: Vec<Part>,
}

impl Layer {
    /// One bit for each part.
    pub fn all_parts(&self) -> u32 {
        (1 << self.parts.len()) - 1
    }
}

/// Slots for experts of one size.
#[derive(Debug, Clone)]
pub struct Pool {
    /// The layers that share it.
    pub shape: Shape,
    /// Bytes of one expert in the file.
    pub expert_bytes: usize,
    /// Bytes of one slot.
    pub slot_bytes: usize,
    /// How many slots there can be.
    pub n_slots: u32,
    /// How many of them there are at the start.
    pub n_slots_start: u32,
    /// Where slot 0 begins in the arena.
    pub base: usize,
    /// Number of slot 0 among the slots of all pools.
    pub first_slot: u32,
}

impl Pool {
    /// Bytes of all slots that there can be.
    pub fn n_bytes(&self) -> u64 {
        self.slot_bytes as u64 * u64::from(self.n_slots)
    }

    /// Where these slots lie in the arena.
    pub fn bytes(&self, slots: Range<u32>) -> Range<usize> {
        let begin_of = |slot: u32| self.base + slot as usize * self.slot_bytes;
        begin_of(slots.start)..begin_of(slots.end)
    }
}

/// The staging ring.
#[derive(Debug, Clone, Copy)]
pub struct RingLayout {
    /// Where place 0 begins in the arena.
    pub base: usize,
    /// Bytes of one place.
    pub place_bytes: usize,
    /// How many places there are.
    pub n_places: usize,
}

/// The arena of one model.
#[derive(Debug, Clone)]
pub struct Layout {
    /// Layers in the order of their blocks.
    pub layers: Vec<Layer>,
    /// Pools in the order of their first layer.
    pub pools: Vec<Pool>,
    /// The ring, after the last slot.
    pub ring: RingLayout,
    /// Bytes of the arena with all slots that there can be.
    pub arena_bytes: usize,
    /// Bytes of all streamed experts in the files.
    pub expert_bytes: u64,
    /// Whether the arena is to have memory of all NUMA nodes in turns.
    pub is_interleaved: bool,
}

/// So much of the ring lies beside the budget at most; what is beyond that is taken out of it.
pub const RING_BESIDE_BYTES: usize = 16 << 20;
/// A ring of large parts has more, to hold a few of them. More brings no more overlap, and what does not stay in the
/// processor's cache until it is computed is slower (docs/runs/2026-11-29-deep).
const RING_BYTES_MAX: u64 = 64 << 20;
/// The part of a budget that a ring may have: what it takes from experts must not be missed.
const RING_SHARE: u64 = 32;
/// So many places are enough, and lie beside the budget at most.
const RING_PLACES_FEW: u64 = 16;
/// More places than this are not worth looking for.
const RING_PLACES_MAX: usize = 128;
/// What one slot more than the budget may cost before a budget is called too small.
const OVERSHOOT_BYTES: u64 = 48 << 20;

/// Bytes of all experts of `tensors` in the files.
pub fn expert_bytes(tensors: &[Tensor]) -> u64 {
    tensors
        .iter()
        .map(|t| t.n_bytes as u64 * u64::from(t.n_experts))
        .sum()
}

impl Layout {
    /// The layers of each pool, ascending.
    pub fn layers_of_pools(&self) -> Vec<Vec<usize>> {
        let mut layers = vec![Vec::new(); self.pools.len()];
        for (number, layer) in self.layers.iter().enumerate() {
            layers[layer.pool].push(number);
        }
        layers
    }

    /// Lays out `budget` bytes for `tensors`, of which those of one block are one layer's parts in
    /// the given order. `aligns[f]` is the alignment that reads of file `f` need.
    ///
    /// Fails when a ring of two places does not fit.
    pub fn new(tensors: &[Tensor], aligns: &[usize], budget: u64) -> Result<Self> {
        Self::growing(tensors, aligns, budget, budget)
    }

    /// The same for a budget that may become up to `capacity` later, see `Engine::resize`: what is beyond the
    /// budget takes addresses and no memory. A budget too small for the ring is one without slots.
    ///
    /// Fails when a ring of two places does not fit in `capacity`.
    pub fn growing(
        tensors: &[Tensor],
        aligns: &[usize],
        budget: u64,
        capacity: u64,
    ) -> Result<Self> {
        let total = expert_bytes(tensors);
        let (mut layers, mut pools) = group(tensors, aligns);
        let place_bytes = layers
            .iter()
            .flat_map(|l| &l.parts)
            .map(|p| region_bytes(&p.tensor, aligns))
            .max()
            .unwrap_or(0);
        let n_places = n_places(budget, total, place_bytes).min(n_parts_max(&layers).max(2));
        let ring_bytes = n_places * place_bytes;

        let cost = ring_cost(n_places, place_bytes);
        let is_enough = |bytes: u64| bytes >= total || cost <= bytes.saturating_add(OVERSHOOT_BYTES);
        let capacity = capacity.max(budget);
        if !is_enough(capacity) {
            return Err(Error::setting(
                "HOTSET_RAM",
                capacity,
                format!("this model needs at least {ring_bytes} bytes"),
            ));
        }
        let slots = |bytes| slots_for(&pools, slot_bytes(bytes, total, cost));
        let both = slots(budget).into_iter().zip(slots(capacity));
        for ((start, most), pool) in both.collect::<Vec<_>>().into_iter().zip(&mut pools) {
            (pool.n_slots_start, pool.n_slots) = (start.min(most), most);
        }

        let mut end = 0;
        let mut first_slot = 0;
        for pool in &mut pools {
            pool.base = end;
            pool.first_slot = first_slot;
            end += pool.slot_bytes * pool.n_slots as usize;
            first_slot += pool.n_slots;
        }
        layers.sort_by_key(|l| l.block);
        Ok(Self {
            layers,
            pools,
            ring: RingLayout {
                base: end,
                place_bytes,
                n_places,
            },
            arena_bytes: end + ring_bytes,
            expert_bytes: total,
            is_interleaved: false,
        })
    }

    /// What of a budget the ring takes.
    pub fn ring_cost(&self) -> u64 {
        ring_cost(self.ring.n_places, self.ring.place_bytes)
    }

    /// Parts of the experts of a layer, of the one that has most.
    pub fn n_parts_max(&self) -> usize {
        n_parts_max(&self.layers)
    }

    /// Experts of all layers.
    pub fn n_experts(&self) -> usize {
        self.pools.iter().map(|p| p.shape.n_total()).sum()
    }

    /// Slots of all pools that there can be.
    pub fn n_slots(&self) -> u32 {
        self.pools.iter().map(|p| p.n_slots).sum()
    }

    /// Bytes of all slots that there can be.
    pub fn slot_bytes_most(&self) -> u64 {
        self.pools.iter().map(Pool::n_bytes).sum()
    }

    /// The smallest budget that holds an expert.
    pub fn least_bytes(&self) -> u64 {
        let slot_bytes = self.pools.iter().map(|p| p.slot_bytes).min().unwrap_or(0);
        slot_bytes as u64 + self.ring_cost()
    }

    /// Slots of all pools at the start.
    pub fn n_slots_start(&self) -> u32 {
        self.pools.iter().map(|p| p.n_slots_start).sum()
    }

    /// Bytes of the arena that are used at the start.
    pub fn arena_bytes_start(&self) -> u64 {
        let unused = |p: &Pool| p.slot_bytes as u64 * u64::from(p.n_slots - p.n_slots_start);
        self.arena_bytes as u64 - self.pools.iter().map(unused).sum::<u64>()
    }

    /// Bytes of the experts that fit at a time at the start.
    pub fn expert_bytes_start(&self) -> u64 {
        let bytes = |p: &Pool| p.expert_bytes as u64 * u64::from(p.n_slots_start);
        self.pools.iter().map(bytes).sum()
    }

    /// What of a budget is for slots: the bytes to ask `Engine::resize` for.
    pub fn slot_bytes_of(&self, budget: u64) -> u64 {
        slot_bytes(budget, self.expert_bytes, self.ring_cost())
    }

    /// The slots of each pool that `n_bytes` buy, no more than it can have.
    pub fn slots_for(&self, n_bytes: u64) -> Vec<u32> {
        let n_slots = match n_bytes < self.slot_bytes_most() {
            true => slots_for(&self.pools, n_bytes),
            false => self.pools.iter().map(|pool| pool.n_slots).collect(),
        };
        let both = n_slots.into_iter().zip(&self.pools);
        both.map(|(now, most)| now.min(most.n_slots)).collect()
    }

    /// Bytes that one token routes to when each layer picks `top_k` experts: below this budget,
    /// recency alone never hits.
    pub fn token_cycle_bytes(&self, top_k: u32) -> u64 {
        self.layers
            .iter()
            .map(|l| self.pools[l.pool].expert_bytes as u64 * u64::from(top_k.min(l.n_experts)))
            .sum()
    }
}

/// The bytes that a span of one expert of `tensor` can take, wherever it begins.
fn region_bytes(tensor: &Tensor, aligns: &[usize]) -> usize {
    let align = aligns[tensor.file as usize];
    (0..tensor.n_experts)
        .map(|e| span(tensor.offset_of(e), tensor.n_bytes, align).len)
        .max()
        .unwrap_or(0)
        // Regions begin aligned for any file of the model, and for the vector units.
        .next_multiple_of(aligns.iter().copied().max().unwrap_or(1).max(64))
}

/// Parts of the experts of a layer, of the one that has most.
fn n_parts_max(layers: &[Layer]) -> usize {
    let n_parts = layers.iter().map(|l| l.n_experts as usize * l.parts.len());
    n_parts.max().unwrap_or(0)
}

/// Groups tensors into layers and layers into pools, with no slots yet.
fn group(tensors: &[Tensor], aligns: &[usize]) -> (Vec<Layer>, Vec<Pool>) {
    let mut layers: Vec<Layer> = Vec::new();
    for tensor in tensors {
        let part = Part {
            tensor: tensor.clone(),
            region: 0,
        };
        match layers.iter_mut().find(|l| l.block == tensor.block) {
            Some(layer) => layer.parts.push(part),
            None => layers.push(Layer {
                block: tensor.block,
                pool: 0,
                pool_layer: 0,
                n_experts: tensor.n_experts,
                parts: vec![part],
            }),
        }
    }
    layers.sort_by_key(|l| l.block);

    // A pool's key: the sizes of an expert's parts. Regions are as large as any of its layers needs.
    let key = |l: &Layer| l.parts.iter().map(|p| p.tensor.n_bytes).collect::<Vec<_>>();
    let keys: Vec<Vec<usize>> = layers.iter().map(key).collect();
    let mut pools = Vec::new();
    for (i, members) in pools::group(&keys).into_iter().enumerate() {
        let wanted = &keys[members[0] as usize];
        let mut n_experts = Vec::new();
        let mut regions = vec![0; wanted.len()];
        for &member in &members {
            let layer = &mut layers[member as usize];
            layer.pool = i;
            layer.pool_layer = n_experts.len() as u32;
            n_experts.push(layer.n_experts);
            for (region, part) in regions.iter_mut().zip(&layer.parts) {
                *region = (*region).max(region_bytes(&part.tensor, aligns));
            }
        }
        for &member in &members {
            let mut begin = 0;
            for (region, part) in regions.iter().zip(&mut layers[member as usize].parts) {
                part.region = begin;
                begin += region;
            }
        }
        let expert_bytes: usize = wanted.iter().sum();
        pools.push(Pool {
            shape: Shape::with_bytes(&n_experts, &vec![expert_bytes as u64; n_experts.len()]),
            expert_bytes,
            slot_bytes: regions.iter().sum(),
            n_slots: 0,
            n_slots_start: 0,
            base: 0,
            first_slot: 0,
        });
    }
    (layers, pools)
}

/// The places of a ring beside the slots of `budget`, for experts of `total` bytes.
fn n_places(budget: u64, total: u64, place_bytes: usize) -> usize {
    let beside = RING_BESIDE_BYTES as u64;
    let place_bytes = place_bytes.max(1) as u64;
    let n_bytes = match budget < total {
        true => (RING_PLACES_FEW * place_bytes).clamp(beside, (budget / RING_SHARE).clamp(beside, RING_BYTES_MAX)),
        false => beside,
    };
    // Of a small model too the ring is a small part.
    let n_bytes = n_bytes.min((total / RING_SHARE).max(RING_PLACES_FEW * place_bytes));
    ((n_bytes / place_bytes) as usize).clamp(2, RING_PLACES_MAX)
}

/// What a ring takes of a budget: all but what may lie beside it.
fn ring_cost(n_places: usize, place_bytes: usize) -> u64 {
    let beside = RING_BESIDE_BYTES.min(RING_PLACES_FEW as usize * place_bytes);
    (n_places * place_bytes).saturating_sub(beside) as u64
}

/// What `budget` leaves to slots beside a ring that takes `ring_cost` of it, when all experts have `total` bytes.
fn slot_bytes(budget: u64, total: u64, ring_cost: u64) -> u64 {
    match budget >= total {
        // What alignment and the ring add must not keep one expert out of a budget for all.
        true => u64::MAX,
        false => budget.saturating_sub(ring_cost),
    }
}

/// The slots of each pool: its share of `n_bytes` by the bytes of its experts, and of what is left over as
/// many as fit.
fn slots_for(pools: &[Pool], n_bytes: u64) -> Vec<u32> {
    let demand = |pool: &Pool| Demand {
        slot_bytes: pool.slot_bytes as u64,
        n_experts: pool.shape.n_total() as u32,
    };
    let demands: Vec<_> = pools.iter().map(demand).collect();
    pools::share_slots(&demands, n_bytes)
}

#[cfg(test)]
#[path = "layout_tests.rs"]
mod tests;
