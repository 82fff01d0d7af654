//! The optimum against every schedule there is.

use super::{Recorded, events, random_trace};
use hotset::expert::Shape;
use hotset::policy::REGISTRY;
use hotset::replay::{belady, belady_bytes, belady_from, replay};
use hotset::residency::Tally;
use std::collections::BTreeMap;

/// What one event uses, as a bit mask, and whether all of it must stay if it fits.
struct Step {
    wanted: u32,
    must_stay: bool,
}

/// The most hits of any sequence of sets that begins with `start`, each of at most `capacity` and out of
/// what was there and what its event uses. A hit counts for the size of what is hit.
fn optimum(steps: &[Step], sizes: &[u64], capacity: u64, start: u32) -> u64 {
    let size = |set: u32| -> u64 {
        let is_in = |i: &usize| set >> i & 1 == 1;
        (0..sizes.len()).filter(is_in).map(|i| sizes[i]).sum()
    };
    let mut best: BTreeMap<u32, u64> = BTreeMap::from([(start, 0)]);
    for step in steps {
        let wanted = step.wanted;
        let must_stay = step.must_stay && size(wanted) <= capacity;
        let mut after = BTreeMap::new();
        for (&resident, &n_hits) in &best {
            let n_hits = n_hits + size(resident & wanted);
            let available = resident | wanted;
            for set in (0..=available).filter(|set| set & !available == 0) {
                if size(set) <= capacity && (!must_stay || set & wanted == wanted) {
                    let most = after.entry(set).or_default();
                    *most = n_hits.max(*most);
                }
            }
        }
        best = after;
    }
    best.into_values().max().unwrap()
}

/// One bit for each expert of a model of one layer.
fn steps(trace: &[Recorded]) -> Vec<Step> {
    let step = |(_, n_tokens, experts, _): &Recorded| Step {
        wanted: experts.iter().fold(0, |set, expert| set | 1 << expert),
        must_stay: *n_tokens <= 32,
    };
    trace.iter().map(step).collect()
}

#[test]
fn belady_is_the_optimum_of_its_rules() {
    let shape = Shape::uniform(1, 6);
    for seed in 0..400 {
        let trace = random_trace(seed, &shape, 14, 3, (seed % 4) as u32);
        for n_slots in 0..=6 {
            let counts = belady(events(&trace), &shape, n_slots).unwrap();
            assert_eq!(
                counts.hits(),
                optimum(&steps(&trace), &[1; 6], n_slots.into(), 0),
                "seed {seed}, {n_slots} slots: {trace:?}"
            );
            let start = [1, 3, 4][..(n_slots as usize).min(3)].to_vec();
            let mask = start.iter().fold(0, |set, index| set | 1 << index);
            let (counts, hits) = belady_from(events(&trace), &shape, n_slots, &start).unwrap();
            assert_eq!(
                counts.hits(),
                optimum(&steps(&trace), &[1; 6], n_slots.into(), mask),
                "seed {seed}, {n_slots} slots from {start:?}: {trace:?}"
            );
            let n_hits: u64 = hits.iter().map(|&n| u64::from(n)).sum();
            assert_eq!((n_hits, hits.len()), (counts.hits(), trace.len()));
        }
    }
}

/// Three layers of two experts of 1, 2 and 1 bytes.
const SIZES: [u64; 3] = [1, 2, 1];

/// The bits of an event: one for each expert, or one for each byte.
fn bits(layer: u32, experts: &[u32], by_byte: bool) -> u32 {
    let size = |layer: usize| if by_byte { SIZES[layer] as u32 } else { 1 };
    let first: u32 = (0..layer as usize).map(|l| 2 * size(l)).sum();
    let size = size(layer as usize);
    let expert = |e: &u32| ((1 << size) - 1) << (first + e * size);
    experts.iter().map(expert).fold(0, |set, bits| set | bits)
}

#[test]
fn belady_bytes_is_the_optimum_of_bytes_and_bounds_whole_experts() {
    let shape = Shape::with_bytes(&[2; 3], &SIZES);
    let mut n_above = 0;
    for seed in 0..60 {
        let trace = random_trace(seed, &shape, 10, 2, (seed % 4) as u32);
        let steps = |by_byte| -> Vec<Step> {
            let step = |(layer, _, experts, _): &Recorded| Step {
                wanted: bits(*layer, experts, by_byte),
                must_stay: false,
            };
            trace.iter().map(step).collect()
        };
        for n_bytes in 0..=8 {
            // Expert 1 of layer 1 is there at first, where it fits.
            let (start, whole, bytes) = match n_bytes {
                0 | 1 => (vec![], 0, 0),
                _ => (vec![3], bits(1, &[1], false), bits(1, &[1], true)),
            };
            let hits = belady_bytes(events(&trace), &shape, n_bytes, &start).unwrap();
            let most: u64 = hits.iter().sum();
            let label = format!("seed {seed}, {n_bytes} bytes: {trace:?}");
            assert_eq!(
                most,
                optimum(&steps(true), &[1; 8], n_bytes, bytes),
                "{label}"
            );
            let sizes = [1, 1, 2, 2, 1, 1];
            let of_whole = optimum(&steps(false), &sizes, n_bytes, whole);
            assert!(of_whole <= most, "{of_whole} above {most}, {label}");
            n_above += u32::from(of_whole < most);
        }
    }
    assert!(n_above > 0, "parts of experts never help");
}

/// One slot, and a prompt between two uses of expert 0: nothing of it is worth the slot, but it uses
/// what is there. The generated experts must go in, so each drives out the other.
#[test]
fn belady_stages_only_in_prompts() {
    let one = |n_tokens, expert| (0, n_tokens, vec![expert], vec![1]);
    let prompt = (0, 40, vec![0, 1, 2], vec![9, 9, 9]);
    let trace = [one(1, 0), prompt, one(1, 0), one(2, 3), one(1, 0)];
    let counts = belady(events(&trace), &Shape::uniform(1, 4), 1).unwrap();
    let all = |t: Tally| {
        let Tally {
            events,
            tokens,
            hits,
            misses,
            evictions,
            staged,
        } = t;
        [events, tokens, hits, misses, evictions, staged]
    };
    assert_eq!(all(counts.decode), [4, 5, 1, 3, 2, 0]);
    assert_eq!(all(counts.prefill), [1, 40, 1, 2, 0, 2]);
}

#[test]
fn nothing_beats_belady() {
    let shape = Shape::new(&[8, 3, 12]);
    for seed in 0..60 {
        let trace = random_trace(seed, &shape, 300, 4, (seed % 4) as u32);
        let n_picks: u64 = trace.iter().map(|event| event.2.len() as u64).sum();
        for n_slots in [0, 1, 2, 3, 5, 9, 14, 20, 23, 30] {
            let most = belady(events(&trace), &shape, n_slots).unwrap();
            assert_eq!(most.decode.picks() + most.prefill.picks(), n_picks);
            for spec in REGISTRY {
                let counts = replay(events(&trace), &shape, n_slots, spec.name).unwrap();
                let label = format!("{}, seed {seed}, {n_slots} slots", spec.name);
                assert!(
                    counts.hits() <= most.hits(),
                    "{label}: {counts:?} beats {most:?}"
                );
                assert_eq!(counts.decode.picks(), most.decode.picks(), "{label}");
                assert_eq!(counts.prefill.tokens, most.prefill.tokens, "{label}");
            }
        }
    }
}
