//! The engine gets more or less memory while experts are computed, without llama.cpp: every address holds the
//! right bytes all the time, and memory really goes back to the system.

#![allow(unsafe_code)]

mod patterned;

use hotset::engine::layout::{Layout, Tensor};
use hotset::engine::{Batch, Engine, Foresight, Inputs, Likely, Routing, When};
use hotset::policy::REGISTRY;
use hotset::pooled::Pooled;
use hotset::report;
use hotset::stats::Stats;
use hotset::store::{ModelFile, QueueDepth, QueueOptions};
use hotset::trace::Picks;
use std::io::Write;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};

const N_LAYERS: usize = 3;
const N_EXPERTS: usize = 16;
const N_PARTS: usize = 2;
/// By layer and part: the last layer has a pool of its own. Slots neither begin nor end at a page.
const PART_BYTES: [[usize; N_PARTS]; N_LAYERS] = [
    [11 * 512, 27 * 512],
    [11 * 512, 27 * 512],
    [19 * 512, 46 * 512],
];

/// What fills one part of an expert, again and again.
fn word(layer: usize, part: usize, expert: usize) -> u32 {
    0xabcd_0000 + ((layer * N_PARTS + part) * N_EXPERTS + expert) as u32
}

fn tensors(file: &mut impl Write) -> Vec<Tensor> {
    let part_bytes = PART_BYTES.iter().map(|parts| &parts[..]);
    patterned::tensors(file, N_EXPERTS, part_bytes, word)
}

/// An engine with memory for about this share of the experts.
fn engine(policy: &str, percent: u64, delay_ms: u32) -> Engine {
    growing_engine(policy, percent, percent, delay_ms)
}

/// An engine with memory for about this share of the experts that may grow up to another.
fn growing_engine(policy: &str, percent: u64, percent_max: u64, delay_ms: u32) -> Engine {
    let mut file = tempfile::tempfile().unwrap();
    let tensors = tensors(&mut file);
    let file = ModelFile::open(file.as_fd()).unwrap();
    let aligns = [file.align()];
    let all = Layout::new(&tensors, &aligns, u64::MAX).unwrap();
    let bytes = |percent| all.expert_bytes * percent / 100;
    let layout = Layout::growing(&tensors, &aligns, bytes(percent), bytes(percent_max)).unwrap();
    assert_eq!(layout.pools.len(), 2);
    Engine::new(layout, vec![file], policy, options(delay_ms)).unwrap()
}

fn options(delay_ms: u32) -> QueueOptions {
    let queue_depth = QueueDepth {
        depth: 8,
        ..QueueDepth::default()
    };
    patterned::options(queue_depth, &format!("delay_ms={delay_ms}"))
}

/// Begins an operation of a lane of one thread that uses `experts` for one token.
fn route(engine: &Engine, key: usize, layer: usize, part: usize, experts: &[usize]) {
    let ids: Vec<i32> = experts.iter().map(|&e| e as i32).collect();
    let mut n_rows = [0; N_EXPERTS];
    experts.iter().for_each(|&e| n_rows[e] += 1);
    let seen = [experts.iter().sum::<usize>() as f32];
    let routing = Routing {
        picks: Picks::new(&ids, ids.len(), ids.len()),
        n_rows: &n_rows,
        batch: &Batch::default(),
        inputs: Inputs::new(&seen, 1, 1),
    };
    engine.route(layer, part, key, 1, &routing).unwrap();
}

/// Ends it; checks every byte it is given. Returns an address of each expert.
fn acquire(engine: &Engine, key: usize, layer: usize, part: usize) -> Vec<(u32, usize)> {
    let mut found = Vec::new();
    while let Some((expert, address)) = engine.acquire(layer, key, 0, found.len()).unwrap() {
        let n_words = PART_BYTES[layer][part] / 4;
        // SAFETY: the engine keeps the part at this address until the operation has ended.
        let words = unsafe { std::slice::from_raw_parts(address as *const u32, n_words) };
        let expected = word(layer, part, expert as usize);
        let wrong = words.iter().position(|&w| w != expected);
        assert_eq!(wrong, None, "layer {layer} part {part} expert {expert}");
        found.push((expert, address));
    }
    found
}

fn compute(engine: &Engine, key: usize, layer: usize, experts: &[usize]) -> Vec<(u32, usize)> {
    let mut found = Vec::new();
    for part in 0..N_PARTS {
        route(engine, key, layer, part, experts);
        let some = acquire(engine, key, layer, part);
        let mut seen: Vec<usize> = some.iter().map(|(e, _)| *e as usize).collect();
        seen.sort_unstable();
        assert_eq!(seen, experts);
        found.extend(some);
    }
    found
}

/// Numbers that look random and are always the same.
fn numbers(seed: u64) -> impl FnMut(usize) -> usize {
    let mut x = 0x9e37_79b9_7f4a_7c15 ^ seed;
    move |n| {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        (x % n as u64) as usize
    }
}

/// Experts in the order in which `layer` is likely to use them when the experts of the layer before add up
/// to `seen`.
fn likely(layer: usize, seen: usize) -> [usize; N_EXPERTS] {
    let first = numbers((N_LAYERS * seen + layer) as u64)(N_EXPERTS);
    std::array::from_fn(|i| (first + 5 * i) % N_EXPERTS)
}

/// Three lanes compute tokens, of which some use more experts than there are slots, until `is_over`.
fn compute_in_three_lanes(engine: &Engine, is_over: &AtomicBool) {
    std::thread::scope(|scope| {
        for key in 1..4 {
            scope.spawn(move || {
                let mut below = numbers(key as u64);
                while !is_over.load(Ordering::Relaxed) {
                    let top_k = if below(8) == 0 { 10 } else { 1 + below(4) };
                    let mut seen = 0;
                    for layer in 0..N_LAYERS {
                        let likely = likely(layer, seen);
                        let is_like_that = below(4) > 0;
                        let pick = |i: usize| match is_like_that {
                            true => likely[i],
                            false => below(N_EXPERTS),
                        };
                        let mut experts: Vec<_> = (0..top_k).map(pick).collect();
                        experts.sort_unstable();
                        experts.dedup();
                        compute(engine, key, layer, &experts);
                        seen = experts.iter().sum();
                    }
                }
            });
        }
    });
}

fn validate(engine: &Engine) {
    let looked = engine.inspect(|_, Pooled { residency, .. }| residency.validate());
    looked.expect("nobody plans");
}

#[test]
fn experts_are_right_while_memory_comes_and_goes() {
    for spec in REGISTRY {
        let engine = engine(spec.name, 60, 0);
        let start = engine.size();
        assert_eq!(start.n_bytes, engine.layout().ring.base as u64);
        let is_over = AtomicBool::new(false);
        let n_sizes = std::thread::scope(|scope| {
            scope.spawn(|| compute_in_three_lanes(&engine, &is_over));
            let mut below = numbers(9);
            let mut sizes = Vec::new();
            for _ in 0..150 {
                let n_bytes = below(start.n_bytes as usize + 1) as u64;
                let size = engine.resize(n_bytes).unwrap();
                // What three lanes use at the time may be more.
                assert!(size.n_bytes <= n_bytes || size.n_slots <= 30);
                sizes.push(size.n_slots);
                std::thread::yield_now();
            }
            engine.resize(u64::MAX).unwrap();
            is_over.store(true, Ordering::Relaxed);
            sizes.sort_unstable();
            sizes.dedup();
            sizes.len()
        });
        assert!(n_sizes > 5, "{}: {n_sizes} sizes", spec.name);
        assert_eq!(engine.size(), start, "{}", spec.name);
        validate(&engine);
    }
}

/// Guesses what [`compute_in_three_lanes`] will use.
#[derive(Default)]
struct Oracle {
    token: usize,
    guessed: Vec<(u32, f32)>,
}

impl Foresight for Oracle {
    fn see(&mut self, _: usize, _: usize, inputs: &Inputs) {
        self.token = inputs.rows().next().map_or(0, |row| row[0] as usize);
    }

    fn guess(&mut self, _: usize, layer: usize, distance: usize, top_k: usize) -> &Likely {
        let best = likely(layer + distance, self.token).into_iter().take(top_k);
        self.guessed = best.map(|expert| (expert as u32, 0.6)).collect();
        &self.guessed
    }

    fn learn(&mut self, _: usize, _: usize, _: Option<Picks>) {}
}

/// Slots of wrong guesses are let go while some of their reads have ended and others were recalled.
#[test]
fn memory_comes_and_goes_while_experts_are_read_ahead() {
    for delay_ms in [0, 1] {
        let engine = engine("lru", 60, delay_ms);
        engine.look_ahead_with(Box::<Oracle>::default(), When::Always);
        let n_bytes = engine.size().n_bytes;
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| compute_in_three_lanes(&engine, &is_over));
            let mut below = numbers(5);
            let n_guesses = || engine.ahead().map_or(0, |ahead| ahead.guesses);
            let begin = std::time::Instant::now();
            while n_guesses() < 200 && begin.elapsed().as_secs() < 60 {
                engine.resize(below(n_bytes as usize + 1) as u64).unwrap();
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
            is_over.store(true, Ordering::Relaxed);
        });
        validate(&engine);
        let ahead = engine.ahead().unwrap();
        assert!(ahead.guesses >= 200 && ahead.right > 0, "{ahead:?}");
        assert!(ahead.right < ahead.guesses, "{ahead:?}");
    }
}

/// Nothing was ever evicted then, and a policy may have learnt nothing.
#[test]
fn memory_for_all_experts_may_shrink_too() {
    for spec in REGISTRY {
        let engine = engine(spec.name, 100, 0);
        assert!(engine.holds_all());
        engine.warm_all(|_| ()).unwrap();
        let n_all = engine.size().n_slots;
        let all: Vec<_> = (0..N_EXPERTS).collect();
        (0..N_LAYERS).for_each(|layer| drop(compute(&engine, 1, layer, &all)));
        compute(&engine, 1, 0, &[0]);
        for part in [2, 4, 1] {
            let size = engine
                .resize(engine.layout().ring.base as u64 / part)
                .unwrap();
            let expected = n_all / part as u32;
            assert!(
                size.n_slots.abs_diff(expected) <= 2,
                "{}: {size:?}",
                spec.name
            );
            for token in 0..20 {
                let experts: Vec<_> = (token % 13..token % 13 + 3).collect();
                (0..N_LAYERS).for_each(|layer| drop(compute(&engine, 1, layer, &experts)));
            }
            validate(&engine);
        }
        assert_eq!(engine.size().n_slots, n_all);
    }
}

/// It takes addresses for all of them, and memory for what it has.
#[test]
fn an_engine_that_begins_with_few_slots_grows_to_all() {
    for spec in REGISTRY {
        for percent in [0, 30] {
            let engine = growing_engine(spec.name, percent, 100, 0);
            let layout = engine.layout();
            let stats = || Stats::counters(&engine, spec.name).unwrap();
            let (start, first) = (engine.size(), stats());
            assert_eq!(start.n_slots, layout.n_slots_start());
            assert!(
                start.n_bytes <= layout.expert_bytes * percent / 100,
                "{start:?}"
            );
            assert_eq!(
                (first.n_slots, first.n_slots_min),
                (start.n_slots, start.n_slots)
            );
            assert_eq!(first.arena_bytes, layout.arena_bytes_start());
            let line = report::start_line(&engine, spec.name);
            assert!(
                line.contains(&format!(" {} slots", start.n_slots)),
                "{line}"
            );
            assert!(!engine.holds_all());
            let is_over = AtomicBool::new(false);
            std::thread::scope(|scope| {
                scope.spawn(|| compute_in_three_lanes(&engine, &is_over));
                for sixteenth in 1..=16 {
                    let n_bytes = layout.ring.base as u64 * sixteenth / 16;
                    let size = engine.resize(n_bytes).unwrap();
                    assert!(size.n_bytes <= n_bytes.max(start.n_bytes));
                    std::thread::sleep(std::time::Duration::from_millis(2));
                }
                is_over.store(true, Ordering::Relaxed);
            });
            validate(&engine);
            assert_eq!(engine.size().n_slots as usize, layout.n_experts());
            // From the second time on all of them are hits.
            let all: Vec<_> = (0..N_EXPERTS).collect();
            let mut n_misses = [0; 2];
            for misses in &mut n_misses {
                (0..N_LAYERS).for_each(|layer| drop(compute(&engine, 1, layer, &all)));
                *misses = stats().generation.misses + stats().prompt.misses;
            }
            assert_eq!(n_misses[0], n_misses[1], "{}", spec.name);
            assert_eq!(stats().arena_bytes, layout.arena_bytes as u64);
        }
    }
}

/// What a budget leaves to slots is the same at the start and later.
#[test]
fn a_budget_buys_the_same_slots_at_the_start_and_later() {
    for percent in [0, 20, 55, 100] {
        let start = engine("lru", percent, 0);
        let grown = growing_engine("lru", 0, 100, 0);
        let budget = start.layout().expert_bytes * percent / 100;
        let size = grown.resize(grown.layout().slot_bytes_of(budget)).unwrap();
        assert_eq!(size, start.size(), "{percent} %");
    }
}

/// Also while they are still being read, and in events that are not over.
#[test]
fn slots_in_use_stay() {
    let engine = engine("lru", 100, 20);
    let experts = [1, 3, 4, 9];
    route(&engine, 1, 0, 0, &experts);
    // Their reads are on their way.
    assert_eq!(engine.resize(0).unwrap().n_slots, 4);
    assert_eq!(acquire(&engine, 1, 0, 0).len(), 4);
    assert_eq!(engine.resize(0).unwrap().n_slots, 4);
    route(&engine, 1, 0, 1, &experts);
    assert_eq!(engine.resize(0).unwrap().n_slots, 4);
    assert_eq!(acquire(&engine, 1, 0, 1).len(), 4);
    // The next event lets them go. It finds no slot in its pool.
    route(&engine, 1, 2, 0, &[5]);
    let none = engine.resize(0).unwrap();
    assert_eq!((none.n_slots, none.n_bytes), (0, 0));
    assert_eq!(acquire(&engine, 1, 2, 0).len(), 1);
    validate(&engine);
    // With slots again, nothing of what was there is taken for still there.
    engine.resize(u64::MAX).unwrap();
    for layer in 0..N_LAYERS {
        compute(&engine, 1, layer, &experts);
    }
    validate(&engine);
}

#[test]
fn counters_say_what_there_is_now() {
    let engine = engine("lru", 100, 0);
    let layout = engine.layout();
    let start = engine.size();
    let stats = || Stats::counters(&engine, "lru").unwrap();
    let first = stats();
    assert_eq!(first.arena_bytes, layout.arena_bytes as u64);
    assert_eq!((first.n_slots, first.n_slots_min), (48, 48));
    let small = engine.resize(start.n_bytes / 3).unwrap();
    let now = stats();
    assert_eq!(
        (now.n_slots, now.n_slots_min),
        (small.n_slots, small.n_slots)
    );
    assert_eq!(
        first.arena_bytes - now.arena_bytes,
        start.n_bytes - small.n_bytes
    );
    engine.resize(u64::MAX).unwrap();
    let now = stats();
    assert_eq!((now.n_slots, now.n_slots_min), (48, small.n_slots));
    assert_eq!(now.arena_bytes, first.arena_bytes);
    let text = |stats| report::text(&stats).replace('\n', " ");
    let line = format!("; {} while memory was short ", small.n_slots);
    assert!(text(now).contains(&line));
    assert!(!text(first).contains("short"));
}

/// The pools share any size as they would have shared a budget of it.
#[test]
fn pools_share_as_at_the_start() {
    let tensors = tensors(&mut std::io::sink());
    let layout = |n_bytes| Layout::new(&tensors, &[512], n_bytes).unwrap();
    let n_slots = |layout: &Layout| layout.pools.iter().map(|p| p.n_slots).collect::<Vec<_>>();
    let all = layout(u64::MAX);
    for percent in 0..100 {
        let n_bytes = all.expert_bytes * percent / 100;
        assert_eq!(
            all.slots_for(n_bytes),
            n_slots(&layout(n_bytes)),
            "{percent} %"
        );
        let half = layout(all.expert_bytes / 2);
        let few = half.slots_for(n_bytes);
        assert!(
            few.iter()
                .zip(n_slots(&half))
                .all(|(now, most)| *now <= most)
        );
    }
    for some in [all, layout(200_000)] {
        let n_bytes = some.ring.base as u64;
        assert_eq!(some.slots_for(n_bytes), n_slots(&some));
        assert_eq!(some.slots_for(u64::MAX), n_slots(&some));
        assert_ne!(some.slots_for(n_bytes - 1), n_slots(&some));
    }
}

/// Another model of `HOTSET_RAM=auto` must not take it for memory that will be needed.
#[cfg(target_os = "linux")]
#[test]
fn what_was_given_back_is_not_expected_to_be_touched() {
    use hotset::memory::committed_untouched;
    const EXPERT_BYTES: u64 = 1 << 30;
    // Nothing of it is read.
    let file = tempfile::tempfile().unwrap();
    file.set_len(N_EXPERTS as u64 * EXPERT_BYTES).unwrap();
    let tensor = Tensor {
        name: "blk.0.part0".into(),
        block: 0,
        n_experts: N_EXPERTS as u32,
        n_bytes: EXPERT_BYTES as usize,
        file: 0,
        offset: 0,
        stride: EXPERT_BYTES,
    };
    let file = ModelFile::open(file.as_fd()).unwrap();
    let layout = Layout::new(&[tensor], &[file.align()], u64::MAX).unwrap();
    let before = committed_untouched();
    let engine = Engine::new(layout, vec![file], "lru", options(0)).unwrap();
    // Other tests allocate meanwhile, but less than an expert.
    let n_more =
        || (committed_untouched().saturating_sub(before) as f64 / EXPERT_BYTES as f64).round();
    // With two places in the ring.
    assert_eq!(n_more(), 18.0);
    for n in [5, 0, 9] {
        engine.resize(n * EXPERT_BYTES).unwrap();
        assert_eq!(n_more(), 2.0 + n as f64);
    }
    drop(engine);
    // Somebody may still be about to find memory for it.
    let waits = (0..200).take_while(|_| n_more() > 0.0);
    waits.for_each(|_| std::thread::sleep(std::time::Duration::from_millis(10)));
    assert_eq!(n_more(), 0.0);
}

/// Bytes of the mapping around `address` that are in memory.
#[cfg(target_os = "linux")]
fn resident_around(address: usize) -> u64 {
    let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
    let mut is_it = false;
    for line in maps.lines() {
        let range = line.split(' ').next().and_then(|r| r.split_once('-'));
        let number = |text| usize::from_str_radix(text, 16).ok();
        if let Some((Some(begin), Some(end))) = range.map(|(a, b)| (number(a), number(b))) {
            is_it = (begin..end).contains(&address);
        } else if let Some(kib) = line.strip_prefix("Rss:").filter(|_| is_it) {
            return 1024 * kib.trim().trim_end_matches(" kB").parse::<u64>().unwrap();
        }
    }
    panic!("nothing is mapped at {address:#x}");
}

#[cfg(target_os = "linux")]
#[test]
fn memory_goes_back_to_the_system() {
    let engine = engine("lru", 100, 0);
    engine.warm_all(|_| ()).unwrap();
    let start = engine.size();
    let address = compute(&engine, 1, 0, &[0])[0].1;
    let before = resident_around(address);
    assert!(
        before >= start.n_bytes / 10 * 9,
        "{before} of {}",
        start.n_bytes
    );
    for part in [2, 4] {
        let size = engine.resize(start.n_bytes / part).unwrap();
        let after = resident_around(address);
        // Slots end inside of pages: those of two slots stay.
        let edges = 4096 * 2 * u64::from(start.n_slots - size.n_slots);
        let given_back = start.n_bytes - size.n_bytes;
        assert!(before - after >= given_back - edges, "{before} - {after}");
        assert!(before - after <= given_back, "{before} - {after}");
    }
    engine.resize(u64::MAX).unwrap();
    let all: Vec<_> = (0..N_EXPERTS).collect();
    (0..N_LAYERS).for_each(|layer| drop(compute(&engine, 1, layer, &all)));
    assert!(resident_around(address) >= before / 10 * 9);
}
