//! What each amount of memory for experts would bring, before anything is run with it.
//!
//! What a workload does with a budget is measured first, as [`Measured`]: by replaying a trace, or the latest routing. A [`MemoryPlan`] says what follows for the reads of a token, and which budget is worth its memory.

use crate::expert::Shape;
use serde::Serialize;

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
#[derive(Debug, Clone, Default, Serialize)]
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
pub(super) fn expert_bytes(shape: &Shape) -> u64 {
    let all = |layer| u64::from(shape.n_experts(layer)) * shape.expert_bytes(layer);
    (0..shape.n_layers()).map(all).sum()
}

/// 1 GiB, or for small models the power of two that is a sixteenth of their experts or just less.
pub(super) fn step_bytes(all: u64) -> u64 {
    let sixteenth = (all / 16).max(1);
    (1 << sixteenth.ilog2()).min(1 << 30)
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
}
