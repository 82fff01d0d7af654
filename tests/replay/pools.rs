//! Several pools: budgets, scopes, the pools of a run, the prior.

use super::{Recorded, events, random_trace, trace};
use hotset::expert::{Event, ExpertId, Shape};
use hotset::policy::REGISTRY;
use hotset::replay::{Budget, Replay, Scope, belady, belady_bytes, belady_pools, replay};
use hotset::trace::{Header, PoolSpec};

fn header(n_layers: u32, n_experts: u32, top_k: u32, expert_bytes: &[u64]) -> Header {
    Header {
        n_layers,
        n_experts,
        top_k,
        expert_bytes: expert_bytes.to_vec(),
        ..Header::default()
    }
}

/// Layers and slots of each pool.
fn pools(budget: &str, scope: Scope, header: &Header) -> Vec<(Vec<u32>, u32)> {
    let pools = Budget::parse(budget)
        .unwrap()
        .pools(header, &header.shape(), scope)
        .unwrap();
    assert!(pools.iter().all(|pool| !pool.preloaded));
    pools
        .into_iter()
        .map(|pool| (pool.layers, pool.n_slots))
        .collect()
}

#[test]
fn a_share_of_equal_experts_is_rounded_and_holds_one_event() {
    let header = header(6, 64, 8, &[]);
    for (share, n_slots) in [
        ("10%", 38),
        ("12.5%", 48),
        ("30%", 115),
        ("3%", 12),
        ("1%", 8),
        ("100%", 384),
    ] {
        assert_eq!(
            pools(share, Scope::Global, &header),
            [((0..6).collect(), n_slots)],
            "{share}"
        );
    }
}

#[test]
fn layers_divide_the_slots_and_the_first_get_what_is_left_over() {
    let slots = |share| -> Vec<u32> {
        let pools = pools(share, Scope::Layer, &header(6, 64, 8, &[]));
        assert!(
            (0..6)
                .map(|l| vec![l])
                .eq(pools.iter().map(|p| p.0.clone()))
        );
        pools.into_iter().map(|p| p.1).collect()
    };
    // 115 and 38 of 384.
    assert_eq!(slots("30%"), [20, 19, 19, 19, 19, 19]);
    assert_eq!(slots("10%"), [8; 6]);
}

#[test]
fn sizes_share_bytes() {
    const MIB: u64 = 1 << 20;
    // The sizes of two pools, 640 MiB together.
    let uneven = header(4, 8, 2, &[10, 30, 30, 10].map(|n| n * MIB));
    let halves = [(vec![0, 3], 8), (vec![1, 2], 8)];
    assert_eq!(pools("50%", Scope::Global, &uneven), halves);
    assert_eq!(
        pools(&(320 * MIB).to_string(), Scope::Global, &uneven),
        halves
    );
    let by_layer = pools("320MiB", Scope::Layer, &uneven);
    assert_eq!(
        by_layer,
        [(vec![0], 4), (vec![1], 4), (vec![2], 4), (vec![3], 4)]
    );
    // Of the shares of 78 and 236 MiB 8 and 26 are left over, and with one more buy 3 small ones.
    assert_eq!(
        pools("315MiB", Scope::Global, &uneven),
        [(vec![0, 3], 10), (vec![1, 2], 7)]
    );
    let even = header(4, 8, 2, &[10 * MIB; 4]);
    assert_eq!(
        pools("45MiB", Scope::Global, &even),
        [(vec![0, 1, 2, 3], 4)]
    );
    assert_eq!(
        pools("1GiB", Scope::Global, &even),
        [(vec![0, 1, 2, 3], 32)]
    );
}

#[test]
fn a_run_has_its_own_pools_and_traces_say_what_they_lack() {
    let mut header = header(2, 4, 2, &[]);
    let refused = |budget, header: &Header| {
        let budget = Budget::parse(budget).unwrap();
        budget
            .pools(header, &header.shape(), Scope::Global)
            .unwrap_err()
    };
    assert!(refused("run", &header).contains("what pools"));
    assert!(refused("2GiB", &header).contains("how many bytes"));
    header.pools = vec![PoolSpec {
        layers: vec![0, 1],
        n_slots: 3,
        preloaded: true,
        device: false,
    }];
    let pools = Budget::Run.pools(&header, &header.shape(), Scope::Global);
    assert_eq!(pools.unwrap(), header.pools);
}

#[test]
fn bad_budgets_are_refused() {
    for text in [
        "",
        "0%",
        "101%",
        "NaN%",
        "-5%",
        "auto",
        "0",
        "5 parrots",
        "Run",
    ] {
        let error = Budget::parse(text).unwrap_err().to_string();
        assert!(
            error.contains("--budgets") && error.contains("2GiB, or run"),
            "{error}"
        );
    }
}

/// One pool for each layer does what each layer would do alone.
#[test]
fn pools_do_not_touch_each_other() {
    let shape = Shape::new(&[6, 9, 4]);
    let slots = [3, 5, 2];
    let pools: Vec<PoolSpec> = (0..3)
        .map(|layer| PoolSpec {
            layers: vec![layer],
            n_slots: slots[layer as usize],
            preloaded: false,
            device: false,
        })
        .collect();
    for seed in 0..20 {
        let all = random_trace(seed, &shape, 200, 3, (seed % 3) as u32);
        let alone = |layer: u32| -> Vec<Recorded> {
            let own = all.iter().filter(|event| event.0 == layer).cloned();
            own.map(|(_, n, experts, rows)| (0, n, experts, rows))
                .collect()
        };
        let sum = |hits: &dyn Fn(&[Recorded], &Shape, u32) -> u64| -> u64 {
            let hits = |layer: u32| {
                let shape = Shape::new(&[shape.n_experts(layer)]);
                hits(&alone(layer), &shape, slots[layer as usize])
            };
            (0..3).map(hits).sum()
        };
        for spec in REGISTRY {
            let mut together = Replay::new(&shape, &pools, spec.name, None).unwrap();
            together.run(events(&all)).unwrap();
            let expected =
                sum(&|trace, shape, n| replay(events(trace), shape, n, spec.name).unwrap().hits());
            assert_eq!(
                together.counts().hits(),
                expected,
                "{}, seed {seed}",
                spec.name
            );
        }
        let (counts, hits) = belady_pools(|| events(&all), &shape, &pools).unwrap();
        let expected = sum(&|trace, shape, n| belady(events(trace), shape, n).unwrap().hits());
        assert_eq!(counts.hits(), expected, "belady, seed {seed}");
        let n_hits: u64 = hits.iter().map(|&n| u64::from(n)).sum();
        assert_eq!(n_hits, expected, "belady, seed {seed}");
    }
}

/// Layers 0 and 2 share a pool, which is not the order of the trace.
#[test]
fn a_pool_that_is_full_at_first_hits_what_it_holds() {
    let shape = Shape::uniform(3, 4);
    let pool = |layers: &[u32], n_slots| PoolSpec {
        layers: layers.to_vec(),
        n_slots,
        preloaded: true,
        device: false,
    };
    let pools = [pool(&[1], 4), pool(&[0, 2], 5)];
    let all =
        trace("{\"n_layers\":3,\"n_experts\":4,\"top_k\":4}\n0 0 0,1,2,3\n0 1 0,1,2,3\n0 2 0,1\n");
    let events = || all.events().map(|(_, event)| event);
    for spec in REGISTRY {
        let mut replay = Replay::new(&shape, &pools, spec.name, None).unwrap();
        let hits = replay.run(events().take(2)).unwrap();
        assert_eq!(hits, [4, 4], "{}", spec.name);
        let evicted = replay.counts().decode.evictions;
        assert_eq!(evicted, 0, "{}", spec.name);
    }
    // Of layer 2 only expert 0 was there.
    let (_, hits) = belady_pools(events, &shape, &pools).unwrap();
    assert_eq!(hits, [4, 4, 1]);
}

#[test]
fn a_prior_is_of_the_layers_of_each_pool() {
    let shape = Shape::uniform(2, 4);
    let pools: Vec<PoolSpec> = [1, 0]
        .map(|layer| PoolSpec {
            layers: vec![layer],
            n_slots: 2,
            preloaded: true,
            device: false,
        })
        .to_vec();
    // Each pool begins with experts 0 and 1. The prior knows that 1 is cold in layer 0, and 0 in layer 1.
    let mut prior = [0.0; 8];
    prior[shape.index(ExpertId {
        layer: 0,
        expert: 0,
    })] = 1.0;
    prior[shape.index(ExpertId {
        layer: 1,
        expert: 1,
    })] = 1.0;
    let all = trace("{\"n_layers\":2,\"n_experts\":4,\"top_k\":4}\n0 0 3\n0 1 3\n1 0 0\n1 1 1\n");
    let events = || all.events().map(|(_, event)| event);
    let mut replay = Replay::new(&shape, &pools, "decay", Some(&prior)).unwrap();
    assert_eq!(replay.run(events()).unwrap(), [0, 0, 1, 1]);
}

#[test]
fn nothing_beats_the_bound_in_bytes() {
    let header = header(3, 6, 3, &[10, 70, 30]);
    let shape = header.shape();
    let bytes = |trace: &[Recorded], hits: &[u32]| -> u64 {
        let of = |(event, &n): (&Recorded, &u32)| u64::from(n) * shape.expert_bytes(event.0);
        trace.iter().zip(hits).map(of).sum()
    };
    for seed in 0..20 {
        let all = random_trace(seed, &shape, 200, 3, (seed % 4) as u32);
        for n_bytes in [5, 60, 200, 400, 660] {
            let pools = Budget::Bytes(n_bytes)
                .pools(&header, &shape, Scope::Global)
                .unwrap();
            let most: u64 = belady_bytes(events(&all), &shape, n_bytes, &[])
                .unwrap()
                .iter()
                .sum();
            let (_, hits) = belady_pools(|| events(&all), &shape, &pools).unwrap();
            assert!(
                bytes(&all, &hits) <= most,
                "belady, seed {seed}, {n_bytes} bytes"
            );
            for spec in REGISTRY {
                let mut replay = Replay::new(&shape, &pools, spec.name, None).unwrap();
                let hits = replay.run(events(&all)).unwrap();
                assert!(
                    bytes(&all, &hits) <= most,
                    "{}, seed {seed}, {n_bytes} bytes",
                    spec.name
                );
            }
        }
    }
}

/// Only generation whose experts fit looks into a device, unless its cache is left aside.
#[test]
fn a_device_serves_generation_that_fits() {
    let shape = Shape::uniform(1, 4);
    let pools = [PoolSpec {
        layers: vec![0],
        n_slots: 2,
        preloaded: false,
        device: true,
    }];
    let event = |n_tokens, experts: &'static [u32], rows: &'static [u32]| Event {
        layer: 0,
        n_tokens,
        experts,
        rows,
        ..Event::default()
    };
    let events = [
        event(1, &[0, 1], &[1, 1]),
        event(33, &[0, 2], &[33, 33]),
        event(2, &[0, 1, 2], &[2, 1, 1]),
        event(1, &[0, 3], &[1, 1]),
        event(1, &[0, 1], &[1, 1]),
    ];
    let events = events.map(|event| hotset::trace::Recorded {
        event,
        is_aside: event.experts == [0, 3],
    });
    for policy in REGISTRY {
        let mut replay = Replay::new(&shape, &pools, policy.name, None).unwrap();
        let hits = replay.run(events).unwrap();
        assert_eq!(hits, [0, 0, 0, 0, 2], "{}", policy.name);
        let counts = replay.counts();
        assert_eq!((counts.decode.events, counts.prefill.events), (2, 0));
    }
    let (counts, hits) = belady_pools(|| events, &shape, &pools).unwrap();
    // Hits of the events that it serves.
    assert_eq!((counts.hits(), hits.iter().sum::<u32>()), (2, 2));
}
