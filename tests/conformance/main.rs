//! Every policy in the registry must pass these, inside the residency it runs in. One of them names policies,
//! to say which notice a rollback.

mod golden;
mod learning;
mod leaving;
mod many;
mod misuse;
mod model;
mod spares;
mod swapped;
mod world;

use hotset::expert::{Event, Shape};
use hotset::policy::{self, Policy, Prior, REGISTRY};
use hotset::residency::{Buffers, Residency};
use model::Rng;
use world::{RolledBack, run};

/// Each policy as it comes, and with the ends of its parameter's range.
fn names() -> Vec<String> {
    let of_spec = |spec: &policy::Spec| {
        let ends = spec.param.map(|p| [p.min, p.max]).into_iter().flatten();
        let with_number = ends.map(|value| format!("{}:{value}", spec.name));
        std::iter::once(spec.name.to_string())
            .chain(with_number)
            .collect::<Vec<_>>()
    };
    REGISTRY.iter().flat_map(of_spec).collect()
}

fn by_name(name: &str, shape: &Shape) -> Box<dyn Policy> {
    policy::by_name(name, shape).unwrap()
}

/// Up to four layers of different sizes.
fn random_shape(rng: &mut Rng) -> Shape {
    let n_experts: Vec<u32> = (0..=rng.below(4)).map(|_| 1 + rng.below(12)).collect();
    Shape::new(&n_experts)
}

/// How often a token picks each expert, if there is a prior at all: few different values, so that
/// there are ties.
fn random_frequency(rng: &mut Rng, shape: &Shape) -> Option<Vec<f32>> {
    let mut share = |_| rng.below(5) as f32 / 4.0;
    let frequency = (0..shape.n_total()).map(&mut share).collect();
    (rng.below(2) == 0).then_some(frequency)
}

/// Gives a prior, or none.
fn prime(residency: &mut Residency, rng: &mut Rng) {
    let shape = residency.shape().clone();
    if let Some(frequency) = random_frequency(rng, &shape) {
        let n_tokens = 1.0 + rng.below(100) as f32;
        residency.prime(&Prior {
            frequency: &frequency,
            n_tokens,
        });
    }
}

/// The model is a plain map: a policy may choose any unpinned resident as a victim, and that is all
/// it chooses.
#[test]
fn every_plan_obeys_the_rules() {
    for name in names() {
        for seed in 0..64 {
            run(&name, seed, RolledBack::Indeed);
        }
    }
}

#[test]
fn same_events_same_decisions() {
    for name in names() {
        for seed in 0..8 {
            let [a, b] = [(); 2].map(|()| run(&name, seed, RolledBack::Indeed));
            assert!(a == b, "{name}, seed {seed}");
        }
    }
}

/// On routing without any pattern nothing beats chance: a policy that does has seen the future, one
/// that stays below it breaks its own residents.
#[test]
fn uniform_routing_hits_by_chance() {
    const N_EVENTS: u32 = 40_000;
    let shape = Shape::uniform(2, 32);
    for name in names() {
        for n_slots in [4, 16, 48] {
            let mut rng = Rng(u64::from(n_slots));
            let picks: Vec<(u32, [u32; 1])> = (0..N_EVENTS)
                .map(|_| (rng.below(2), [rng.below(32)]))
                .collect();
            let events = picks.iter().map(|(layer, expert)| Event {
                layer: *layer,
                n_tokens: 1,
                experts: expert,
                rows: &[1],
                ..Event::default()
            });
            let counts = hotset::replay::replay(events, &shape, n_slots, &name).unwrap();
            let chance = f64::from(n_slots) / 64.0;
            let rate = counts.decode.hits as f64 / f64::from(N_EVENTS);
            let sigma = (chance * (1.0 - chance) / f64::from(N_EVENTS)).sqrt();
            assert!(
                (rate - chance).abs() < 4.0 * sigma,
                "{name}, {n_slots} slots: {rate}, not {chance}"
            );
        }
    }
}

/// Plans, commits and releases one event, each expert with its rows; returns the plan's hits and its
/// first victim.
fn step(residency: &mut Residency, n_tokens: u32, picks: &[(u32, u32)]) -> (usize, Option<u32>) {
    let (experts, rows): (Vec<u32>, Vec<u32>) = picks.iter().copied().unzip();
    let event = Event {
        layer: 0,
        n_tokens,
        experts: &experts,
        rows: &rows,
        ..Event::default()
    };
    let planned = residency.plan(&event, Buffers::default()).unwrap();
    let victim = planned.fills.iter().find_map(|fill| fill.victim);
    let outcome = (planned.hits.len(), victim.map(|id| id.expert));
    let committed = residency.commit(planned);
    residency.release(committed);
    outcome
}

/// A prompt that picks every expert for every token pushes out nothing that generation uses, and what
/// generation misses then pushes out what only the prompt brought in, its coldest experts first.
#[test]
fn a_prompt_pushes_nothing_out() {
    let shape = Shape::uniform(1, 16);
    for name in names() {
        let mut residency = Residency::new(shape.clone(), 8, by_name(&name, &shape));
        let generated = [(0, 1), (1, 1), (2, 1), (3, 1)];
        for _ in 0..3 {
            step(&mut residency, 1, &generated);
        }
        let prompt: Vec<(u32, u32)> = (0..16).map(|expert| (expert, 200 - 5 * expert)).collect();
        step(&mut residency, 200, &prompt);
        let after = step(&mut residency, 1, &generated);
        assert_eq!(after, (4, None), "{name}: the prompt pushed something out");
        for (expert, coldest) in [(15, 7), (14, 6)] {
            let (_, victim) = step(&mut residency, 1, &[(expert, 1)]);
            assert_eq!(victim, Some(coldest), "{name}: expert {expert} came");
        }
    }
}
