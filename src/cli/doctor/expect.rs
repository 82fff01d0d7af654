//! How many tokens a second a model can be expected to make: a range, from its shape and what this machine was measured to do.
//!
//! A token computes, and reads what missed. Both overlap in part. Each of the numbers that go in is known within a factor
//! only; these are independent of each other, so what they do to the time of a token adds up as squares do. The factors are those
//! that the runs in docs/runs show: docs/runs/2026-11-30-doctor.

use super::curves::{Hits, hits};
use serde::Serialize;

/// A number that is not known better.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Range {
    pub low: f64,
    pub typical: f64,
    pub high: f64,
}

impl Range {
    fn new(low: f64, typical: f64, high: f64) -> Self {
        Self { low, typical, high }
    }

    /// `number`, give or take this factor.
    fn around(number: f64, factor: f64) -> Self {
        Self::new(number / factor, number, number * factor)
    }
}

/// What is known of a model and a machine.
#[derive(Debug, Clone, Copy)]
pub struct Known {
    /// Bytes of all experts, and of those that a token uses.
    pub expert_bytes: f64,
    pub cycle_bytes: f64,
    /// The part of the experts that a token uses.
    pub used_share: f64,
    /// Bytes of experts in memory.
    pub budget_bytes: f64,
    /// Seconds that a token computes if all is in memory.
    pub compute_s: f64,
    pub disk_bytes_per_s: f64,
    /// Whether that was measured.
    pub disk_is_measured: bool,
}

/// Tokens per second, and what they come from.
#[derive(Debug, Clone, Serialize)]
pub struct Expectation {
    pub hotset_tokens_per_s: Range,
    /// llama.cpp without hotset, which maps the file, in as much memory.
    pub stock_tokens_per_s: Range,
    /// Both if all experts were in memory.
    pub in_memory_tokens_per_s: Range,
    /// The share of the experts that is in memory, and how many of the picks these are.
    pub share_in_memory: f64,
    pub hit_rate: Range,
    /// What a token reads, and how long that takes.
    pub read_bytes_per_token: Range,
    pub read_ms_per_token: f64,
    pub compute_ms_per_token: f64,
    /// Whether nobody has measured the disk.
    pub disk_is_assumed: bool,
}

/// What computing is known within, and the disk; where that is assumed, it is another disk, or just as fast.
const COMPUTE: f64 = 1.6;
const DISK: f64 = 1.25;
/// How much of the shorter of computing and reading comes on top of the longer: nothing, if they overlap in full.
const ON_TOP: [f64; 3] = [0.15, 0.6, 1.2];
/// How much more than hotset stock llama.cpp reads. The kernel drops pages by their age, and reads ahead in the file.
const STOCK_READS: [f64; 3] = [1.2, 2.0, 4.0];
/// With less memory than so many times what a token uses it reads about all of that for each token, or again and again.
const STOCK_CYCLES: f64 = 1.65;
const STOCK_READS_CYCLE: [f64; 3] = [0.5, 1.0, 2.6];
/// Which part of the disk's speed page faults reach.
const STOCK_SPEED: [f64; 3] = [0.12, 0.3, 0.65];

/// The seconds of a token from several numbers.
type Seconds<'a, const N: usize> = &'a dyn Fn([f64; N]) -> f64;

/// The seconds that a token takes at least, about and at most, where each number is in its range.
fn spread<const N: usize>(seconds: Seconds<N>, numbers: [Range; N]) -> [f64; 3] {
    let typical = numbers.map(|range| range.typical);
    let middle = seconds(typical);
    let (mut less, mut more) = (0.0f64, 0.0f64);
    for (at, range) in numbers.iter().enumerate() {
        let change = |number| {
            let mut changed = typical;
            changed[at] = number;
            (seconds(changed) / middle).ln()
        };
        let changes = [change(range.low), change(range.high)];
        more += changes[0].max(changes[1]).max(0.0).powi(2);
        less += changes[0].min(changes[1]).min(0.0).powi(2);
    }
    [
        middle * (-less.sqrt()).exp(),
        middle,
        middle * more.sqrt().exp(),
    ]
}

/// Tokens per second of such seconds.
fn per_second([least, middle, most]: [f64; 3]) -> Range {
    Range::new(1.0 / most, 1.0 / middle, 1.0 / least)
}

/// What follows.
pub fn expect(known: &Known) -> Expectation {
    let share = (known.budget_bytes / known.expert_bytes).min(1.0);
    let Hits {
        flat,
        typical,
        concentrated,
    } = hits(share, known.used_share);
    let hit_rate = Range::new(flat, typical, concentrated);
    let read = |hit_rate: f64| (1.0 - hit_rate) * known.cycle_bytes;
    let compute = Range::around(known.compute_s, COMPUTE);
    let disk = Range::around(known.disk_bytes_per_s, DISK);
    let [low, middle, high] = ON_TOP;
    let on_top = Range::new(low, middle, high);
    let hotset = spread(
        &|[hit_rate, compute, disk, on_top]| {
            let reading = read(hit_rate) / disk;
            compute.max(reading) + on_top * compute.min(reading)
        },
        [hit_rate, compute, disk, on_top],
    );
    Expectation {
        hotset_tokens_per_s: per_second(hotset),
        stock_tokens_per_s: per_second(stock(known, share, hit_rate, compute, disk)),
        in_memory_tokens_per_s: per_second(spread(&|[compute]| compute, [compute])),
        share_in_memory: share,
        hit_rate,
        read_bytes_per_token: Range::new(read(concentrated), read(typical), read(flat)),
        read_ms_per_token: 1e3 * read(typical) / known.disk_bytes_per_s,
        compute_ms_per_token: 1e3 * known.compute_s,
        disk_is_assumed: !known.disk_is_measured,
    }
}

/// The seconds of a token of stock llama.cpp: it computes, and stops at each page that is not there.
fn stock(known: &Known, share: f64, hit_rate: Range, compute: Range, disk: Range) -> [f64; 3] {
    let of = |[low, middle, high]: [f64; 3]| Range::new(low, middle, high);
    let speed = of(STOCK_SPEED);
    if share < 1.0 && known.budget_bytes < STOCK_CYCLES * known.cycle_bytes {
        let seconds: Seconds<4> =
            &|[cycles, compute, disk, speed]| compute + cycles * known.cycle_bytes / (disk * speed);
        return spread(seconds, [of(STOCK_READS_CYCLE), compute, disk, speed]);
    }
    let seconds: Seconds<5> = &|[hit_rate, more, compute, disk, speed]| {
        compute + (1.0 - hit_rate) * more * known.cycle_bytes / (disk * speed)
    };
    spread(seconds, [hit_rate, of(STOCK_READS), compute, disk, speed])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(share: f64, used_share: f64, disk: f64, compute_s: f64) -> Known {
        let expert_bytes = 30e9;
        Known {
            expert_bytes,
            cycle_bytes: used_share * expert_bytes,
            used_share,
            budget_bytes: share * expert_bytes,
            compute_s,
            disk_bytes_per_s: disk,
            disk_is_measured: true,
        }
    }

    #[test]
    fn a_range_is_narrower_than_a_factor_of_four_and_says_what_more_of_something_brings() {
        let mut widest: f64 = 0.0;
        for percent in 1..=100 {
            for used_share in [0.01, 0.05, 0.125, 0.25] {
                for disk in [1e8, 1e9, 3e9, 12e9] {
                    for compute_s in [0.005, 0.03, 0.2] {
                        let of = |disk, more| {
                            expect(&known(
                                f64::from(percent + more) / 100.0,
                                used_share,
                                disk,
                                compute_s,
                            ))
                        };
                        let now = of(disk, 0);
                        let Range { low, typical, high } = now.hotset_tokens_per_s;
                        assert!(low < typical && typical < high, "{now:?}");
                        widest = widest.max(high / low);
                        let memory = of(disk, 1).hotset_tokens_per_s.typical;
                        let faster = of(1.1 * disk, 0).hotset_tokens_per_s.typical;
                        assert!(memory >= typical && faster >= typical, "{now:?}");
                        assert!(
                            now.stock_tokens_per_s.typical <= typical * (1.0 + 1e-9),
                            "{now:?}"
                        );
                        assert!(
                            typical <= now.in_memory_tokens_per_s.typical * (1.0 + 1e-9),
                            "{now:?}"
                        );
                    }
                }
            }
        }
        assert!((2.0..4.0).contains(&widest), "{widest}");
    }

    /// Rows of docs/runs: GB of experts, share of them that a token uses, share in memory, ms of computing, GB/s of the disk,
    /// and what was measured with hotset and without.
    const MEASURED: [(f64, f64, f64, f64, f64, f64, f64); 11] = [
        // 2026-11-29-deep/third: smolmoe, mx48, poly
        (3.185, 0.125, 0.65, 32.8, 2.13, 27.1, 7.8),
        (3.185, 0.125, 0.35, 32.8, 2.13, 18.4, 3.2),
        (3.185, 0.125, 0.14, 32.8, 2.13, 9.9, 1.6),
        (2.647, 0.094, 0.65, 22.1, 2.29, 34.2, 16.6),
        (2.647, 0.094, 0.34, 22.1, 2.29, 31.8, 8.3),
        (2.647, 0.094, 0.14, 22.1, 2.29, 19.4, 1.2),
        (2.707, 0.125, 0.65, 18.6, 2.26, 31.1, 11.4),
        (2.707, 0.125, 0.35, 18.6, 2.26, 16.7, 5.3),
        (2.707, 0.125, 0.15, 18.6, 2.26, 10.8, 3.2),
        // 2026-11-23-disk-tier: random
        (3.957, 0.125, 0.2, 22.6, 1.44, 8.8, 1.8),
        (3.957, 0.125, 0.4, 22.6, 1.44, 17.8, 4.2),
    ];

    #[test]
    fn what_was_measured_is_in_the_range() {
        for row in MEASURED {
            let (gb, used_share, share, compute_ms, disk, hotset, stock) = row;
            let expected = expect(&Known {
                expert_bytes: gb * 1e9,
                cycle_bytes: used_share * gb * 1e9,
                used_share,
                budget_bytes: share * gb * 1e9,
                compute_s: compute_ms / 1e3,
                disk_bytes_per_s: disk * 1e9,
                disk_is_measured: true,
            });
            let holds = |range: Range, tokens: f64| (range.low..=range.high).contains(&tokens);
            assert!(
                holds(expected.hotset_tokens_per_s, hotset),
                "{row:?} {expected:?}"
            );
            assert!(
                holds(expected.stock_tokens_per_s, stock),
                "{row:?} {expected:?}"
            );
        }
    }

    #[test]
    fn all_in_memory_is_computing_alone() {
        let all = expect(&known(1.5, 0.1, 1e9, 0.05));
        assert_eq!(all.share_in_memory, 1.0);
        for range in [all.hotset_tokens_per_s, all.stock_tokens_per_s] {
            assert!((range.typical - 20.0).abs() < 1e-6, "{all:?}");
        }
    }
}
