//! Thousands of damaged files: each is refused or keeps all promises, and none ends the program.

use super::{gzip, header, read, read_gzip};
use hotset::policy::REGISTRY;
use hotset::replay::{Budget, Replay, Scope, belady_bytes, belady_pools};
use hotset::residency::check;
use hotset::trace::{Prefill, Trace};

/// Random numbers that are the same on any machine (splitmix64).
fn rng(seed: u64) -> impl FnMut(usize) -> usize {
    let mut state = seed;
    move |limit| {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % limit as u64) as usize
    }
}

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

const NUMBERS: [&str; 14] = [
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
];

/// Damages `text` in one of a few ways.
fn mutate(text: &mut Vec<u8>, below: &mut impl FnMut(usize) -> usize) {
    if text.is_empty() {
        return;
    }
    let at = below(text.len());
    match below(7) {
        0 => text[at] ^= 1 << below(8),
        1 => text.truncate(at),
        2 => {
            let end = (at + 1 + below(6)).min(text.len());
            text.drain(at..end);
        }
        3 => text.insert(at, b" \n,{}\"0:-\xff\0"[below(11)]),
        4 | 5 => {
            let is_digit = |b: &u8| b.is_ascii_digit();
            let Some(start) = text[at..].iter().position(is_digit) else {
                return;
            };
            let start = at + start;
            let n = text[start..].iter().take_while(|b| is_digit(b)).count();
            text.splice(start..start + n, NUMBERS[below(NUMBERS.len())].bytes());
        }
        _ => {
            let mut lines: Vec<&[u8]> = text.split_inclusive(|&b| b == b'\n').collect();
            let (a, b) = (below(lines.len()), below(lines.len()));
            match below(3) {
                0 => lines.swap(a, b),
                1 => lines[a] = lines[b],
                _ => lines.insert(a, lines[b]),
            }
            *text = lines.concat();
        }
    }
}

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
                assert_eq!(counts.decode.picks() + counts.scan.picks(), n_picks as u64);
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
                mutate(&mut damaged, &mut below);
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
