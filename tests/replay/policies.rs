//! Policies against obvious versions of themselves.

use super::{Recorded, events, random_trace};
use hotset::expert::Shape;
use hotset::policy::REGISTRY;
use hotset::replay::{belady, replay};
use std::collections::BTreeSet;

/// Hits of a cache that evicts the smallest `key(expert, uses so far)`, where a use is the number
/// of the event and the rows. Experts are numbered over all layers; no scans.
fn brute<K: Ord>(
    trace: &[Recorded],
    shape: &Shape,
    n_slots: usize,
    key: impl Fn(&[(usize, u32)]) -> K,
) -> u64 {
    let mut uses = vec![Vec::new(); shape.n_total()];
    let mut resident = BTreeSet::new();
    let mut n_hits = 0;
    for (now, (layer, _, experts, rows)) in trace.iter().enumerate() {
        let first: u32 = (0..*layer).map(|l| shape.n_experts(l)).sum();
        let wanted: Vec<usize> = experts
            .iter()
            .map(|expert| (first + expert) as usize)
            .collect();
        for (&expert, &rows) in wanted.iter().zip(rows) {
            uses[expert].push((now, rows));
            n_hits += u64::from(resident.contains(&expert));
        }
        // Hits stay, even those that come after a miss in the event; then misses fill what is left.
        let mut kept: BTreeSet<usize> = wanted
            .iter()
            .copied()
            .filter(|expert| resident.contains(expert))
            .collect();
        for &expert in &wanted {
            if resident.contains(&expert) || kept.len() == n_slots {
                continue;
            }
            if resident.len() == n_slots {
                let candidates = resident
                    .iter()
                    .copied()
                    .filter(|expert| !kept.contains(expert));
                let victim = candidates
                    .min_by_key(|&expert| (key(&uses[expert]), expert))
                    .unwrap();
                resident.remove(&victim);
            }
            resident.insert(expert);
            kept.insert(expert);
        }
    }
    n_hits
}

#[test]
fn lru_and_lfu_are_what_they_say() {
    let shape = Shape::new(&[4, 7, 5]);
    let last = |uses: &[(usize, u32)]| uses.last().map(|&(now, _)| now);
    let total = |uses: &[(usize, u32)]| uses.iter().map(|&(_, rows)| rows).sum::<u32>();
    for seed in 0..100 {
        let trace = random_trace(seed, &shape, 200, 4, 0);
        for n_slots in [0, 1, 2, 5, 8, 15, 16] {
            let hits = |name| {
                replay(events(&trace), &shape, n_slots, name)
                    .unwrap()
                    .decode
                    .hits
            };
            let slots = n_slots as usize;
            assert_eq!(
                hits("lru"),
                brute(&trace, &shape, slots, last),
                "lru, seed {seed}, {n_slots} slots"
            );
            let expected = brute(&trace, &shape, slots, |uses| (total(uses), last(uses)));
            assert_eq!(hits("lfu"), expected, "lfu, seed {seed}, {n_slots} slots");
        }
    }
}

#[test]
fn bad_events_are_refused() {
    let shape = Shape::uniform(1, 4);
    let trace = [(0, 1, vec![4], vec![1])];
    assert!(replay(events(&trace), &shape, 2, REGISTRY[0].name).is_err());
    assert!(belady(events(&trace), &shape, 2).is_err());
    assert!(replay(events(&[]), &shape, 2, "unheard-of").is_err());
}
