//! The cache of experts on devices that llama.cpp makes for a context.
//!
//! llama.cpp tells each layer while it makes the cache, and asks before it builds a graph whether that graph
//! reads the cache. The first time it asks, all layers are known: then the pools are made and warmed.

use super::banks::{Bank, BankLayer, Made, Source};
use super::loaded_model::LoadedModel;
use super::speaker;
use super::sys::{ggml_backend_t, ggml_tensor};
use super::trials;
use crate::config::{Config, StatsTo};
use crate::device::guard::{Guard, News};
use crate::device::{DeviceCache, DeviceStats};
use crate::draft_tokens::Batch;
use crate::error::Result;
use crate::recent_events;
use crate::report;
use crate::trace::Picks;
use arc_swap::ArcSwap;
use once_cell::sync::OnceCell;
use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Instant;

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
    loaded: LoadedModel,
    /// Blocks of which llama.cpp has repacked experts.
    repacked: Vec<u32>,
    policy: Mutex<String>,
    /// What its recent events may take.
    n_recent_bytes: usize,
    told: Mutex<Told>,
    made: OnceCell<Made>,
    is_warm: OnceCell<()>,
    /// Layers that were planned since the last batch began, and experts that were uploaded.
    n_plans: AtomicU64,
    n_misses: AtomicU64,
    guard: Option<Mutex<Guard>>,
    begin: Instant,
}

/// The caches of all contexts.
static CACHES: LazyLock<ArcSwap<Vec<Arc<Cached>>>> = LazyLock::new(ArcSwap::default);

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

/// A new cache at address `key`, of the model at address `model`, of which experts of these blocks are `repacked`.
pub fn add(
    key: usize,
    model: usize,
    loaded: LoadedModel,
    repacked: Vec<u32>,
    config: &Config,
) -> Arc<Cached> {
    let n_contexts = all().iter().filter(|c| c.model == model).count();
    let cached = Arc::new(Cached {
        key,
        model,
        loaded,
        repacked,
        policy: Mutex::new(config.policy.clone()),
        n_recent_bytes: match config.stats {
            StatsTo::Off => 0,
            _ => recent_events::device_bytes(n_contexts),
        },
        told: Mutex::default(),
        made: OnceCell::new(),
        is_warm: OnceCell::new(),
        n_plans: AtomicU64::new(0),
        n_misses: AtomicU64::new(0),
        guard: config
            .guards_device
            .then(|| Mutex::new(Guard::new(trials::turn()))),
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

/// A layer was computed without the cache of the context that this thread computes for, but for the experts `held`,
/// ascending, which were copied from there.
pub fn learn_uncached(layer: usize, picks: Picks, held: &[u32], batch: &Batch) -> Result<()> {
    with_current(|made| made.cache.learn_uncached(layer, picks, held, batch)).unwrap_or(Ok(()))
}

/// The experts of a layer that the cache of the same context has on a device, ascending.
pub fn held(layer: usize, backend: ggml_backend_t) -> Vec<u32> {
    with_current(|made| made.held(layer, backend)).unwrap_or_default()
}

/// Asks the cache of the context that this thread computes for, if it has one.
fn with_current<T>(ask: impl FnOnce(&Made) -> T) -> Option<T> {
    CURRENT.with_borrow(|cached| cached.as_ref()?.made.get().map(ask))
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
                loan: Mutex::default(),
            });
            all.banks.len() - 1
        });
        let bank = &mut all.banks[at];
        match self.loaded.blocks().binary_search(&told.block) {
            Ok(number) => bank.layers.push(BankLayer {
                number,
                n_experts,
                slots,
                sources: told.weights.into_iter().map(Source::new).collect(),
            }),
            Err(_) => bank.is_left = true,
        }
        !bank.is_left
    }

    /// Makes the pools of what was told, on the first call, and warms them if memory is there to do it through.
    pub fn make(&self) -> Result<()> {
        let made = self.made.get_or_try_init(|| self.made())?;
        match self.loaded.streams() && self.loaded.made_engine().is_none() {
            true => Ok(()),
            false => self.warm(made),
        }
    }

    /// Warms the pools, once.
    fn warm(&self, made: &Made) -> Result<()> {
        let warm = || match self.loaded.workload() {
            Some(workload) => made.warm(workload),
            None => Ok(()),
        };
        self.is_warm.get_or_try_init(warm).copied()
    }

    /// Whether the graph that this thread is about to build for `batch` uses the cache. The first question after
    /// [`begin_batch`] is about what will be computed; others are about how much memory that could take.
    pub fn is_used(self: Arc<Self>, batch: &Batch) -> Result<bool> {
        if CURRENT.with_borrow(Option::is_some) {
            return Ok(true);
        }
        if let Some(made) = self.made.get().filter(|_| batch.n_tokens() > 0) {
            self.warm(made)?;
        }
        let (is_used, news) = self
            .guard
            .as_ref()
            .map_or((true, None), |guard| self.judge(guard, batch));
        if let Some(news) = news {
            report::say(&report::guard_line(&news));
        }
        CURRENT.set(Some(self));
        Ok(is_used)
    }

    fn judge(&self, guard: &Mutex<Guard>, batch: &Batch) -> (bool, Option<News>) {
        let n_plans = self.n_plans.swap(0, Relaxed);
        let n_misses = self.n_misses.swap(0, Relaxed);
        let n_misses = (n_plans > 0).then_some(n_misses);
        let n_tokens = batch.n_tokens() as u32;
        let mut guard = guard.lock().expect(TOLD);
        guard.begin(self.begin.elapsed(), n_tokens, n_misses)
    }

    fn made(&self) -> Result<Made> {
        let told = std::mem::take(&mut *self.told.lock().expect(TOLD));
        let banks: Vec<_> = told.banks.into_iter().filter(|b| !b.is_left).collect();
        let pools = banks.iter().map(Bank::pool).collect();
        let policy = self.policy.lock().expect(TOLD).clone();
        let cache = DeviceCache::with_recent(pools, &policy, self.n_recent_bytes)?;
        speaker::follow(cache.notices());
        let made = Made {
            cache,
            banks,
            model: self.loaded.clone(),
        };
        self.loaded.note_devices(&made.cache);
        let lines = report::device_lines(
            &made.cache,
            &policy,
            self.loaded.blocks(),
            [&told.too_small, &self.repacked],
        );
        lines.iter().for_each(|line| report::say(line));
        if let Some(workload) = self.loaded.workload() {
            if let Some(recognizer) = workload.recognizer() {
                made.cache.recognize_with(recognizer);
            }
            if let Some(known) = workload.known() {
                made.cache.prime(&known);
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
        let top_k = batch.top_k(ids.len(), self.loaded.top_k() as usize);
        let picks = Picks::new(ids, top_k, top_k);
        self.loaded.learn(number, picks, batch);
        let n_misses = made.plan(number, picks, batch)?;
        self.n_plans.fetch_add(1, Relaxed);
        self.n_misses.fetch_add(n_misses as u64, Relaxed);
        Ok(())
    }

    /// What holds its experts, if that is made.
    pub fn cache(&self) -> Option<&DeviceCache> {
        self.made.get().map(|made| &made.cache)
    }

    /// Another policy ranks what the devices have from now on. Fails if there is none of this name.
    pub fn rank_with(&self, policy: &str) -> Result<()> {
        if let Some(made) = self.made.get() {
            made.cache.rank_with(policy)?;
        }
        *self.policy.lock().expect(TOLD) = policy.to_string();
        Ok(())
    }

    /// The name of its policy.
    pub fn policy(&self) -> String {
        self.policy.lock().expect(TOLD).clone()
    }

    /// Whether generation leaves it aside, because it does not pay.
    pub fn is_aside(&self) -> bool {
        let guard = self.guard.as_ref();
        guard.is_some_and(|guard| guard.lock().expect(TOLD).is_aside())
    }

    /// As [`DeviceCache::drop_tokens`].
    pub fn drop_tokens(&self, memory: usize, seq: i32, begin: i32, end: i32) {
        if let Some(made) = self.made.get() {
            made.cache.drop_tokens(memory, seq, begin, end);
        }
    }

    /// No tokens will be dropped any more.
    pub fn settle(&self) -> Result<()> {
        self.made.get().map_or(Ok(()), |m| m.cache.settle_all())
    }

    /// llama.cpp frees it: what was told of it may be forgotten.
    pub fn end(&self) -> Result<()> {
        self.made.get().map_or(Ok(()), Made::end)
    }

    /// The counters of each device, as [`DeviceCache::stats`].
    pub fn stats(&self, n_picks_max: usize) -> Vec<DeviceStats> {
        let made = self.made.get();
        made.map_or(Vec::new(), |made| made.cache.stats(n_picks_max))
    }
}

const TOLD: &str = "no thread panics with it";
