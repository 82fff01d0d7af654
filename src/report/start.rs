//! What a person reads when a model starts.

use crate::engine::{Engine, Warmed};
use crate::numbers::bytes;

/// What is active, in one line.
pub fn start_line(engine: &Engine, policy: &str) -> String {
    let layout = engine.layout();
    format!(
        "hotset: {} layers stream {} experts ({}) through {}: {} slots, policy {policy}, {}",
        layout.layers.len(),
        layout.n_experts(),
        bytes(layout.expert_bytes),
        bytes(layout.arena_bytes_start()),
        layout.n_slots_start(),
        engine.queue().about(),
    )
}

/// What was read before the first token for the workload `name`, in one line.
pub fn warm_line(name: &str, warmed: &Warmed) -> String {
    let left = match warmed.n_left {
        0 => String::new(),
        n => format!("; there was no time for {n} more (HOTSET_PREWARM)"),
    };
    format!(
        "hotset: profile '{name}': the hottest {} experts ({}) read in {:.2} s{left}",
        warmed.n_experts,
        bytes(warmed.n_bytes),
        warmed.took.as_secs_f64(),
    )
}

/// The warning about a budget below one token cycle, when each layer uses `top_k` experts a token.
pub fn cycle_line(engine: &Engine, top_k: u32) -> Option<String> {
    let layout = engine.layout();
    let cycle = layout.token_cycle_bytes(top_k);
    let slots = layout.expert_bytes_start();
    (slots < cycle).then(|| {
        format!(
            "hotset: warning: one token uses {} of experts and the budget holds {}: {:.1} MiB are missing, \
             without them policies that go by recency never hit",
            bytes(cycle),
            bytes(slots),
            (cycle - slots) as f64 / (1 << 20) as f64,
        )
    })
}
