//! What a workload does with budgets, measured on a trace or expected of a profile: what a plan is made of.

use super::planner::{Measured, expert_bytes, step_bytes};
use super::{Budget, Replay, Scope};
use crate::error::Result;
use crate::expert::{Event, Shape};
use crate::residency::pools::group;
use crate::statistics::share;
use crate::trace::{Header, PoolSpec, Trace};
use rayon::prelude::*;

/// Rows of a table by steps of memory, at most; as many come by shares of the experts.
const N_STEPS_MAX: u64 = 20;
/// Caches of devices are multiples of this.
const MIB: u64 = 1 << 20;

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

/// The sizes of a cache on a device that has so many bytes for experts, ascending: whole MiB, and nothing beyond all experts.
pub fn cache_sizes(shape: &Shape, device_bytes: u64) -> Vec<u64> {
    let most = expert_bytes(shape) + unused_bytes(shape);
    let most = device_bytes.min(most.next_multiple_of(MIB)) / MIB;
    let mib = |n: u64| (n + unused_bytes(shape)).div_ceil(MIB);
    let mut sizes: Vec<u64> = budgets(shape)
        .into_iter()
        .map(mib)
        .filter(|&n| n < most)
        .collect();
    sizes.push(most);
    sizes.dedup();
    sizes.iter().map(|n| n * MIB).collect()
}

/// llama.cpp adds a slot to each pool of a device that holds no expert.
fn unused_bytes(shape: &Shape) -> u64 {
    let sizes: Vec<u64> = (0..shape.n_layers())
        .map(|layer| shape.expert_bytes(layer))
        .collect();
    group(&sizes)
        .iter()
        .map(|layers| sizes[layers[0] as usize])
        .sum()
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
    let pools = |mut pools: Vec<PoolSpec>| {
        let n_slots: u32 = pools.iter().map(|pool| pool.n_slots).sum();
        let holds_all = n_slots as usize >= shape.n_total();
        pools.iter_mut().for_each(|pool| pool.preloaded = holds_all);
        pools
    };
    measure_pools(trace, shape, policy, budgets, pools)
}

/// The same with a cache of each of these sizes on a device, beside memory that holds all experts: what counts as read is
/// what is sent to the device.
pub fn measure_caches(
    trace: &Trace,
    shape: &Shape,
    policy: &str,
    sizes: &[u64],
) -> Result<Vec<Measured>> {
    let unused = unused_bytes(shape);
    let budgets: Vec<u64> = sizes.iter().map(|n| n.saturating_sub(unused)).collect();
    let top_k = trace.header().top_k;
    let pools = |mut pools: Vec<PoolSpec>| {
        for pool in &mut pools {
            pool.device = true;
            // llama.cpp makes no smaller ones.
            if pool.n_slots < top_k {
                pool.n_slots = 0;
            }
        }
        pools
    };
    let mut measured = measure_pools(trace, shape, policy, &budgets, pools)?;
    for (of_one, size) in measured.iter_mut().zip(sizes) {
        of_one.budget_bytes = *size;
    }
    Ok(measured)
}

fn measure_pools(
    trace: &Trace,
    shape: &Shape,
    policy: &str,
    budgets: &[u64],
    tier: impl Fn(Vec<PoolSpec>) -> Vec<PoolSpec> + Sync,
) -> Result<Vec<Measured>> {
    let sizes = (0..shape.n_layers()).map(|layer| shape.expert_bytes(layer));
    let header = Header {
        expert_bytes: sizes.collect(),
        ..trace.header().clone()
    };
    let warm = trace.warm();
    let measure = |&budget_bytes: &u64| {
        let pools = Budget::Bytes(budget_bytes).pools(&header, shape, Scope::Global);
        let pools = tier(pools.expect("the sizes are known"));
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
        let n_slots = pools.iter().map(|pool| pool.n_slots).sum();
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

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

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
