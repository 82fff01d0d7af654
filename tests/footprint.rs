//! What the logs of routing, the comparison at the end and the caches of other engines take in memory, whatever the
//! model: counted by an allocator.

#![allow(unsafe_code)]

use hotset::cache::{Cache, N_LAYERS_MAX, N_TOTAL_MAX};
use hotset::expert::{Event, Shape};
use hotset::hindsight::{Hindsight, Lookback};
use hotset::policy::REGISTRY;
use hotset::recent_events::{ENGINE_BYTES, MODEL_BYTES, PICKS_MAX, RecentEvents, device_bytes};
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Instant;

/// Bytes that are allocated, and the most there have been.
static NOW: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

struct Counting;

// SAFETY: the system's allocator does it all.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        MOST.fetch_max(
            NOW.fetch_add(layout.size(), Relaxed) + layout.size(),
            Relaxed,
        );
        // SAFETY: passed on from our caller.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Relaxed);
        // SAFETY: passed on from our caller.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Tests of one process share the allocator.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// A model as a log sees it.
struct Case {
    n_layers: u32,
    n_experts: u32,
    top_k: usize,
    n_tokens: u32,
    n_pools: usize,
}

const CASES: [Case; 6] = [
    Case {
        n_layers: 60,
        n_experts: 32,
        top_k: 16,
        n_tokens: 1,
        n_pools: 4,
    },
    Case {
        n_layers: 60,
        n_experts: 256,
        top_k: 8,
        n_tokens: 1,
        n_pools: 1,
    },
    Case {
        n_layers: 48,
        n_experts: 16,
        top_k: 1,
        n_tokens: 1,
        n_pools: 2,
    },
    Case {
        n_layers: 94,
        n_experts: 128,
        top_k: 8,
        n_tokens: 4,
        n_pools: 94,
    },
    Case {
        n_layers: 27,
        n_experts: 64,
        top_k: 6,
        n_tokens: 512,
        n_pools: 3,
    },
    Case {
        n_layers: 6,
        n_experts: 8,
        top_k: 2,
        n_tokens: 1,
        n_pools: 1,
    },
];

impl Case {
    fn logs(&self, n_bytes: usize) -> Vec<RecentEvents> {
        let n_layers = self.n_layers as usize;
        let log = |_| RecentEvents::of_pool(n_bytes, n_layers / self.n_pools, n_layers);
        (0..self.n_pools).map(log).collect()
    }

    /// Routes until `n_picks` experts were picked; calls `push` with the pool of each event.
    fn route(&self, n_picks: usize, mut push: impl FnMut(usize, &Event)) {
        let mut random = 1u64;
        let mut next = move || {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (random >> 33) as u32
        };
        let n_layers_each = self.n_layers as usize / self.n_pools;
        let mut n_picked = 0;
        for n in 0.. {
            let layer = n % self.n_layers as usize;
            let n_distinct = (self.top_k * self.n_tokens as usize).min(self.n_experts as usize);
            let mut experts: Vec<u32> = Vec::new();
            while experts.len() < n_distinct {
                let expert = next() % self.n_experts * (next() % 4) / 3;
                match experts.binary_search(&expert) {
                    Ok(_) if n_distinct * 2 > self.n_experts as usize => {
                        experts = (0..n_distinct as u32).collect();
                    }
                    Ok(_) => {}
                    Err(at) => experts.insert(at, expert),
                }
            }
            let rows: Vec<u32> = experts.iter().map(|e| 1 + e % self.n_tokens).collect();
            let ranks: Vec<u32> = (0..experts.len() as u32)
                .map(|r| r % self.top_k as u32)
                .collect();
            n_picked += experts.len();
            push(
                layer / n_layers_each,
                &Event {
                    layer: (layer % n_layers_each) as u32,
                    n_tokens: self.n_tokens,
                    experts: &experts,
                    rows: &rows,
                    ranks: &ranks,
                    ..Event::default()
                },
            );
            if n_picked >= n_picks {
                break;
            }
        }
    }

    fn about(&self) -> String {
        let Self {
            n_layers,
            n_experts,
            top_k,
            n_tokens,
            n_pools,
        } = self;
        format!("{n_layers} layers of {n_experts} in {n_pools} pools, {n_tokens} x {top_k} picks")
    }
}

/// Three million picks in the pools of an engine and of the devices of two contexts.
#[test]
fn the_logs_of_a_model_take_eight_mebibytes() {
    let _one = ONE_AT_A_TIME.lock();
    for case in &CASES {
        let before = NOW.load(Relaxed);
        let mut places = [ENGINE_BYTES, device_bytes(0), device_bytes(1)].map(|n| case.logs(n));
        MOST.store(NOW.load(Relaxed), Relaxed);
        case.route(1_000_000, |pool, event| {
            places.iter_mut().for_each(|logs| logs[pool].push(event));
        });
        let taken = NOW.load(Relaxed) - before;
        let said: usize = places.iter().flatten().map(RecentEvents::n_bytes).sum();
        let n_picks: usize = places[0].iter().map(RecentEvents::n_picks).sum();
        let about = format!(
            "{}: {taken} bytes, says {said}, {n_picks} picks",
            case.about()
        );
        println!("{about}");
        assert!(taken <= MODEL_BYTES, "{about}");
        assert!(
            said.abs_diff(taken) < 4096, // of the harness
            "{about}"
        );
        assert!(
            MOST.load(Relaxed) - before <= MODEL_BYTES + (1 << 16),
            "{about}"
        );
        assert!(n_picks > PICKS_MAX * 2 / 3, "{about}");
    }
}

/// The copy of the logs, and what is replayed, for the policy that needs most.
#[test]
fn the_comparison_at_the_end_takes_sixteen_mebibytes() {
    let _one = ONE_AT_A_TIME.lock();
    for case in &CASES {
        let mut logs = case.logs(ENGINE_BYTES);
        case.route(400_000, |pool, event| logs[pool].push(event));
        let n_layers = case.n_layers as usize / case.n_pools;
        for policy in ["lru", "adaptive", "echo", "tinylfu"] {
            assert!(REGISTRY.iter().any(|spec| spec.name == policy));
            let before = NOW.load(Relaxed);
            MOST.store(before, Relaxed);
            let begin = Instant::now();
            let window = |recent: &RecentEvents| Lookback {
                n_slots_more: None,
                shape: Shape::uniform(n_layers as u32, case.n_experts),
                n_slots: n_layers as u32 * case.n_experts * 3 / 10,
                recent: recent.tail(usize::MAX),
            };
            let windows: Vec<_> = logs.iter().map(window).collect();
            let hindsight = Hindsight::of(&windows, policy);
            let took = begin.elapsed();
            let taken = MOST.load(Relaxed) - before;
            let about = format!("{policy}, {}: {taken} bytes, {took:?}", case.about());
            println!("{about}, {} picks", hindsight.picks + hindsight.warm_picks);
            assert!(
                !hindsight.is_whole_run && hindsight.picks > 40_000,
                "{about}"
            );
            assert!(taken <= 16 << 20, "{about}");
        }
    }
}

/// Nobody will ask.
#[test]
fn a_log_of_no_bytes_takes_none() {
    let _one = ONE_AT_A_TIME.lock();
    let mut log = RecentEvents::within(0, 0);
    let before = NOW.load(Relaxed);
    CASES[0].route(10_000, |_, event| log.push(event));
    // What runs the tests allocates, too: a log of these events would take far more.
    let taken = NOW.load(Relaxed).saturating_sub(before);
    assert!(taken < 16 << 10, "{taken} bytes");
    assert_eq!(
        (log.n_bytes(), log.n_events()),
        (size_of::<RecentEvents>(), 0)
    );
    assert!(log.n_events_dropped() > 0);
}

/// The largest caches that another engine can have, on a smaller scale: what they take grows with their size.
#[test]
fn a_cache_of_another_engine_takes_a_gibibyte_at_most() {
    let _one = ONE_AT_A_TIME.lock();
    const SCALE: usize = 32;
    let (n_most, n_layers_most) = (N_TOTAL_MAX as usize / SCALE, N_LAYERS_MAX / SCALE);
    for (n_layers, n_experts) in [(1, n_most), (n_layers_most, n_most / n_layers_most)] {
        for policy in ["lru", "window", "adaptive"] {
            let before = NOW.load(Relaxed);
            MOST.store(before, Relaxed);
            let n_each = vec![n_experts as u32; n_layers];
            let mut cache = Cache::new(&n_each, None, u32::MAX, policy).unwrap();
            // A token, and a prompt that picks all: there are policies that take memory for the first of either.
            let ids: Vec<i32> = (0..n_experts as i32).collect();
            for (n_tokens, n_ids) in [(1, n_experts.min(8)), (100, n_experts)] {
                for layer in 0..n_layers as u32 {
                    cache.plan(layer, n_tokens, &ids[..n_ids], &mut []).unwrap();
                    assert!(cache.commit());
                }
            }
            let taken = MOST.load(Relaxed) - before - MODEL_BYTES;
            let about = format!("{policy}, {n_layers} layers of {n_experts}: {taken} bytes");
            println!("{about}");
            assert!(taken * SCALE <= 1 << 30, "{about}");
        }
    }
    let refused = |n_each: &[u32]| {
        Cache::new(n_each, None, 1, "lru")
            .err()
            .unwrap()
            .to_string()
    };
    let text = refused(&[N_TOTAL_MAX as u32, 1]);
    assert!(
        text.contains("n_experts=2097153: at most 2097152 in all"),
        "{text}"
    );
    let text = refused(&vec![1; N_LAYERS_MAX + 1]);
    assert!(text.contains("n_layers=262145: at most 262144"), "{text}");
}
