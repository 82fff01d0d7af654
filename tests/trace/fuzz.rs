//! Thousands of damaged files: each is refused or keeps all promises, and none ends the program.

use super::mutant::{Grammar, rng};
use super::{gzip, header, read, read_gzip};
use hotset::policy::REGISTRY;
use hotset::replay::{Budget, Replay, Scope, belady_bytes, belady_pools};
use hotset::residency::check;
use hotset::trace::{Prefill, Trace};

/// A trace of each kind.
fn valid() -> [String; 3] {
    let mut plain = header(",\"segments\":[[0,4,\"prefill\"],[4,6,\"a\"]],\"ranked\":true");
    for token in 0..10 {
        for layer in 0..3 {
            plain += &format!(
                "{token} {layer} {},{}\n",
                (token + layer) % 8,
                (token * 3 + layer + 1) % 8
            );
        }
    }
    let plain = plain.replace("9 2 3,6\n", "9 2 3\n");
    let mut batched = header(
        ",\"batched\":true,\"expert_bytes\":[10,30,10],\
         \"pools\":[{\"layers\":[0,2],\"slots\":5,\"preloaded\":true},{\"layers\":[1],\"slots\":3}]",
    );
    for first in [0, 5, 6] {
        for layer in 0..3 {
            for token in first..first + 4 {
                batched += &format!("{} {layer} {},{}\n", 4 * first + token, token % 7, 7);
            }
            batched += "\n";
        }
    }
    let sizes = header(",\"expert_bytes\":[5,5,5],\"n_tokens\":3") + "0 0 1\n1 0 2,3,4\n2 2 7\n";
    [plain, batched, sizes]
}

const TRACE: Grammar = Grammar {
    bytes: b" \n,{}\"0:-\xff\0",
    numbers: &[
        "0",
        "1",
        "2",
        "3",
        "7",
        "8",
        "9",
        "25",
        "300",
        "-1",
        "1e3",
        "4294967295",
        "4294967296",
        "99999999999999999999",
    ],
    end: b'\n',
};

/// What every trace that was accepted must be, whatever it was made of.
fn validate(trace: &Trace) {
    let header = trace.header();
    header.check().unwrap();
    let shape = header.shape();
    let (mut n_events, mut n_tokens) = (0, 0);
    for (first_token, event) in trace.events() {
        check(&shape, &event).unwrap();
        assert!(header.batched || event.n_tokens == 1);
        assert!(!event.experts.is_empty());
        assert!(event.rows.iter().all(|&rows| rows <= event.n_tokens));
        assert_eq!(event.ranks.is_empty(), !header.ranked);
        assert!(event.ranks.iter().all(|&rank| rank < header.top_k));
        assert!(event.rows.iter().sum::<u32>() <= event.n_tokens * header.top_k);
        n_tokens = n_tokens.max(first_token + event.n_tokens);
        n_events += 1;
    }
    assert_eq!(n_tokens, trace.n_tokens());
    assert_eq!(trace.warm().len(), n_events);
}

fn replays(trace: Trace) {
    let header = trace.header();
    let shape = header.shape();
    let events = || trace.events().map(|(_, event)| event);
    let n_picks: usize = events().map(|e| e.experts.len()).sum();
    for budget in [Budget::Share(0.3), Budget::Bytes(100), Budget::Run] {
        for scope in [Scope::Global, Scope::Layer] {
            let Ok(pools) = budget.pools(header, &shape, scope) else {
                continue;
            };
            for spec in REGISTRY {
                let mut replay = Replay::new(&shape, &pools, spec.name, None).unwrap();
                replay.run(events()).unwrap();
                let counts = replay.counts();
                assert_eq!(
                    counts.decode.picks() + counts.prefill.picks(),
                    n_picks as u64
                );
            }
            let (_, hits) = belady_pools(events, &shape, &pools).unwrap();
            assert!(hits.iter().sum::<u32>() <= n_picks as u32);
        }
    }
    belady_bytes(events(), &shape, 100, &[]).unwrap();
}

#[test]
fn the_traces_that_are_damaged_are_valid() {
    for text in valid() {
        let trace = read(&text).unwrap();
        validate(&trace);
        assert!(trace.events().count() >= 3);
        replays(trace);
    }
}

#[test]
fn damaged_text() {
    let (mut n_accepted, mut n_refused) = (0, 0);
    for (number, text) in valid().iter().enumerate() {
        for seed in 0..20_000 {
            let mut below = rng(seed * 3 + number as u64);
            let mut damaged = text.clone().into_bytes();
            for _ in 0..1 + below(3) {
                TRACE.mutate(&mut damaged, &mut below);
            }
            let name = std::path::Path::new("damaged");
            let read = |limit| Trace::read_text(name, &damaged[..], limit);
            let Ok(trace) = read(u32::MAX) else {
                assert!(read(3).is_err());
                n_refused += 1;
                continue;
            };
            validate(&trace);
            validate(&read(3).unwrap());
            n_accepted += 1;
            // Large shapes and long events are valid, but slow.
            if trace.header().shape().n_total() > 1000 || n_accepted % 4 != 0 {
                continue;
            }
            let prefill = [Prefill::Decode, Prefill::Batch(3), Prefill::Skip][below(3)];
            let trace = trace.with_prefill(prefill);
            assert_eq!(trace.warm().len(), trace.events().count());
            replays(trace);
        }
    }
    assert!(
        n_accepted > 4000 && n_refused > 20_000,
        "{n_accepted} and {n_refused}"
    );
}

/// A bit that is flipped in compressed data either does not matter or is found.
#[test]
fn damaged_gzip() {
    for text in valid() {
        let whole = gzip(&text);
        let n_events = read(&text).unwrap().events().count();
        let mut n_accepted = 0;
        for bit in 0..8 * whole.len() {
            let mut damaged = whole.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            if let Ok(trace) = read_gzip(&damaged) {
                assert_eq!(trace.events().count(), n_events, "bit {bit}");
                n_accepted += 1;
            }
        }
        // Those of the time, the system and the like in the head of the file.
        assert!(
            n_accepted < 80,
            "{n_accepted} of {} bits do not matter",
            8 * whole.len()
        );
    }
}
