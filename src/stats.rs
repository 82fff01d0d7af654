//! The counters of one model, and how the same routing would have gone with other policies.

use crate::engine::Engine;
use crate::replay::{belady, replay};
use crate::residency::Tally;
use serde::Serialize;
use std::sync::atomic::Ordering::Relaxed;

/// What happened to the experts of one model.
#[derive(Debug, Clone, Serialize)]
pub struct Stats {
    /// The model's first file.
    pub model: String,
    /// The policy that was active.
    pub policy: String,
    /// How reads were done.
    pub io: String,
    /// Layers with streamed experts.
    pub n_layers: usize,
    /// Experts of all layers.
    pub n_experts: usize,
    /// Experts that memory can hold.
    pub n_slots: u32,
    /// Experts that memory held at the end.
    pub n_resident: u32,
    /// Bytes of all experts in the file.
    pub expert_bytes: u64,
    /// Bytes of memory for experts, staging included.
    pub arena_bytes: u64,
    /// Batches of up to [`crate::expert::Event::SCAN_TOKENS`] tokens.
    pub generation: Tally,
    /// Larger batches.
    pub prompt: Tally,
    /// Reads that misses have caused.
    pub n_reads: u64,
    /// Bytes of these reads.
    pub bytes_read: u64,
    /// Bytes read besides: all experts at the start, if they fit.
    pub bytes_read_besides: u64,
    /// Time that computing waited for reads.
    pub stalled_ms: f64,
    /// Time from the first routing event to the last.
    pub busy_ms: f64,
    /// Whether experts passed through the staging ring.
    pub has_staged: bool,
    /// The share of generation's picks that the hottest quarter of a layer's experts got, as the mean
    /// over the layers: 0.25 is a flat router, whose hot experts are no better than others.
    pub hot_quarter_share: Option<f64>,
    /// Other policies on the same routing; left out of reports during a run.
    pub regret: Option<Regret>,
}

/// Hits of other policies on the routing of this run, each from an empty cache of the same size.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Regret {
    /// Experts routed in the window that was replayed.
    pub picks: u64,
    /// Whether the window is the whole run.
    pub is_whole_run: bool,
    /// Hits of the active policy.
    pub active_hits: u64,
    /// Hits of `lru`.
    pub lru_hits: u64,
    /// Hits of the offline optimum.
    pub belady_hits: u64,
}

impl Stats {
    /// The counters of `engine`, without the comparison with other policies. `None` while an event
    /// is being planned.
    pub fn counters(engine: &Engine, policy: &str) -> Option<Self> {
        let layout = engine.layout();
        let queue = engine.queue();
        let meter = engine.meter();
        let bytes_read = meter.bytes_read.load(Relaxed);
        let first_file = queue
            .files()
            .first()
            .map(|f| f.path().display().to_string());
        let mut n_resident = 0;
        let (mut hot_share, mut n_hot_layers) = (0.0, 0);
        let (mut generation, mut prompt) = (Tally::default(), Tally::default());
        let busy = engine.inspect(|pool, residency, _, tracker| {
            let layers = 0..pool.shape.n_layers();
            for share in layers.filter_map(|l| tracker.coverage_of_hottest_quarter(l)) {
                hot_share += share;
                n_hot_layers += 1;
            }
            n_resident += residency.n_resident();
            let counts = residency.counts();
            generation.add(&counts.decode);
            prompt.add(&counts.scan);
        })?;
        Some(Self {
            model: first_file.unwrap_or_default(),
            policy: policy.to_string(),
            io: queue.about().to_string(),
            n_layers: layout.layers.len(),
            n_experts: layout.n_experts(),
            n_slots: layout.n_slots(),
            n_resident,
            expert_bytes: layout.expert_bytes,
            arena_bytes: layout.arena_bytes as u64,
            generation,
            prompt,
            n_reads: meter.n_reads.load(Relaxed),
            bytes_read,
            bytes_read_besides: queue.stats().bytes_read.saturating_sub(bytes_read),
            stalled_ms: meter.stalled_ns.load(Relaxed) as f64 / 1e6,
            busy_ms: busy.as_secs_f64() * 1e3,
            has_staged: meter.has_staged.load(Relaxed),
            hot_quarter_share: (n_hot_layers > 0).then(|| hot_share / f64::from(n_hot_layers)),
            regret: None,
        })
    }

    /// The counters of `engine` with the comparison, which takes a second per million picks or so.
    /// `None` while an event is being planned.
    pub fn of(engine: &Engine, policy: &str) -> Option<Self> {
        let stats = Self::counters(engine, policy)?;
        let regret = Some(Regret::of(engine, policy)?);
        Some(Self { regret, ..stats })
    }
}

impl Regret {
    fn of(engine: &Engine, policy: &str) -> Option<Self> {
        let mut regret = Self {
            is_whole_run: true,
            ..Self::default()
        };
        engine.inspect(|pool, _, log, _| {
            let fits = "the log holds events of this shape";
            let hits = |name| {
                let counts = replay(log.iter(), &pool.shape, pool.n_slots, name);
                counts.expect(fits).hits()
            };
            regret.picks += log.n_picks() as u64;
            regret.is_whole_run &= log.n_events_dropped() == 0;
            regret.active_hits += hits(policy);
            regret.lru_hits += hits("lru");
            let best = belady(log.iter(), &pool.shape, pool.n_slots);
            regret.belady_hits += best.expect(fits).hits();
        })?;
        Some(regret)
    }
}
