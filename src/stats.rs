//! The counters of one model: what the table at the end is made of, and the fields of the JSON file.

use crate::pooled::Pooled;
use crate::device::DeviceStats;
use crate::engine::layout::Pool;
use crate::engine::{AheadTally, Engine, Spent};
use crate::hindsight::{Hindsight, Lookback};
use crate::measuring::Times;
use crate::recent_events::share;
use crate::residency::Tally;
use crate::tracker::unevenness::Unevenness;
use crate::tracker::{Phase, Span};
use serde::Serialize;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

/// What happened to the experts of one model. If none are streamed, it is all about devices, and the numbers of
/// memory and reads are 0.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Stats {
    /// The model's first file; its name, if none are streamed.
    pub model: String,
    /// The policy that was active.
    pub policy: String,
    /// How reads were done.
    pub io: String,
    /// Layers with streamed experts.
    pub n_layers: usize,
    /// Experts of all layers.
    pub n_experts: usize,
    /// Experts that memory can hold; at the end, if that changed.
    pub n_slots: u32,
    /// The fewest that it could hold meanwhile: less where memory was short.
    pub n_slots_min: u32,
    /// Experts that memory held at the end.
    pub n_resident: u32,
    /// Bytes of all experts in the file.
    pub expert_bytes: u64,
    /// Bytes of memory for experts, staging included; at the end, if that changed.
    pub arena_bytes: u64,
    /// Events of tokens that are generated, however many, or of up to [`crate::expert::Event::DECODE_TOKENS_MAX`] of prompts.
    pub generation: Tally,
    /// Events of more tokens of prompts.
    pub prompt: Tally,
    /// Reads that misses have caused, those ahead of them, and those of what devices got in advance.
    pub n_reads: u64,
    /// Bytes of these reads.
    pub bytes_read: u64,
    /// Calls of these reads that were made again, because what they failed with passes.
    pub n_retries: u64,
    /// What became of what was read ahead; null if nothing could be.
    pub ahead: Option<AheadTally>,
    /// Other bytes read: all experts at the start, if they fit, and what programs needed to try out a context.
    pub bytes_read_uncounted: u64,
    /// Time that computing waited for reads.
    pub stalled_ms: f64,
    /// Where the time of batches of generation went.
    pub generation_time: Times,
    /// The same of prompts.
    pub prompt_time: Times,
    /// Time from the first routing event to the last.
    pub busy_ms: f64,
    /// Whether experts passed through the staging ring.
    pub has_staged: bool,
    /// Whether experts are computed as llama.cpp repacks them, if it would.
    pub is_repacked: bool,
    /// How unevenly generation picks experts; null if there was none.
    pub generation_heat: Option<Unevenness>,
    /// How unevenly prompts pick experts; null if there was none.
    pub prompt_heat: Option<Unevenness>,
    /// Other policies on the same routing; null where there was none, or the time was too short for it.
    pub hindsight: Option<Hindsight>,
    /// The devices that keep experts of it, once for each context.
    pub devices: Vec<DeviceStats>,
    /// Where experts were found, nearest first, if devices keep some and the others are streamed.
    pub tiers: Vec<Tier>,
}

/// The same in milliseconds.
fn times_of(spent: &Spent) -> Times {
    let ms = |ns: &AtomicU64| ns.load(Relaxed) as f64 / 1e6;
    Times {
        busy_ms: ms(&spent.busy_ns),
        stalled_ms: ms(&spent.stalled_ns),
        early_ms: ms(&spent.early_ns),
        bookkeeping_ms: ms(&spent.bookkeeping_ns),
        disk_idle_ms: ms(&spent.idle_ns),
        faster_disk_ms: ms(&spent.faster_ns),
    }
}

/// What was asked of one place that holds experts, and what came there.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Tier {
    /// A device by its name, `memory`, or `disk`, which has everything.
    pub name: String,
    /// Experts that were asked for here: by the router, or by the tier before.
    pub asked: u64,
    /// Of these, those that were here.
    pub hits: u64,
    /// The same as a part of 1; null if none were asked for.
    pub hit_rate: Option<f64>,
    /// Bytes of experts that came over the link from the next tier, in advance or when they were missing.
    pub bytes_in: u64,
}

impl Tier {
    fn new(name: &str, asked: u64, hits: u64, bytes_in: u64) -> Self {
        Self {
            name: name.to_string(),
            asked,
            hits,
            hit_rate: (asked > 0).then(|| hits as f64 / asked as f64),
            bytes_in,
        }
    }
}

/// Routed experts that reports during a run compare with other policies: a tenth of a second's work, in
/// another thread than those that compute.
pub const RECENT_PICKS: usize = 1 << 16;

/// By how much memory is larger in the comparison that says what more of it would bring.
pub const MORE_BYTES: u64 = 1 << 30;

/// The slots of a pool that has `n_slots`, with its part of `MORE_BYTES`; `None` if it holds all as it is.
fn n_slots_more(pool: &Pool, expert_bytes: u64, n_slots: u32) -> Option<u32> {
    let n_experts = pool.shape.n_total() as u32;
    let share = pool.expert_bytes as f64 * f64::from(n_experts) / expert_bytes as f64;
    let n_more = (MORE_BYTES as f64 * share / pool.slot_bytes as f64) as u32;
    (n_slots < n_experts).then(|| n_experts.min(n_slots.saturating_add(n_more)))
}

impl Stats {
    /// The counters of `engine`, without the comparison with other policies. `None` while an event
    /// is being planned.
    pub fn counters(engine: &Engine, policy: &str) -> Option<Self> {
        Some(Self::look(engine, policy, 0)?.0)
    }

    /// The counters of `engine` with the comparison over the last 65536 routed experts. `None` while an
    /// event is being planned; nothing waits for the comparison.
    pub fn recent(engine: &Engine, policy: &str) -> Option<Self> {
        Self::compared(engine, policy, RECENT_PICKS)
    }

    /// The counters of `engine` with the comparison over all that is kept of the run, which takes
    /// some seconds per million routed experts at most. `None` while an event is being planned.
    pub fn of(engine: &Engine, policy: &str) -> Option<Self> {
        Self::compared(engine, policy, usize::MAX)
    }

    /// The same, of a model of which `devices` keep experts.
    pub fn with_devices(self, devices: Vec<DeviceStats>) -> Self {
        let mut tiers = Vec::new();
        if !devices.is_empty() && self.n_experts > 0 {
            let of_device = |device: &DeviceStats| {
                let Tally { hits, misses, .. } = device.generation;
                let n_bytes = device.bytes_uploaded + device.bytes_warmed;
                Tier::new(&device.device, hits + misses, hits, n_bytes)
            };
            tiers.extend(devices.iter().map(of_device));
            let hits = self.generation.hits + self.prompt.hits;
            let misses = self.generation.misses + self.prompt.misses;
            let n_bytes = self.bytes_read + self.bytes_read_uncounted;
            tiers.push(Tier::new("memory", hits + misses, hits, n_bytes));
            tiers.push(Tier::new("disk", misses, misses, 0));
        }
        Self {
            devices,
            tiers,
            ..self
        }
    }

    /// What was counted since `before`. What there is of something now stays as it is.
    pub fn since(self, before: &Self) -> Self {
        let times = |now: &Times, then: &Times| now.zip(then, |now, then| (now - then).max(0.0));
        let ahead = self.ahead.map(|now| match before.ahead {
            Some(then) => now.since(&then),
            None => now,
        });
        let devices = self.devices.into_iter().map(|now| {
            let then = before.devices.iter().find(|then| then.device == now.device);
            then.map_or(now.clone(), |then| now.since(then))
        });
        let stats = Self {
            generation: self.generation.since(&before.generation),
            prompt: self.prompt.since(&before.prompt),
            n_reads: self.n_reads.saturating_sub(before.n_reads),
            bytes_read: self.bytes_read.saturating_sub(before.bytes_read),
            bytes_read_uncounted: self.bytes_read_uncounted.saturating_sub(before.bytes_read_uncounted),
            n_retries: self.n_retries.saturating_sub(before.n_retries),
            ahead,
            stalled_ms: (self.stalled_ms - before.stalled_ms).max(0.0),
            generation_time: times(&self.generation_time, &before.generation_time),
            prompt_time: times(&self.prompt_time, &before.prompt_time),
            busy_ms: (self.busy_ms - before.busy_ms).max(0.0),
            devices: Vec::new(),
            ..self
        };
        stats.with_devices(devices.collect())
    }

    /// A number that grows whenever something is computed.
    pub fn n_heard(&self) -> u64 {
        let devices = self.devices.iter();
        let on_devices = devices.map(|d| d.generation.events + d.n_uncached + d.bytes_uploaded);
        self.generation.events + self.prompt.events + on_devices.sum::<u64>()
    }

    fn compared(engine: &Engine, policy: &str, n_picks_max: usize) -> Option<Self> {
        let (stats, windows) = Self::look(engine, policy, n_picks_max)?;
        let has_events = stats.generation.events + stats.prompt.events > 0;
        let hindsight = has_events.then(|| Hindsight::of(&windows, policy));
        Some(Self { hindsight, ..stats })
    }

    /// The counters, and copies of the latest routing of each pool: the engine is not held up by what
    /// is done with them.
    pub fn look(engine: &Engine, policy: &str, n_picks_max: usize) -> Option<(Self, Vec<Lookback>)> {
        let layout = engine.layout();
        let queue = engine.queue();
        let meter = engine.meter();
        let bytes_read = meter.bytes_read.load(Relaxed);
        let first_file = queue
            .files()
            .first()
            .map(|f| f.path().display().to_string());
        let (mut n_slots, mut n_resident) = (0, 0);
        let mut arena_bytes = layout.arena_bytes as u64;
        let mut windows = Vec::new();
        let mut layers = Phase::ALL.map(|_| Vec::new());
        let (mut generation, mut prompt) = (Tally::default(), Tally::default());
        let busy = engine.inspect(|pool, Pooled { residency, recent, tracker, .. }| {
            for (layers, phase) in layers.iter_mut().zip(Phase::ALL) {
                let counts = |layer| tracker.counts(phase, Span::Lifetime, layer);
                layers.extend((0..pool.shape.n_layers()).map(counts));
            }
            n_slots += residency.n_slots();
            arena_bytes -= pool.slot_bytes as u64 * u64::from(pool.n_slots - residency.n_slots());
            n_resident += residency.n_resident();
            let counts = residency.counts();
            generation.add(&counts.decode);
            prompt.add(&counts.prefill);
            // Windows of all pools cover the same time: a pass picks as many experts of each layer.
            let n_layers = pool.shape.n_layers() as usize;
            windows.push(Lookback {
                shape: pool.shape.clone(),
                n_slots: residency.n_slots(),
                n_slots_more: n_slots_more(pool, layout.expert_bytes, residency.n_slots()),
                recent: recent.tail(share(n_picks_max, n_layers, layout.layers.len())),
            });
        })?;
        let [generation_heat, prompt_heat] = layers.map(|layers| Unevenness::mean(&layers));
        let stats = Self {
            model: first_file.unwrap_or_default(),
            policy: policy.to_string(),
            io: queue.about().to_string(),
            n_layers: layout.layers.len(),
            n_experts: layout.n_experts(),
            n_slots,
            n_slots_min: engine.n_slots_min(),
            n_resident,
            expert_bytes: layout.expert_bytes,
            arena_bytes,
            generation,
            prompt,
            n_reads: meter.n_reads.load(Relaxed),
            bytes_read,
            n_retries: queue.stats().n_retries,
            ahead: engine.ahead(),
            bytes_read_uncounted: queue.stats().bytes_read.saturating_sub(bytes_read),
            stalled_ms: meter.stalled().as_secs_f64() * 1e3,
            generation_time: times_of(&meter.generation),
            prompt_time: times_of(&meter.prompt),
            busy_ms: busy.as_secs_f64() * 1e3,
            has_staged: meter.has_staged.load(Relaxed),
            is_repacked: engine.rewrites(),
            generation_heat,
            prompt_heat,
            hindsight: None,
            devices: Vec::new(),
            tiers: Vec::new(),
        };
        Some((stats, windows))
    }
}
