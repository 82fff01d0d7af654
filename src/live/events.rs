//! What a second has brought.

use crate::stats::Stats;
use serde::Serialize;

/// Of one model.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Tick {
    /// The model.
    pub model: String,
    /// Seconds that this is about.
    pub seconds: f64,
    /// Tokens that were generated.
    pub tokens: u64,
    /// Tokens of prompts.
    pub prompt_tokens: u64,
    /// Experts that were asked for and there.
    pub hits: u64,
    /// Others that were asked for.
    pub misses: u64,
    /// Bytes that were read.
    pub bytes_read: u64,
    /// Time that computing waited for reads.
    pub stalled_ms: f64,
    /// Time of batches, with waiting.
    pub busy_ms: f64,
    /// Bytes of slots now.
    pub budget_bytes: u64,
    /// Slots now.
    pub n_slots: u32,
    /// Experts in them.
    pub n_resident: u32,
}

impl Tick {
    /// What came between `before` and `now`, `seconds` later. Where the devices have the experts, it is of these.
    pub fn between(before: &Stats, now: &Stats, seconds: f64, budget_bytes: u64) -> Self {
        let new = |of: fn(&Stats) -> u64| of(now).saturating_sub(of(before));
        let ms = |of: fn(&Stats) -> f64| (of(now) - of(before)).max(0.0);
        Self {
            model: now.model.clone(),
            seconds,
            tokens: new(|s| s.devices.iter().map(|d| d.generation.tokens).fold(s.generation.tokens, u64::max)),
            prompt_tokens: new(|s| s.prompt.tokens),
            hits: new(|s| s.generation.hits + s.prompt.hits + of_devices(s)),
            misses: new(|s| match s.n_experts {
                // What a device lacks, nobody else is asked for.
                0 => s.devices.iter().map(|d| d.generation.misses).sum(),
                _ => s.generation.misses + s.prompt.misses,
            }),
            bytes_read: new(|s| s.bytes_read),
            stalled_ms: ms(|s| s.stalled_ms),
            busy_ms: ms(|s| s.generation_time.busy_ms + s.prompt_time.busy_ms),
            budget_bytes,
            n_slots: now.n_slots,
            n_resident: now.n_resident,
        }
    }
}

/// Hits of devices: these are not asked of memory.
fn of_devices(stats: &Stats) -> u64 {
    stats.devices.iter().map(|d| d.generation.hits).sum()
}

/// The ticks of all models as a server-sent event, at `t` seconds since 1970.
pub fn ticks_text(t: f64, models: &[Tick]) -> String {
    let data = serde_json::json!({"t": t, "models": models});
    format!("event: tick\ndata: {data}\n\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::residency::Tally;

    #[test]
    fn a_tick_is_what_is_new() {
        let stats = |n: u64| Stats {
            generation: Tally {
                tokens: n,
                hits: 10 * n,
                misses: 2 * n,
                ..Tally::default()
            },
            n_experts: 8,
            bytes_read: 100 * n,
            stalled_ms: n as f64,
            ..Stats::default()
        };
        let tick = Tick::between(&stats(3), &stats(5), 1.0, 77);
        assert_eq!((tick.tokens, tick.hits, tick.misses), (2, 20, 4));
        assert_eq!((tick.bytes_read, tick.stalled_ms, tick.budget_bytes), (200, 2.0, 77));
        // Reads that were recalled are taken back.
        assert_eq!(Tick::between(&stats(5), &stats(3), 1.0, 77).bytes_read, 0);
        let text = ticks_text(1.5, &[tick]);
        assert!(text.starts_with("event: tick\ndata: {\"models\":[{") && text.ends_with("}\n\n"), "{text}");
    }
}
