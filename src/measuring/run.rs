//! One run: what the process that computed says of it.

use crate::error::{Error, Result};
use crate::statistics::share;
use super::times::Times;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// What one run measured.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Run {
    /// Tokens that the model was trained to see at once.
    pub n_context_trained: u32,
    /// Tokens of the prompt.
    pub n_prompt: usize,
    /// Reading the prompt.
    pub prefill: Phase,
    /// Generating.
    pub decode: Phase,
    /// Milliseconds of each token that was generated.
    pub token_ms: Vec<f64>,
    /// The tokens.
    pub tokens: Vec<i32>,
    /// The tokens once more while the disk is read as fast as it goes; null in runs that are no reference.
    pub together: Option<Together>,
    /// The most memory that the process had at once, mapped files included.
    pub peak_rss_bytes: u64,
    /// The counters of hotset before the prompt, all fields of [`crate::stats::Stats`]; null for stock
    /// llama.cpp.
    pub before: Option<Value>,
}

/// Computing and reading at once, each as much as it can.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Together {
    /// Milliseconds of a token, with every expert in memory.
    pub token_ms: f64,
    /// What the disk delivered meanwhile.
    pub bytes_per_s: f64,
}

/// A part of a run.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Phase {
    /// How long it took, in milliseconds.
    pub ms: f64,
    /// Page faults that had to wait for a disk.
    pub major_faults: u64,
    /// Bytes that the process had read from disks.
    pub read_bytes: u64,
    /// The counters of hotset at its end; null for stock llama.cpp.
    pub stats: Option<Value>,
}

/// The counters that a benchmark uses, of those that a run has.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Counters {
    /// Bytes of experts that missed.
    pub bytes_read: u64,
    /// Time that computing waited for them.
    pub stalled_ms: f64,
    /// Bytes of memory for experts.
    pub arena_bytes: u64,
    /// Experts that it can hold.
    pub n_slots: u64,
    /// Experts that it holds.
    pub n_resident: u64,
    generation: Picks,
    prompt: Picks,
    #[serde(default)]
    generation_time: Times,
    #[serde(default)]
    prompt_time: Times,
    /// What reading ahead counts, where it counts.
    #[serde(default)]
    ahead: Value,
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
struct Picks {
    hits: u64,
    misses: u64,
}

impl Counters {
    /// Of the counters of a run. Fails if one is missing.
    pub fn read(stats: &Value) -> Result<Self> {
        Self::deserialize(stats).map_err(|e| Error::State(format!("the counters of a run: {e}: {stats}")))
    }

    fn hits(&self) -> u64 {
        self.generation.hits + self.prompt.hits
    }

    /// The numbers that reading ahead counts.
    fn ahead(&self) -> BTreeMap<&str, f64> {
        let fields = self.ahead.as_object().into_iter().flatten();
        let numbers = fields.filter_map(|(name, value)| Some((name.as_str(), value.as_f64()?)));
        numbers.collect()
    }

    fn misses(&self) -> u64 {
        self.generation.misses + self.prompt.misses
    }
}

/// What experts did in one phase.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Traffic {
    /// The part of the picks whose expert was in memory; 0 if there were none.
    pub hit_rate: f64,
    /// Bytes of experts that missed.
    pub missed_bytes: u64,
    /// Milliseconds that computing waited for them.
    pub stalled_ms: f64,
    /// Where the time of its batches went.
    pub times: Times,
    /// What reading ahead counted, by its names for it; empty where it counts nothing.
    pub ahead: BTreeMap<String, f64>,
}

impl Run {
    /// What experts did while the prompt was read; `None` for stock llama.cpp.
    pub fn prefill_traffic(&self) -> Result<Option<Traffic>> {
        traffic(self.before.as_ref(), self.prefill.stats.as_ref(), |c| c.prompt_time)
    }

    /// What experts did while tokens were generated; `None` for stock llama.cpp.
    pub fn decode_traffic(&self) -> Result<Option<Traffic>> {
        traffic(self.prefill.stats.as_ref(), self.decode.stats.as_ref(), |c| c.generation_time)
    }

    /// Tokens of the prompt that were read in a second.
    pub fn prefill_tokens_per_s(&self) -> f64 {
        1e3 * self.n_prompt as f64 / self.prefill.ms
    }

    /// Tokens that were generated in a second.
    pub fn decode_tokens_per_s(&self) -> f64 {
        1e3 / self.decode_ms_per_token()
    }

    /// Milliseconds of a token that was generated, as the mean.
    pub fn decode_ms_per_token(&self) -> f64 {
        self.decode.ms / self.tokens.len() as f64
    }
}

/// The difference of two looks at the counters.
fn traffic(before: Option<&Value>, after: Option<&Value>, times: fn(&Counters) -> Times) -> Result<Option<Traffic>> {
    let Some(after) = after else {
        return Ok(None);
    };
    let after = Counters::read(after)?;
    let before = before.map_or(Ok(Counters::default()), Counters::read)?;
    let hits = after.hits() - before.hits();
    let (ahead_before, ahead_after) = (before.ahead(), after.ahead());
    let ahead = ahead_after.iter().map(|(&name, n)| {
        let n_before = ahead_before.get(name).copied().unwrap_or(0.0);
        (name.to_string(), n - n_before)
    });
    let picks = hits + after.misses() - before.misses();
    Ok(Some(Traffic {
        hit_rate: share(hits, picks),
        missed_bytes: after.bytes_read - before.bytes_read,
        stalled_ms: after.stalled_ms - before.stalled_ms,
        times: times(&after).zip(&times(&before), |after, before| after - before),
        ahead: ahead.collect(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn stats(hits: [u64; 2], misses: [u64; 2], bytes_read: u64, stalled_ms: f64) -> Value {
        json!({
            "bytes_read": bytes_read, "stalled_ms": stalled_ms, "arena_bytes": 10, "n_slots": 3,
            "n_resident": 2, "unknown": "field",
            "generation": {"hits": hits[0], "misses": misses[0]},
            "prompt": {"hits": hits[1], "misses": misses[1], "tokens": 7},
        })
    }

    #[test]
    fn each_phase_has_its_own_part_of_the_counters() {
        let mut run = Run {
            n_prompt: 100,
            tokens: vec![0; 4],
            ..Run::default()
        };
        (run.prefill.ms, run.decode.ms) = (50.0, 200.0);
        assert_eq!(run.prefill_tokens_per_s(), 2000.0);
        assert_eq!(run.decode_ms_per_token(), 50.0);
        assert_eq!(run.decode_tokens_per_s(), 20.0);
        assert_eq!(run.prefill_traffic().unwrap(), None);
        assert_eq!(run.decode_traffic().unwrap(), None);

        run.prefill.stats = Some(stats([0, 30], [0, 10], 1000, 5.0));
        run.decode.stats = Some(stats([8, 30], [2, 10], 1200, 6.5));
        let times = |stalled_ms| Times {
            busy_ms: 2.0 * stalled_ms,
            stalled_ms,
            ..Times::default()
        };
        run.decode.stats.as_mut().unwrap()["generation_time"] = json!(times(1.5));
        let ahead = |run: &mut Phase, n| {
            let stats = run.stats.as_mut().unwrap();
            stats["ahead"] = json!({"used": n, "is_on": true});
        };
        ahead(&mut run.prefill, 9);
        ahead(&mut run.decode, 13);
        let prefill = run.prefill_traffic().unwrap().unwrap();
        let expected = Traffic {
            hit_rate: 0.75,
            missed_bytes: 1000,
            stalled_ms: 5.0,
            times: Times::default(),
            ahead: BTreeMap::from([("used".to_string(), 9.0)]),
        };
        assert_eq!(prefill, expected);
        let decode = run.decode_traffic().unwrap().unwrap();
        let expected = Traffic {
            hit_rate: 0.8,
            missed_bytes: 200,
            stalled_ms: 1.5,
            times: times(1.5),
            ahead: BTreeMap::from([("used".to_string(), 4.0)]),
        };
        assert_eq!(decode, expected);
        // What was before the prompt is not the prompt's.
        run.before = Some(stats([0, 10], [0, 10], 600, 4.0));
        let prefill = run.prefill_traffic().unwrap().unwrap();
        assert_eq!((prefill.hit_rate, prefill.missed_bytes), (1.0, 400));

        run.decode.stats = Some(json!({"bytes_read": 1}));
        assert!(run.decode_traffic().is_err());
    }
}
