//! What a policy makes of what it hears: nothing of noise, something of a profile, and the
//! best of fewer slots.

use crate::model::Rng;
use crate::{by_name, names, step};
use hotset::expert::{Event, ExpertId, Shape};
use hotset::policy::Prior;
use hotset::residency::{Buffers, Residency};

/// `k` distinct experts, ascending, each drawn by its weight.
fn draw(rng: &mut Rng, weights: &[u32], k: usize) -> Vec<u32> {
    let mut picks = Vec::new();
    while picks.len() < k {
        let mut rest = rng.below(weights.iter().sum());
        let is_it = |&weight: &u32| match rest.checked_sub(weight) {
            Some(left) => {
                rest = left;
                false
            }
            None => true,
        };
        let expert = weights.iter().position(is_it).unwrap() as u32;
        if !picks.contains(&expert) {
            picks.push(expert);
        }
    }
    picks.sort();
    picks
}

/// Plans, commits and releases one event of one token; returns its hits.
fn route(residency: &mut Residency, layer: u32, experts: &[u32]) -> usize {
    let event = Event {
        layer,
        n_tokens: 1,
        experts,
        rows: &vec![1; experts.len()],
        ..Event::default()
    };
    let planned = residency.plan(&event, Buffers::default()).unwrap();
    let n_hits = planned.hits.len();
    let committed = residency.commit(planned);
    residency.release(committed);
    n_hits
}

/// When each pick is as likely as any other of its layer, whatever is resident hits in proportion:
/// more would be a look into the future. Layers take turns, as in a model, and differ in size.
#[test]
fn what_is_resident_says_nothing_of_uniform_picks() {
    const K: usize = 3;
    let shape = Shape::new(&[12, 30, 7, 16]);
    for name in names() {
        for n_slots in [9, 25, 50] {
            let mut rng = Rng(u64::from(n_slots));
            let mut residency = Residency::new(shape.clone(), n_slots, by_name(&name, &shape));
            let (mut n_hits, mut n_expected, mut variance) = (0.0, 0.0, 0.0);
            for step in 0..12_000 {
                let layer = step % shape.n_layers();
                let n_experts = shape.n_experts(layer);
                let is_resident = |&expert: &u32| residency.is_resident(ExpertId { layer, expert });
                let share =
                    (0..n_experts).filter(is_resident).count() as f64 / f64::from(n_experts);
                n_expected += share * K as f64;
                // Of independent picks; that of distinct ones is smaller.
                variance += share * (1.0 - share) * K as f64;
                let experts = draw(&mut rng, &vec![1; n_experts as usize], K);
                n_hits += route(&mut residency, layer, &experts) as f64;
            }
            assert!(
                (n_hits - n_expected).abs() <= 4.0 * f64::sqrt(variance),
                "{name}, {n_slots} slots: {n_hits} hits, not {n_expected}"
            );
        }
    }
}

const N_EXPERTS: u32 = 32;
const TOP_K: usize = 3;

/// Some experts are picked much more often than others, other ones in each layer.
fn skewed(rng: &mut Rng) -> Vec<u32> {
    let mut weights: Vec<u32> = (1..=N_EXPERTS).map(|rank| 1000 / rank).collect();
    for i in (1..weights.len()).rev() {
        weights.swap(i, rng.below(i as u32 + 1) as usize);
    }
    weights
}

/// Hits of 12 tokens in a pool that is full of anything, with a prior of `frequency` if there is one.
fn hits_at_start(name: &str, seed: u64, layers: &[Vec<u32>], frequency: Option<&[f32]>) -> usize {
    let mut rng = Rng(seed);
    let shape = Shape::uniform(layers.len() as u32, N_EXPERTS);
    let n_slots = shape.n_total() as u32 / 2;
    let mut residency = Residency::new(shape.clone(), n_slots, by_name(name, &shape));
    if let Some(frequency) = frequency {
        residency.prime(&Prior {
            frequency,
            n_tokens: 64.0,
        });
    }
    residency.fill_free(0..shape.n_total());
    let mut n_hits = 0;
    for _token in 0..12 {
        for (layer, weights) in (0..).zip(layers) {
            let experts = draw(&mut rng, weights, TOP_K);
            n_hits += route(&mut residency, layer, &experts);
        }
    }
    n_hits
}

/// Every policy makes something of a prior: at the start of the very workload that the prior
/// describes, over many of those, it hits more than without.
#[test]
fn a_true_prior_helps_at_the_start() {
    let mut rng = Rng(1);
    let workloads: Vec<_> = (0..48)
        .map(|_| {
            let layers: Vec<Vec<u32>> = (0..3).map(|_| skewed(&mut rng)).collect();
            let mut frequency = vec![0.0; layers.len() * N_EXPERTS as usize];
            const N_TOKENS: usize = 1000;
            for _ in 0..N_TOKENS {
                for (layer, weights) in layers.iter().enumerate() {
                    for expert in draw(&mut rng, weights, TOP_K) {
                        let index = layer * N_EXPERTS as usize + expert as usize;
                        frequency[index] += 1.0 / N_TOKENS as f32;
                    }
                }
            }
            (layers, frequency)
        })
        .collect();
    for name in names() {
        let hits = |is_primed: bool| -> usize {
            let runs = (0..).zip(&workloads).map(|(seed, (layers, frequency))| {
                let prior = is_primed.then_some(&frequency[..]);
                hits_at_start(&name, seed, layers, prior)
            });
            runs.sum()
        };
        let (with, without) = (hits(true), hits(false));
        assert!(
            with > without,
            "{name}: {with} with the prior, {without} without"
        );
    }
}

/// What was used most and last stays when the pool shrinks. With no slots nothing is kept, and after
/// growing again there is room for everything.
#[test]
fn shrinking_keeps_what_is_hot() {
    let shape = Shape::uniform(1, 32);
    for name in names() {
        let mut residency = Residency::new(shape.clone(), 24, by_name(&name, &shape));
        let hot = [(3, 1), (11, 1), (21, 1), (30, 1)];
        for expert in (0..32).filter(|expert| hot.iter().all(|h| h.0 != *expert)) {
            step(&mut residency, 1, &hot);
            step(&mut residency, 1, &[(expert, 1)]);
        }
        step(&mut residency, 1, &hot);
        let retired = residency.resize(8).unwrap();
        residency.validate();
        assert_eq!((retired.len(), residency.n_resident()), (16, 8), "{name}");
        assert_eq!(step(&mut residency, 1, &hot), (4, None), "{name}");
        assert_eq!(residency.resize(0).unwrap().len(), 8, "{name}");
        residency.validate();
        assert_eq!(step(&mut residency, 1, &hot), (0, None), "{name}");
        assert!(residency.resize(32).unwrap().is_empty(), "{name}");
        for expert in 0..32 {
            assert_eq!(step(&mut residency, 1, &[(expert, 1)]), (0, None), "{name}");
            residency.validate();
        }
        let all: Vec<(u32, u32)> = (0..32).map(|expert| (expert, 1)).collect();
        assert_eq!(step(&mut residency, 32, &all), (32, None), "{name}");
    }
}
