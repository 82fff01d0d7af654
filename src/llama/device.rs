//! The cache of experts on devices that llama.cpp makes for a context: what its banks hold, and the uploads.
//!
//! llama.cpp tells each layer while it makes the cache, and asks before it builds a graph whether that graph
//! reads the cache. The first time it asks, all layers are known: then the pools are made and warmed.

use super::any::AnyModel;
use super::sys::{
    ggml_backend_dev_name, ggml_backend_get_device, ggml_backend_t, ggml_backend_tensor_set,
    ggml_backend_tensor_set_async, ggml_tensor,
};
use crate::config::Config;
use crate::device::guard::Guard;
use crate::device::{Cache, DeviceStats, PoolOf};
use crate::drafts::Batch;
use crate::engine::Warmed;
use crate::error::Result;
use crate::expert::Shape;
use crate::guide::Known;
use crate::report;
use crate::residency::Plan;
use crate::trace::Picks;
use arc_swap::ArcSwap;
use once_cell::sync::{Lazy, OnceCell};
use std::cell::RefCell;
use std::ffi::CStr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Instant;

/// A layer that is in the cache.
struct Layer {
    /// Its number in the model.
    number: usize,
    n_experts: u32,
    /// What llama.cpp looks up: the slot of each expert, or -1.
    slots: *mut i32,
    /// The experts in host memory, one tensor for each part.
    weights: Vec<*const ggml_tensor>,
}

/// The slots that layers of one layout share on one device.
struct Bank {
    backend: ggml_backend_t,
    n_slots: u32,
    /// One for each part.
    tensors: Vec<*mut ggml_tensor>,
    layers: Vec<Layer>,
    /// It has a layer that is not known: all of it is llama.cpp's.
    is_left: bool,
}

/// What has been told of a cache that is being made.
#[derive(Default)]
struct Told {
    banks: Vec<Bank>,
    /// Blocks for which the budget is too small.
    too_small: Vec<u32>,
}

// SAFETY: the tensors and the backend live until the cache is closed, and their pointers are only followed by the
// one thread that llama.cpp uses the cache from.
unsafe impl Send for Told {}

/// The cache of one context.
pub struct Cached {
    /// Its address.
    key: usize,
    /// The address of its model.
    pub model: usize,
    loaded: AnyModel,
    policy: String,
    told: Mutex<Told>,
    made: OnceCell<Made>,
    /// Layers that were planned since the last batch began, and experts that were uploaded.
    n_plans: AtomicU64,
    n_misses: AtomicU64,
    guard: Option<Mutex<Guard>>,
    begin: Instant,
}

/// What it is made of.
struct Made {
    cache: Cache,
    /// As the pools of the cache.
    banks: Vec<Bank>,
}

// SAFETY: as of `Told`.
unsafe impl Send for Made {}
// SAFETY: as of `Told`; other threads look at the counters alone, which have a lock.
unsafe impl Sync for Made {}

/// The caches of all contexts.
static CACHES: Lazy<ArcSwap<Vec<Arc<Cached>>>> = Lazy::new(ArcSwap::default);

thread_local! {
    /// The cache of the context that this thread computes for.
    static CURRENT: RefCell<Option<Arc<Cached>>> = const { RefCell::new(None) };
}

/// What llama.cpp says of a layer when it makes a cache.
pub struct Telling {
    /// The device.
    pub backend: ggml_backend_t,
    /// Its block.
    pub block: u32,
    /// Slots of its bank.
    pub n_slots: u32,
    /// Where the slots of its experts are written, and how many experts there are; `None` if the budget is too small.
    pub slots: Option<(*mut i32, u32)>,
    /// The experts in host memory, one tensor for each part.
    pub weights: Vec<*const ggml_tensor>,
    /// The slots, one tensor for each part.
    pub banks: Vec<*mut ggml_tensor>,
}

/// The cache at address `key`.
pub fn find(key: usize) -> Option<Arc<Cached>> {
    CACHES.load().iter().find(|c| c.key == key).cloned()
}

/// All caches.
pub fn all() -> Vec<Arc<Cached>> {
    CACHES.load().to_vec()
}

/// A new cache at address `key`, of the model at address `model`.
pub fn add(key: usize, model: usize, loaded: AnyModel, config: &Config) -> Arc<Cached> {
    let cached = Arc::new(Cached {
        key,
        model,
        loaded,
        policy: config.policy.clone(),
        told: Mutex::default(),
        made: OnceCell::new(),
        n_plans: AtomicU64::new(0),
        n_misses: AtomicU64::new(0),
        guard: config.guards_device.then(Mutex::default),
        begin: Instant::now(),
    });
    let mut caches = all();
    caches.push(cached.clone());
    CACHES.store(Arc::new(caches));
    cached
}

/// Forgets a cache. Its pointers are not followed any more.
pub fn remove(cached: &Arc<Cached>) {
    let mut caches = all();
    caches.retain(|c| !Arc::ptr_eq(c, cached));
    CACHES.store(Arc::new(caches));
}

/// This thread begins a batch, for a context of which nothing is known.
pub fn begin_batch() {
    CURRENT.set(None);
}

/// A layer was computed without the cache of the context that this thread computes for.
pub fn overhear(layer: usize, picks: Picks, batch: &Batch) -> Result<()> {
    CURRENT.with_borrow(|cached| {
        let made = cached.as_ref().and_then(|cached| cached.made.get());
        made.map_or(Ok(()), |made| made.cache.overhear(layer, picks, batch))
    })
}

impl Cached {
    /// Notes a layer. Returns whether it is ours: if not, its bank is llama.cpp's.
    pub fn tell(&self, told: Telling) -> bool {
        let mut all = self.told.lock().expect(TOLD);
        let Some((slots, n_experts)) = told.slots else {
            all.too_small.push(told.block);
            return false;
        };
        let at = all.banks.iter().position(|b| b.tensors == told.banks);
        let at = at.unwrap_or_else(|| {
            all.banks.push(Bank {
                backend: told.backend,
                n_slots: told.n_slots,
                tensors: told.banks,
                layers: Vec::new(),
                is_left: false,
            });
            all.banks.len() - 1
        });
        let bank = &mut all.banks[at];
        match self.loaded.blocks().binary_search(&told.block) {
            Ok(number) => bank.layers.push(Layer {
                number,
                n_experts,
                slots,
                weights: told.weights,
            }),
            Err(_) => bank.is_left = true,
        }
        !bank.is_left
    }

    /// Makes the pools of what was told and warms them, on the first call.
    pub fn make(&self) -> Result<()> {
        self.made.get_or_try_init(|| self.made()).map(|_| ())
    }

    /// Whether the graph that this thread is about to build for `batch` uses the cache. The first question after
    /// [`begin_batch`] is about what will be computed; others are about how much memory that could take.
    pub fn is_used(self: Arc<Self>, batch: &Batch) -> bool {
        if CURRENT.with_borrow(Option::is_some) {
            return true;
        }
        let is_used = self.guard.as_ref().is_none_or(|guard| {
            let mut guard = guard.lock().expect(TOLD);
            let (n_plans, n_misses) = (
                self.n_plans.swap(0, Relaxed),
                self.n_misses.swap(0, Relaxed),
            );
            let n_misses = (n_plans > 0).then_some(n_misses);
            let n_tokens = batch.n_tokens() as u32;
            let (is_on, news) = guard.begin(self.begin.elapsed(), n_tokens, n_misses);
            if let Some(news) = news {
                report::say(&report::guard_line(&news));
            }
            is_on
        });
        CURRENT.set(Some(self));
        is_used
    }

    fn made(&self) -> Result<Made> {
        let told = std::mem::take(&mut *self.told.lock().expect(TOLD));
        let banks: Vec<_> = told.banks.into_iter().filter(|b| !b.is_left).collect();
        let pools = banks.iter().map(Bank::pool).collect();
        let made = Made {
            cache: Cache::new(pools, &self.policy)?,
            banks,
        };
        self.loaded.note_pools(&made.cache);
        report::device_lines(
            &made.cache,
            &self.policy,
            self.loaded.blocks(),
            &told.too_small,
        );
        if let Some(workload) = self.loaded.workload() {
            if let Some(guide) = workload.guide() {
                made.cache.guide_by(guide);
            }
            if let Some(known) = workload.known() {
                made.cache.prime(&known);
                made.warm(&known, workload.prewarm);
            }
        }
        Ok(made)
    }

    /// The router of the layer that is block `block` picked `ids`, for all tokens of `batch` or for those with an
    /// output: brings the experts to the device.
    pub fn plan(&self, block: u32, ids: &[i32], batch: &Batch) -> Result<()> {
        let made = self.made.get().expect("llama.cpp asks before it computes");
        let number = self.loaded.blocks().binary_search(&block);
        let number = number.expect("the layer is ours");
        let n_used = batch.n_used(ids.len(), self.loaded.n_used() as usize);
        let picks = Picks::new(ids, n_used, n_used);
        self.loaded.see(number, picks, batch);
        let n_misses = made.plan(number, picks, batch)?;
        self.n_plans.fetch_add(1, Relaxed);
        self.n_misses.fetch_add(n_misses as u64, Relaxed);
        Ok(())
    }

    /// As [`Cache::drop_tokens`].
    pub fn drop_tokens(&self, memory: usize, seq: i32, begin: i32, end: i32) {
        if let Some(made) = self.made.get() {
            made.cache.drop_tokens(memory, seq, begin, end);
        }
    }

    /// No tokens will be dropped any more.
    pub fn settle(&self) -> Result<()> {
        self.made.get().map_or(Ok(()), |m| m.cache.settle_all())
    }

    /// The counters of each device, as [`Cache::stats`].
    pub fn stats(&self, n_picks_max: usize) -> Vec<DeviceStats> {
        let made = self.made.get();
        made.map_or(Vec::new(), |made| made.cache.stats(n_picks_max))
    }
}

const TOLD: &str = "no thread panics with it";

impl Bank {
    /// What its pool is made for.
    fn pool(&self) -> PoolOf {
        let n_experts: Vec<u32> = self.layers.iter().map(|l| l.n_experts).collect();
        let bytes = |layer: &Layer| layer.parts().map(|(_, n_bytes)| n_bytes as u64).sum();
        let bytes: Vec<u64> = self.layers.iter().map(bytes).collect();
        // SAFETY: a backend of the context has a device, whose name lives as long as the program.
        let name =
            unsafe { CStr::from_ptr(ggml_backend_dev_name(ggml_backend_get_device(self.backend))) };
        PoolOf {
            device: name.to_string_lossy().into_owned(),
            layers: self.layers.iter().map(|l| l.number).collect(),
            shape: Shape::with_bytes(&n_experts, &bytes),
            n_slots: self.n_slots,
        }
    }
}

impl Layer {
    /// The address of expert 0 of each part, and the bytes of one expert.
    fn parts(&self) -> impl Iterator<Item = (usize, usize)> {
        // SAFETY: see `Told`.
        let part =
            |&weights: &*const ggml_tensor| unsafe { ((*weights).data as usize, (*weights).nb[2]) };
        self.weights.iter().map(part)
    }

    /// Writes where an expert is.
    fn set_slot(&self, expert: u32, slot: Option<u32>) {
        assert!(expert < self.n_experts);
        // SAFETY: there is a number for each expert; llama.cpp reads them after this call, in the same thread.
        unsafe { *self.slots.add(expert as usize) = slot.map_or(-1, |slot| slot as i32) };
    }
}

impl Made {
    fn plan(&self, number: usize, picks: Picks, batch: &Batch) -> Result<usize> {
        let is_it = |bank: &&Bank| bank.layers.iter().any(|l| l.number == number);
        let bank = self
            .banks
            .iter()
            .find(is_it)
            .expect("the layer is in the cache");
        self.cache
            .plan(number, picks, batch, |plan| bank.follow(plan))
    }

    /// Uploads what `known` has hottest, for as long as `limit` at most.
    fn warm(&self, known: &Known, limit: std::time::Duration) {
        if limit.is_zero() {
            return;
        }
        let begin = Instant::now();
        let places = self.cache.fill_hottest(known);
        let size = |bank: usize| -> u64 {
            let parts = self.banks[bank].layers[0].parts();
            parts.map(|(_, n_bytes)| n_bytes as u64).sum()
        };
        let bar = report::bytes_bar(places.iter().map(|place| size(place.0)).sum());
        let mut warmed = Warmed {
            n_experts: 0,
            n_bytes: 0,
            took: begin.elapsed(),
            n_left: 0,
        };
        for &(at, id, slot) in &places {
            if begin.elapsed() >= limit {
                self.cache.unfill(at, id);
                warmed.n_left += 1;
                continue;
            }
            let bank = &self.banks[at];
            let layer = &bank.layers[id.layer as usize];
            for (&tensor, (address, n_bytes)) in bank.tensors.iter().zip(layer.parts()) {
                let data = address + id.expert as usize * n_bytes;
                // SAFETY: the bank has the slot, and the layer the expert; both have this size.
                unsafe {
                    ggml_backend_tensor_set(tensor, data as _, slot as usize * n_bytes, n_bytes)
                };
            }
            layer.set_slot(id.expert, Some(slot));
            self.cache.note_warm(at, size(at));
            warmed.n_experts += 1;
            warmed.n_bytes += size(at);
            bar.set_position(warmed.n_bytes);
        }
        bar.finish_and_clear();
        warmed.took = begin.elapsed();
        report::say(&report::warm_line(&known.name, &warmed));
    }
}

impl Bank {
    /// Uploads what a plan says, and writes where the experts are. Returns the bytes.
    fn follow(&self, plan: &Plan) -> u64 {
        let layer = &self.layers[plan.layer as usize];
        for fill in &plan.fills {
            if let Some(victim) = fill.victim {
                self.layers[victim.layer as usize].set_slot(victim.expert, None);
            }
            layer.set_slot(fill.expert, Some(fill.slot));
        }
        let mut n_uploaded = 0;
        for (&tensor, (address, n_bytes)) in self.tensors.iter().zip(layer.parts()) {
            // What is one piece here and there goes at once.
            let pieces = plan
                .fills
                .chunk_by(|a, b| (a.expert + 1, a.slot + 1) == (b.expert, b.slot));
            for piece in pieces {
                let data = address + piece[0].expert as usize * n_bytes;
                let offset = piece[0].slot as usize * n_bytes;
                let n = piece.len() * n_bytes;
                // SAFETY: the bank has these slots, and the layer these experts, of this size. They stay where they
                // are until the model goes, and the device computes before it takes what is uploaded later.
                unsafe {
                    ggml_backend_tensor_set_async(self.backend, tensor, data as _, offset, n)
                };
                n_uploaded += n as u64;
            }
        }
        n_uploaded
    }
}
