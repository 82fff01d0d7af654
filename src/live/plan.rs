//! What each amount of memory would bring to a model that runs, from its latest routing.
//!
//! The window is replayed with the active policy at each budget, as in [`crate::hindsight`]: its first half fills an empty
//! cache, also if it is the whole run, because what is seen for the first time misses whatever the budget; of the second one
//! generation counts. A token takes what it computes, and a part of what its reads take
//! at the speed of the disk: the part that was waited for so far, since some of it is done while something is computed.

use crate::engine::layout::Layout;
use crate::error::Result;
use crate::expert::{Event, Shape};
use crate::hindsight::Lookback;
use crate::replay::planner::{Measured, MemoryPlan};
use serde::Serialize;

/// Picks that are looked at.
pub const WINDOW_PICKS: usize = 1 << 15;
/// Shares of the experts that are tried, in percent.
const PERCENTS: &[u64] = &[5, 10, 15, 20, 30, 40, 50, 60, 70, 80, 90, 100];
/// What is waited for of a read, if that is not known: all of it.
const WAITED_UNKNOWN: f64 = 1.0;
/// More than the reads of a token take is waited for where the disk is slower now than it was when it was tried.
const WAITED_MAX: f64 = 4.0;

/// What is known of a model's speed.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Speed {
    /// Bytes per second that its disk delivers.
    pub disk_bytes_per_s: Option<f64>,
    /// What a token took without waiting while generating, in milliseconds.
    pub compute_ms_per_token: Option<f64>,
    /// What it waited for reads.
    pub stalled_ms_per_token: Option<f64>,
    /// The bytes that it read.
    pub bytes_per_token: Option<f64>,
}

/// What there is to say.
#[derive(Debug, Clone, Serialize)]
pub struct LivePlan {
    /// The model.
    pub model: String,
    /// The policy that was tried.
    pub policy: String,
    /// How old this is, in seconds.
    pub age_s: f64,
    /// Picks that were looked at.
    pub window_picks: u64,
    /// Tokens that counted.
    pub window_tokens: u64,
    /// Bytes per second that the disk delivers; null if that is not known.
    pub disk_bytes_per_s: Option<f64>,
    /// What a token takes without waiting, in milliseconds; null if nothing was generated.
    pub compute_ms_per_token: Option<f64>,
    /// What the memory of now brings; of no use where there are no rows, because nothing was generated.
    pub now: Now,
    /// All budgets, and what follows.
    #[serde(flatten)]
    pub plan: MemoryPlan,
}

/// What the memory of now brings.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Now {
    /// Bytes for experts.
    pub budget_bytes: u64,
    /// Hits, in percent of picks.
    pub hit_percent: f64,
    /// Bytes that a token reads.
    pub bytes_per_token: f64,
    /// Tokens per second; null if that cannot be said.
    pub tokens_per_s: Option<f64>,
}

impl LivePlan {
    /// Of a model of which nothing was computed yet.
    pub fn nothing(model: String, policy: String) -> Self {
        Self {
            model,
            policy,
            age_s: 0.0,
            window_picks: 0,
            window_tokens: 0,
            disk_bytes_per_s: None,
            compute_ms_per_token: None,
            now: Now::default(),
            plan: MemoryPlan::default(),
        }
    }

    /// The plan of a model with this `layout` and policy, of which a token uses `top_k` experts of a layer, from its latest
    /// routing by pool; the budget is `budget_bytes` now. Takes some tenths of a second.
    pub fn of(
        model: String,
        policy: &str,
        layout: &Layout,
        top_k: u32,
        budget_bytes: u64,
        windows: &[Lookback],
        speed: Speed,
    ) -> Result<Self> {
        let layers = layout.layers.iter();
        let (n_experts, bytes): (Vec<u32>, Vec<u64>) = layers
            .map(|layer| (layer.n_experts, layout.pools[layer.pool].expert_bytes as u64))
            .unzip();
        let shape = Shape::with_bytes(&n_experts, &bytes);
        let all = layout.slot_bytes_most();
        let mut budgets: Vec<u64> = PERCENTS.iter().map(|percent| all / 100 * percent).collect();
        budgets.pop();
        budgets.extend([all, budget_bytes.min(all)]);
        budgets.sort_unstable();
        budgets.dedup();
        let tried = |&budget_bytes: &u64| Tried::of(windows, policy, layout, budget_bytes);
        let tried: Vec<Tried> = budgets.iter().map(tried).collect::<Result<_>>()?;
        let n_tokens = tried.first().map_or(0, |tried| tried.n_tokens);
        let measured: Vec<Measured> = match n_tokens {
            0 => Vec::new(),
            _ => tried.iter().map(Tried::measured).collect(),
        };
        let mut plan = MemoryPlan::new(&shape, top_k, speed.disk_bytes_per_s.unwrap_or(0.0), &measured);
        for row in &mut plan.rows {
            row.tokens_per_s = speed.tokens_per_s(row.bytes_per_token);
        }
        let now = plan.rows.iter().find(|row| row.budget_bytes == budget_bytes.min(all));
        Ok(Self {
            model,
            policy: policy.to_string(),
            age_s: 0.0,
            window_picks: windows.iter().map(|w| w.recent.n_picks() as u64).sum(),
            window_tokens: n_tokens,
            disk_bytes_per_s: speed.disk_bytes_per_s,
            compute_ms_per_token: speed.compute_ms_per_token,
            now: Now {
                budget_bytes,
                ..now.map_or_else(Now::default, |row| Now {
                    budget_bytes: row.budget_bytes,
                    hit_percent: row.hit_percent,
                    bytes_per_token: row.bytes_per_token,
                    tokens_per_s: row.tokens_per_s,
                })
            },
            plan,
        })
    }
}

impl Speed {
    /// Tokens per second of a token that reads so many bytes; `None` if that cannot be said.
    fn tokens_per_s(&self, bytes_per_token: f64) -> Option<f64> {
        let compute_ms = self.compute_ms_per_token?;
        let read_ms = |bytes: f64| Some(1e3 * bytes / self.disk_bytes_per_s.filter(|&speed| speed > 0.0)?);
        let waited = match bytes_per_token > 0.0 {
            true => read_ms(bytes_per_token)? * self.waited(read_ms(self.bytes_per_token.unwrap_or(0.0))?),
            false => 0.0,
        };
        Some(1e3 / (compute_ms + waited).max(f64::MIN_POSITIVE))
    }

    /// Which part of a read is waited for, if those of a token took `read_ms` so far.
    fn waited(&self, read_ms: f64) -> f64 {
        let stalled_ms = self.stalled_ms_per_token.filter(|_| read_ms > 0.0);
        stalled_ms.map_or(WAITED_UNKNOWN, |stalled_ms| (stalled_ms / read_ms).min(WAITED_MAX))
    }
}

/// What generation found in a budget.
struct Tried {
    budget_bytes: u64,
    n_slots: u32,
    n_picks: u64,
    n_misses: u64,
    missed_bytes: u64,
    n_tokens: u64,
}

impl Tried {
    fn of(windows: &[Lookback], policy: &str, layout: &Layout, budget_bytes: u64) -> Result<Self> {
        let n_slots = layout.slots_for(budget_bytes);
        let mut tried = Self {
            budget_bytes,
            n_slots: n_slots.iter().sum(),
            n_picks: 0,
            n_misses: 0,
            missed_bytes: 0,
            n_tokens: 0,
        };
        for ((window, pool), &n_slots) in windows.iter().zip(&layout.pools).zip(&n_slots) {
            let n_warm = window.n_warm(false);
            let holds_all = n_slots as usize >= window.shape.n_total();
            let mut n_tokens = vec![0; window.shape.n_layers() as usize];
            let mut add = |event: Event, n_hits: u64| {
                let n_misses = match holds_all {
                    true => 0,
                    false => event.experts.len() as u64 - n_hits,
                };
                tried.n_picks += event.experts.len() as u64;
                tried.n_misses += n_misses;
                tried.missed_bytes += n_misses * pool.expert_bytes as u64;
                n_tokens[event.layer as usize] += u64::from(event.n_tokens);
            };
            for (event, n_hits) in window.replayed(n_warm, policy, n_slots)? {
                if !event.is_prefill() {
                    add(event, n_hits);
                }
            }
            // Of the last layer not all tokens may be computed.
            tried.n_tokens = tried.n_tokens.max(n_tokens.into_iter().max().unwrap_or(0));
        }
        Ok(tried)
    }

    fn measured(&self) -> Measured {
        Measured {
            budget_bytes: self.budget_bytes,
            n_slots: self.n_slots,
            hit_rate: 1.0 - self.n_misses as f64 / self.n_picks.max(1) as f64,
            bytes_per_token: self.missed_bytes as f64 / self.n_tokens.max(1) as f64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::layout::Tensor;
    use crate::recent_events::RecentEvents;

    /// Two layers of ten experts of 4 KiB; tokens go through the first four in turns, one of each layer at a time.
    fn world() -> (Layout, Vec<Lookback>) {
        let tensor = |block: u32| Tensor {
            name: format!("blk.{block}.ffn_up_exps.weight"),
            block,
            n_experts: 10,
            n_bytes: 4096,
            file: 0,
            offset: u64::from(block) * 40960,
            stride: 4096,
        };
        let layout = Layout::growing(&[tensor(0), tensor(1)], &[4096], 1 << 20, u64::MAX).unwrap();
        let mut recent = RecentEvents::new(1000);
        for i in 0..400u32 {
            let event = Event {
                layer: i % 2,
                n_tokens: 1,
                experts: &[i / 2 % 4],
                rows: &[1],
                ..Event::default()
            };
            recent.push(&event);
        }
        let window = Lookback {
            shape: layout.pools[0].shape.clone(),
            n_slots: 4,
            n_slots_more: None,
            recent,
        };
        (layout, vec![window])
    }

    #[test]
    fn a_plan_follows_from_the_window() {
        let (layout, windows) = world();
        let speed = Speed {
            disk_bytes_per_s: Some(8192e3),
            compute_ms_per_token: Some(1.0),
            stalled_ms_per_token: Some(0.5),
            bytes_per_token: Some(8192.0),
        };
        let plan = LivePlan::of("m".to_string(), "lru", &layout, 1, 4 * 4096, &windows, speed).unwrap();
        assert_eq!((plan.window_picks, plan.window_tokens), (400, 100));
        // Below eight slots lru hits nothing of a cycle of eight; from there on all.
        for row in &plan.plan.rows {
            let expected = match row.n_slots {
                0..8 => 0.0,
                _ => 100.0,
            };
            assert_eq!(row.hit_percent, expected, "{row:?}");
        }
        let now = plan.now;
        assert_eq!((now.budget_bytes, now.bytes_per_token), (16384, 8192.0));
        // Half of the millisecond that reading takes is waited for.
        assert!((now.tokens_per_s.unwrap() - 1e3 / 1.5).abs() < 1e-6, "{now:?}");
        let last = plan.plan.rows.last().unwrap();
        assert_eq!((last.n_slots, last.tokens_per_s), (20, Some(1000.0)));
    }

    #[test]
    fn without_generation_there_is_no_plan() {
        let (layout, mut windows) = world();
        windows[0].recent = RecentEvents::new(10);
        let plan = LivePlan::of("m".to_string(), "lru", &layout, 1, 1, &windows, Speed::default());
        let plan = plan.unwrap();
        assert!(plan.plan.rows.is_empty() && plan.plan.knee_bytes.is_none());
    }

    #[test]
    fn what_is_not_known_is_not_said() {
        let speed = Speed {
            compute_ms_per_token: Some(2.0),
            ..Speed::default()
        };
        assert_eq!(speed.tokens_per_s(0.0), Some(500.0));
        assert_eq!(speed.tokens_per_s(1.0), None);
        assert_eq!(Speed::default().tokens_per_s(0.0), None);
    }
}
