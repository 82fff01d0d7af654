//! The replay against slow, obvious versions of the same thing, and against golden counts.

use flate2::read::GzDecoder;
use hotset::expert::{Event, Shape};
use hotset::policy::REGISTRY;
use hotset::replay::{belady, replay};
use hotset::residency::Tally;
use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

/// Layer, tokens, experts (ascending), rows.
type Recorded = (u32, u32, Vec<u32>, Vec<u32>);

fn events(trace: &[Recorded]) -> impl Iterator<Item = Event<'_>> {
    trace.iter().map(|(layer, n_tokens, experts, rows)| Event {
        layer: *layer,
        n_tokens: *n_tokens,
        experts,
        rows,
    })
}

/// Random numbers that are the same on any machine (splitmix64).
fn rng(seed: u64) -> impl FnMut(u32) -> u32 {
    let mut state = seed;
    move |limit| {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % u64::from(limit)) as u32
    }
}

/// Up to `k_max` picks per event; `scans` of 10 events are prompts.
fn random_trace(
    seed: u64,
    shape: &Shape,
    n_events: usize,
    k_max: u32,
    scans: u32,
) -> Vec<Recorded> {
    let mut below = rng(seed);
    let mut trace = Vec::new();
    for _ in 0..n_events {
        let layer = below(shape.n_layers());
        let is_scan = below(10) < scans;
        let n_tokens = if is_scan { 33 } else { 1 + below(3) };
        let n_picks = 1 + below(if is_scan { 2 * k_max } else { k_max });
        let picks: BTreeSet<u32> = (0..n_picks)
            .map(|_| below(shape.n_experts(layer)))
            .collect();
        let rows = picks.iter().map(|_| 1 + below(n_tokens)).collect();
        trace.push((layer, n_tokens, picks.into_iter().collect(), rows));
    }
    trace
}

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

/// The most hits of any sequence of resident sets that keeps the rules in `belady`'s documentation.
/// Sets are bit masks.
fn optimum(trace: &[Recorded], n_slots: u32) -> u64 {
    let mut best: Vec<(u32, u64)> = vec![(0, 0)];
    for (_, n_tokens, experts, _) in trace {
        let wanted = experts.iter().fold(0u32, |set, expert| set | 1 << expert);
        let must_stay = *n_tokens <= 32 && wanted.count_ones() <= n_slots;
        let mut after: std::collections::BTreeMap<u32, u64> = Default::default();
        for &(resident, n_hits) in &best {
            let n_hits = n_hits + u64::from((resident & wanted).count_ones());
            let available = resident | wanted;
            for set in (0..=available).filter(|set| set & !available == 0) {
                if set.count_ones() <= n_slots && (!must_stay || set & wanted == wanted) {
                    let most = after.entry(set).or_default();
                    *most = n_hits.max(*most);
                }
            }
        }
        best = after.into_iter().collect();
    }
    best.into_iter().map(|(_, n_hits)| n_hits).max().unwrap()
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
                optimum(&trace, n_slots),
                "seed {seed}, {n_slots} slots: {trace:?}"
            );
        }
    }
}

/// One slot, and a prompt between two uses of expert 0: nothing of it is worth the slot, but it uses
/// what is there. The generated experts must go in, so each drives out the other.
#[test]
fn belady_bypasses_only_in_prompts() {
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
            bypassed,
        } = t;
        [events, tokens, hits, misses, evictions, bypassed]
    };
    assert_eq!(all(counts.decode), [4, 5, 1, 3, 2, 0]);
    assert_eq!(all(counts.scan), [1, 40, 1, 2, 0, 2]);
}

#[test]
fn nothing_beats_belady() {
    let shape = Shape::new(&[8, 3, 12]);
    for seed in 0..60 {
        let trace = random_trace(seed, &shape, 300, 4, (seed % 4) as u32);
        let n_picks: u64 = trace.iter().map(|event| event.2.len() as u64).sum();
        for n_slots in [0, 1, 2, 3, 5, 9, 14, 20, 23, 30] {
            let most = belady(events(&trace), &shape, n_slots).unwrap();
            assert_eq!(most.decode.picks() + most.scan.picks(), n_picks);
            for spec in REGISTRY {
                let counts = replay(events(&trace), &shape, n_slots, spec.name).unwrap();
                let label = format!("{}, seed {seed}, {n_slots} slots", spec.name);
                assert!(
                    counts.hits() <= most.hits(),
                    "{label}: {counts:?} beats {most:?}"
                );
                assert_eq!(counts.decode.picks(), most.decode.picks(), "{label}");
                assert_eq!(counts.scan.tokens, most.scan.tokens, "{label}");
            }
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

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data")
        .join(name)
}

/// One event of one token per line: `token layer expert,expert,...` after a line about the trace.
fn read_trace(name: &str) -> Vec<Recorded> {
    let file = fs::File::open(data(name)).unwrap();
    let lines = BufReader::new(GzDecoder::new(file)).lines().skip(1);
    let parse = |line: String| {
        let fields: Vec<&str> = line.split(' ').collect();
        let mut experts: Vec<u32> = fields[2].split(',').map(|id| id.parse().unwrap()).collect();
        experts.sort();
        let rows = vec![1; experts.len()];
        (fields[1].parse().unwrap(), 1, experts, rows)
    };
    lines.map(|line| parse(line.unwrap())).collect()
}

/// Italian text through the polyglot model. A policy that changes on purpose gets new numbers by
/// `HOTSET_GOLDEN=write cargo test --test replay`.
#[test]
fn real_routing_gives_the_golden_counts() {
    let shape = Shape::uniform(6, 64);
    let trace = read_trace("it.trace.gz");
    let mut actual = String::from("slots policy hits misses evictions\n");
    for n_slots in [38, 115, 192] {
        let replays = REGISTRY.iter().map(|spec| {
            let counts = replay(events(&trace), &shape, n_slots, spec.name);
            (spec.name, counts.unwrap())
        });
        let most = ("belady", belady(events(&trace), &shape, n_slots).unwrap());
        for (name, counts) in replays.chain([most]) {
            let t = counts.decode;
            assert_eq!(
                (t.picks(), t.tokens, t.bypassed),
                (18_000 * 8, 3000, 0),
                "{name}"
            );
            actual += &format!("{n_slots} {name} {} {} {}\n", t.hits, t.misses, t.evictions);
        }
    }
    let path = data("it.golden.txt");
    if std::env::var("HOTSET_GOLDEN").is_ok_and(|value| value == "write") {
        fs::write(&path, &actual).unwrap();
    }
    let golden = fs::read_to_string(&path).unwrap();
    assert!(
        actual == golden,
        "{} says\n{golden}\nbut the replay gives\n{actual}",
        path.display()
    );
}
