//! What each policy does on the polyglot model's routing, to the count. A policy that changes on
//! purpose gets new numbers by `HOTSET_GOLDEN=write cargo test --test replay`.

use super::data;
use hotset::policy::REGISTRY;
use hotset::replay::{Replay, belady_from};
use hotset::residency::{Counts, Tally};
use hotset::trace::{PoolSpec, Trace};
use std::fs;

/// 5, 10, 30 and 50 % of 384 experts.
const SLOTS: [u32; 4] = [19, 38, 115, 192];

/// Counts and hits by event of each policy and of the optimum.
fn replays(trace: &Trace, n_slots: u32) -> Vec<(&'static str, Counts, Vec<u32>)> {
    let shape = trace.header().shape();
    let events = || trace.events().map(|(_, event)| event);
    let pool = PoolSpec {
        layers: (0..shape.n_layers()).collect(),
        n_slots,
        preloaded: false,
        device: false,
    };
    let mut all = Vec::new();
    for spec in REGISTRY {
        let mut replay = Replay::new(&shape, std::slice::from_ref(&pool), spec.name, None).unwrap();
        let hits = replay.run(events()).unwrap();
        all.push((spec.name, replay.counts(), hits));
    }
    let (counts, hits) = belady_from(events(), &shape, n_slots, &[]).unwrap();
    all.push(("belady", counts, hits));
    for (name, counts, hits) in &all {
        let Tally { tokens, staged, .. } = counts.decode;
        assert_eq!(tokens, u64::from(trace.n_tokens()), "{name}");
        assert_eq!((staged, counts.prefill), (0, Tally::default()), "{name}");
        assert_eq!(counts.decode.picks(), 6 * 8 * tokens, "{name}");
        let n_hits: u64 = hits.iter().map(|&n| u64::from(n)).sum();
        assert_eq!(n_hits, counts.decode.hits, "{name}");
    }
    all
}

#[track_caller]
fn check(name: &str, actual: &str) {
    let path = data(name);
    if std::env::var("HOTSET_GOLDEN").is_ok_and(|value| value == "write") {
        fs::write(&path, actual).unwrap();
    }
    let golden = fs::read_to_string(&path).unwrap();
    assert!(
        actual == golden,
        "{} says\n{golden}\nbut the replay gives\n{actual}",
        path.display()
    );
}

#[test]
fn italian_gives_the_golden_counts() {
    let trace = Trace::open(&data("it.trace.gz"), u32::MAX).unwrap();
    let mut actual = String::from("slots policy hits misses evictions\n");
    for n_slots in SLOTS {
        for (name, counts, _) in replays(&trace, n_slots) {
            let t = counts.decode;
            actual += &format!("{n_slots} {name} {} {} {}\n", t.hits, t.misses, t.evictions);
        }
    }
    check("it.golden.txt", &actual);
}

/// A session that changes between Italian, English, code and German every 400 tokens. The last column
/// counts hits in the 32 tokens after a change: how soon a policy follows.
#[test]
fn a_mixed_session_gives_the_golden_counts() {
    let trace = Trace::open(&data("mixed.trace.gz"), u32::MAX).unwrap();
    let is_after_change = |token: u32| token >= 400 && token % 400 < 32;
    let mut actual = String::from("slots policy hits misses evictions hits_after_change\n");
    for n_slots in SLOTS {
        for (name, counts, hits) in replays(&trace, n_slots) {
            let after_change = trace.events().zip(&hits);
            let after_change = after_change.filter(|((token, _), _)| is_after_change(*token));
            let n_after_change: u32 = after_change.map(|(_, n)| n).sum();
            let t = counts.decode;
            actual += &format!(
                "{n_slots} {name} {} {} {} {n_after_change}\n",
                t.hits, t.misses, t.evictions
            );
        }
    }
    check("mixed.golden.txt", &actual);
}
