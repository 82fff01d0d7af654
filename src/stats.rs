//! The counters of one model, and how the same routing would have gone with other policies.

use crate::engine::Engine;
use crate::replay::{belady, replay};
use crate::residency::Tally;
use serde::Serialize;

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
    /// Reads done.
    pub n_reads: u64,
    /// Bytes they delivered.
    pub bytes_read: u64,
    /// Time that computing waited for reads.
    pub stalled_ms: f64,
    /// Time from the first routing event to the last.
    pub busy_ms: f64,
    /// Whether experts passed through the staging ring.
    pub has_staged: bool,
    /// Other policies on the same routing.
    pub regret: Regret,
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
    /// The counters of `engine`; replays its log, which takes a second per million picks or so.
    pub fn of(engine: &Engine, policy: &str) -> Self {
        let layout = engine.layout();
        let queue = engine.queue();
        let reads = queue.stats();
        let first_file = queue
            .files()
            .first()
            .map(|f| f.path().display().to_string());
        let mut stats = Self {
            model: first_file.unwrap_or_default(),
            policy: policy.to_string(),
            io: queue.about().to_string(),
            n_layers: layout.layers.len(),
            n_experts: layout.pools.iter().map(|p| p.shape.n_total()).sum(),
            n_slots: layout.n_slots(),
            n_resident: 0,
            expert_bytes: layout.expert_bytes,
            arena_bytes: layout.arena_bytes as u64,
            generation: Tally::default(),
            prompt: Tally::default(),
            n_reads: reads.n_reads,
            bytes_read: reads.bytes_read,
            stalled_ms: engine.stalled_ns() as f64 / 1e6,
            busy_ms: engine.busy().as_secs_f64() * 1e3,
            has_staged: engine.has_staged(),
            regret: Regret {
                is_whole_run: true,
                ..Regret::default()
            },
        };
        engine.inspect(|pool, residency, log, _| {
            stats.n_resident += residency.n_resident();
            let counts = residency.counts();
            stats.generation.add(&counts.decode);
            stats.prompt.add(&counts.scan);
            let hits = |name| {
                replay(log.iter(), &pool.shape, pool.n_slots, name)
                    .expect("the log holds events of this shape")
                    .hits()
            };
            let best = belady(log.iter(), &pool.shape, pool.n_slots)
                .expect("the log holds events of this shape");
            let regret = &mut stats.regret;
            regret.picks += log.n_picks() as u64;
            regret.is_whole_run &= log.n_events_dropped() == 0;
            regret.active_hits += hits(policy);
            regret.lru_hits += hits("lru");
            regret.belady_hits += best.hits();
        });
        stats
    }
}
