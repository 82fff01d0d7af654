//! What each amount of memory for experts would bring, before anything is run with it.
//!
//! What a workload does with a budget is measured first, as [`Measured`]: here by replaying a trace.
//! A [`MemoryPlan`] says what follows for the reads of a token, and which budget is worth its memory.

use crate::error::Result;
use crate::expert::{Event, Shape};
use crate::replay::{Budget, Replay, Scope};
use crate::statistics::share;
use crate::trace::{Header, Trace};
use rayon::prelude::*;
use serde::Serialize;

/// Rows of a table by steps of memory, at most; as many come by shares of the experts.
const N_STEPS_MAX: u64 = 20;
/// Points of hit rate that a step must bring to be worth its memory.
const POINTS_MIN: f64 = 1.0;

/// What a workload does with a budget.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Measured {
    /// Bytes for experts.
    pub budget_bytes: u64,
    /// Experts that these hold.
    pub n_slots: u32,
    /// Hits of all picks, 0 to 1.
    pub hit_rate: f64,
    /// Bytes that a token reads.
    pub bytes_per_token: f64,
}

/// One budget of a plan.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// Bytes for experts.
    pub budget_bytes: u64,
    /// The same in percent of all experts' bytes.
    pub percent: f64,
    /// Experts that these hold.
    pub n_slots: u32,
    /// Whether they are less than one token uses.
    pub is_below_cycle: bool,
    /// Hits of all picks, in percent.
    pub hit_percent: f64,
    /// Bytes that a token reads.
    pub bytes_per_token: f64,
    /// Tokens per second if nothing but these reads took time; null without reads.
    pub tokens_per_s: Option<f64>,
    /// Points of hit rate that a step of memory brings here, going by the row before; null in the first.
    pub points_per_step: Option<f64>,
}

/// What follows from a workload's measures.
#[derive(Debug, Clone, Serialize)]
pub struct MemoryPlan {
    /// Bytes of all experts.
    pub expert_bytes: u64,
    /// Bytes of the experts that one token uses in all layers. With less, `lru` hits nothing.
    pub cycle_bytes: u64,
    /// The memory by which gains are measured: 1 GiB, less for small models.
    pub step_bytes: u64,
    /// By budget, ascending.
    pub rows: Vec<Row>,
    /// Where it stops to be worth it: beyond this budget no step brings a point of hit rate. Null if
    /// the last one still does.
    pub knee_bytes: Option<u64>,
}

/// Bytes of the experts that one token uses, if it uses `top_k` of each layer.
fn cycle_bytes(shape: &Shape, top_k: u32) -> u64 {
    let used = |layer| u64::from(top_k.min(shape.n_experts(layer))) * shape.expert_bytes(layer);
    (0..shape.n_layers()).map(used).sum()
}

/// Bytes of all experts.
fn expert_bytes(shape: &Shape) -> u64 {
    let all = |layer| u64::from(shape.n_experts(layer)) * shape.expert_bytes(layer);
    (0..shape.n_layers()).map(all).sum()
}

/// 1 GiB, or for small models the power of two that is a sixteenth of their experts or just less.
fn step_bytes(all: u64) -> u64 {
    let sixteenth = (all / 16).max(1);
    (1 << sixteenth.ilog2()).min(1 << 30)
}

/// The budgets of a plan, ascending: every 5 % of the experts, and steps of memory, doubled until they
/// are few, except those beside a share: what so little memory brings is chance.
pub fn budgets(shape: &Shape) -> Vec<u64> {
    let all = expert_bytes(shape);
    let mut step = step_bytes(all);
    while all / step > N_STEPS_MAX {
        step *= 2;
    }
    let by_share = (1..=20).map(|i| (u128::from(all) * i / 20) as u64);
    let mut budgets: Vec<u64> = by_share.filter(|&n| n > 0).collect();
    let is_uncached = |n: u64| budgets.iter().any(|share| share.abs_diff(n) < step / 4);
    let by_step = (1..).map(|i| i * step).take_while(|&n| n < all);
    let by_step: Vec<u64> = by_step.filter(|&n| !is_uncached(n)).collect();
    budgets.extend(by_step);
    budgets.sort_unstable();
    budgets.dedup();
    budgets
}

/// The shape of the model of `trace` with experts of the sizes of `model`. Fails if it is another
/// model's trace, and says in which numbers they differ.
pub fn matching(trace: &Header, model: &Shape) -> std::result::Result<Shape, String> {
    let n_experts = (0..model.n_layers())
        .map(|layer| model.n_experts(layer))
        .max();
    let n_experts = n_experts.unwrap_or_default();
    match (model.n_layers(), n_experts) == (trace.n_layers, trace.n_experts) {
        true => Ok(model.clone()),
        false => Err(format!(
            "it has {} layers of {n_experts} experts, but the trace has {} layers of {}",
            model.n_layers(),
            trace.n_layers,
            trace.n_experts
        )),
    }
}

/// Replays `trace` with each of `budgets`, on all cores. `shape` is its model's.
///
/// Hits and reads are those of [`Trace::warm`] events: of generation, once caches have filled. A budget
/// that holds all experts begins with all of them, as a run does.
pub fn measure(
    trace: &Trace,
    shape: &Shape,
    policy: &str,
    budgets: &[u64],
) -> Result<Vec<Measured>> {
    let sizes = (0..shape.n_layers()).map(|layer| shape.expert_bytes(layer));
    let header = Header {
        expert_bytes: sizes.collect(),
        ..trace.header().clone()
    };
    let warm = trace.warm();
    let measure = |&budget_bytes: &u64| {
        let pools = Budget::Bytes(budget_bytes).pools(&header, shape, Scope::Global);
        let mut pools = pools.expect("the sizes are known");
        let n_slots = pools.iter().map(|pool| pool.n_slots).sum();
        if n_slots as usize >= shape.n_total() {
            pools.iter_mut().for_each(|pool| pool.preloaded = true);
        }
        let mut replay = Replay::new(shape, &pools, policy, None)?;
        let hits = replay.run(events(trace))?;
        let mut sum = Sum::new(shape);
        for ((event, hits), _) in events(trace)
            .zip(hits)
            .zip(&warm)
            .filter(|(_, warm)| **warm)
        {
            sum.add(&event, hits, shape);
        }
        Ok(sum.measured(budget_bytes, n_slots))
    };
    budgets.par_iter().map(measure).collect()
}

/// What each of `budgets` brings to a workload of which only `frequency` is known, how often a token
/// picks each expert by layer: if the hottest experts of each pool stay in memory for ever, and picks do
/// not depend on each other. A policy that follows the text does better.
pub fn expect(frequency: &[Vec<f32>], shape: &Shape, budgets: &[u64]) -> Vec<Measured> {
    let header = Header {
        n_layers: shape.n_layers(),
        expert_bytes: (0..shape.n_layers())
            .map(|l| shape.expert_bytes(l))
            .collect(),
        ..Header::default()
    };
    let picks = |layer: u32| frequency[layer as usize].iter().map(|&f| f64::from(f));
    let n_picks: f64 = (0..shape.n_layers()).flat_map(picks).sum();
    let expect = |&budget_bytes: &u64| {
        let pools = Budget::Bytes(budget_bytes).pools(&header, shape, Scope::Global);
        let mut n_slots = 0;
        let (mut n_missed, mut missed_bytes) = (0.0, 0.0);
        for pool in pools.expect("the sizes are known") {
            n_slots += pool.n_slots;
            let layers = pool.layers.iter().copied();
            let mut all: Vec<_> = layers
                .flat_map(|l| picks(l).map(move |f| (f, shape.expert_bytes(l) as f64)))
                .collect();
            all.sort_by(|a, b| b.0.total_cmp(&a.0));
            for (picks, bytes) in all.iter().skip(pool.n_slots as usize) {
                n_missed += picks;
                missed_bytes += picks * bytes;
            }
        }
        Measured {
            budget_bytes,
            n_slots,
            hit_rate: 1.0 - n_missed / n_picks.max(f64::MIN_POSITIVE),
            bytes_per_token: missed_bytes,
        }
    };
    budgets.iter().map(expect).collect()
}

fn events(trace: &Trace) -> impl Iterator<Item = Event<'_>> {
    trace.events().map(|(_, event)| event)
}

/// What the events of a replay add up to.
struct Sum {
    n_picks: u64,
    n_hits: u64,
    missed_bytes: u64,
    /// By layer: one may be missing where it was not computed.
    n_tokens: Vec<u64>,
}

impl Sum {
    fn new(shape: &Shape) -> Self {
        Self {
            n_picks: 0,
            n_hits: 0,
            missed_bytes: 0,
            n_tokens: vec![0; shape.n_layers() as usize],
        }
    }

    fn add(&mut self, event: &Event, n_hits: u32, shape: &Shape) {
        let n_misses = event.experts.len() as u64 - u64::from(n_hits);
        self.n_picks += event.experts.len() as u64;
        self.n_hits += u64::from(n_hits);
        self.missed_bytes += n_misses * shape.expert_bytes(event.layer);
        self.n_tokens[event.layer as usize] += u64::from(event.n_tokens);
    }

    fn measured(&self, budget_bytes: u64, n_slots: u32) -> Measured {
        let n_tokens = self.n_tokens.iter().max().map_or(1, |&n| n.max(1));
        Measured {
            budget_bytes,
            n_slots,
            hit_rate: share(self.n_hits, self.n_picks),
            bytes_per_token: self.missed_bytes as f64 / n_tokens as f64,
        }
    }
}

impl MemoryPlan {
    /// The plan for a model of `shape` whose tokens use `top_k` experts of a layer, from a disk that
    /// reads `disk_bytes_per_s`. `measured` is ascending and not empty.
    pub fn new(shape: &Shape, top_k: u32, disk_bytes_per_s: f64, measured: &[Measured]) -> Self {
        let all = expert_bytes(shape);
        let mut plan = Self {
            expert_bytes: all,
            cycle_bytes: cycle_bytes(shape, top_k),
            step_bytes: step_bytes(all),
            rows: Vec::with_capacity(measured.len()),
            knee_bytes: None,
        };
        for (i, m) in measured.iter().enumerate() {
            let before = i.checked_sub(1).map(|i| &measured[i]);
            let points_per_step = before.map(|before| {
                let steps = (m.budget_bytes - before.budget_bytes) as f64 / plan.step_bytes as f64;
                100.0 * (m.hit_rate - before.hit_rate) / steps
            });
            plan.rows.push(Row {
                budget_bytes: m.budget_bytes,
                percent: 100.0 * m.budget_bytes as f64 / all as f64,
                n_slots: m.n_slots,
                is_below_cycle: m.budget_bytes < plan.cycle_bytes,
                hit_percent: 100.0 * m.hit_rate,
                bytes_per_token: m.bytes_per_token,
                tokens_per_s: (m.bytes_per_token > 0.0)
                    .then(|| disk_bytes_per_s / m.bytes_per_token),
                points_per_step,
            });
        }
        plan.knee_bytes = plan.knee();
        plan
    }

    /// The last row whose step is worth it, unless that is the last of all.
    fn knee(&self) -> Option<u64> {
        let is_worth_it = |row: &Row| row.points_per_step.is_none_or(|n| n >= POINTS_MIN);
        let at = self.rows.iter().rposition(is_worth_it)?;
        (at + 1 < self.rows.len()).then(|| self.rows[at].budget_bytes)
    }

    /// The smallest budget whose reads allow this many tokens per second.
    pub fn for_speed(&self, tokens_per_s: f64) -> Option<&Row> {
        let is_enough = |row: &&Row| row.tokens_per_s.is_none_or(|n| n >= tokens_per_s);
        self.rows.iter().find(is_enough)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn measured(budget_bytes: u64, hit_rate: f64, bytes_per_token: f64) -> Measured {
        Measured {
            budget_bytes,
            n_slots: 7,
            hit_rate,
            bytes_per_token,
        }
    }

    #[test]
    fn budgets_go_by_steps_and_by_shares() {
        // 40 GiB: every 2 GiB, which are the shares too.
        let all = budgets(&Shape::with_bytes(&[20, 20], &[GIB, GIB]));
        assert_eq!(all, (1..=20).map(|i| 2 * i * GIB).collect::<Vec<_>>());
        // 10 GiB: every one, and every half.
        let all = budgets(&Shape::with_bytes(&[10], &[GIB]));
        assert_eq!(all, (1..=20).map(|i| i * GIB / 2).collect::<Vec<_>>());
        // 42 GiB: shares of 2.1 GiB, and of every 4 GiB only those that are 1 GiB from one.
        let all = budgets(&Shape::with_bytes(&[42], &[GIB]));
        let mut shares: Vec<_> = (1..=20).map(|i| 42 * GIB * i / 20).collect();
        shares.insert(9, 20 * GIB);
        assert_eq!(all, shares);
        // 20 bytes: every one.
        assert_eq!(budgets(&Shape::new(&[20])), (1..=20).collect::<Vec<_>>());
        assert_eq!(budgets(&Shape::new(&[1])), [1]);
        assert_eq!(
            [16, 31, 32, 16 << 30, 1 << 50].map(step_bytes),
            [1, 1, 2, GIB, GIB]
        );
    }

    #[test]
    fn a_plan_says_what_follows() {
        let shape = Shape::with_bytes(&[20, 10], &[GIB, 2 * GIB]);
        let plan = MemoryPlan::new(
            &shape,
            2,
            100.0,
            &[
                measured(5 * GIB, 0.1, 50.0),
                measured(6 * GIB, 0.2, 40.0),
                measured(8 * GIB, 0.23, 20.0),
                measured(10 * GIB, 0.24, 10.0),
                measured(40 * GIB, 1.0, 0.0),
            ],
        );
        assert_eq!((plan.expert_bytes, plan.cycle_bytes), (40 * GIB, 6 * GIB));
        assert_eq!(plan.step_bytes, GIB);
        let of = |f: fn(&Row) -> Option<f64>| plan.rows.iter().map(f).collect::<Vec<_>>();
        let rounded = |n: f64| (n * 1e6).round() / 1e6;
        let points: Vec<_> = of(|row| row.points_per_step)
            .into_iter()
            .map(|n| n.map(rounded))
            .collect();
        let expected = [None, Some(10.0), Some(1.5), Some(0.5), Some(2.533333)];
        assert_eq!(points, expected);
        let speeds = [Some(2.0), Some(2.5), Some(5.0), Some(10.0), None];
        assert_eq!(of(|row| row.tokens_per_s), speeds);
        let below: Vec<_> = plan.rows.iter().map(|row| row.is_below_cycle).collect();
        assert_eq!(below, [true, false, false, false, false]);
        // The last step is worth it, so there is no knee; without it, it is at 8 GiB.
        assert_eq!(plan.knee_bytes, None);
        let part = MemoryPlan {
            rows: plan.rows[..4].to_vec(),
            ..plan.clone()
        };
        assert_eq!(part.knee(), Some(8 * GIB));
        let budget = |speed| plan.for_speed(speed).map(|row| row.budget_bytes / GIB);
        assert_eq!([2.0, 2.1, 10.0, 11.0].map(budget), [5, 6, 10, 40].map(Some));
        assert!(part.for_speed(11.0).is_none());
    }

    #[test]
    fn pins_hit_as_often_as_they_are_picked() {
        // Two layers of two experts of 10 bytes; a token picks one of each.
        let shape = Shape::with_bytes(&[2, 2], &[10, 10]);
        let rows = expect(
            &[vec![0.9, 0.1], vec![0.75, 0.25]],
            &shape,
            &[9, 20, 30, 40],
        );
        let all: Vec<_> = rows
            .iter()
            .map(|m| (m.n_slots, m.hit_rate, m.bytes_per_token))
            .collect();
        let near = |a: f64, b: f64| (a - b).abs() < 1e-6;
        for ((n_slots, hit_rate, bytes), expected) in all.into_iter().zip([
            (0, 0.0, 20.0),
            (2, 0.825, 3.5),
            (3, 0.95, 1.0),
            (4, 1.0, 0.0),
        ]) {
            assert_eq!(n_slots, expected.0);
            assert!(
                near(hit_rate, expected.1) && near(bytes, expected.2),
                "{hit_rate} {bytes}"
            );
        }
    }

    #[test]
    fn a_trace_of_another_model_is_refused() {
        let header = Header {
            n_layers: 2,
            n_experts: 20,
            ..Header::default()
        };
        let model = |n_experts: &[u32]| matching(&header, &Shape::new(n_experts));
        assert_eq!(model(&[20, 10]), Ok(Shape::new(&[20, 10])));
        for (n_experts, part) in [(&[20][..], "1 layers of 20"), (&[10, 10], "2 layers of 10")] {
            let error = model(n_experts).unwrap_err();
            assert!(
                error.contains(part) && error.contains("2 layers of 20"),
                "{error}"
            );
        }
    }
}
