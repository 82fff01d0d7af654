//! Every policy in the registry must pass these, inside the residency it runs in. None of them
//! names a policy.

mod golden;
mod learning;
mod misuse;
mod model;
mod spares;

use hotset::expert::{Event, ExpertId, Shape};
use hotset::policy::{self, Policy, Prior, REGISTRY};
use hotset::residency::{Plan, Residency};
use model::{Model, OwnedEvent, Rng};

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

/// Three lanes plan, undo, commit and release events at random on one residency, which sometimes
/// gets a prior, is resized or filled, and is not taught all of an event, or not at once.
/// Returns what each plan decided.
fn run(name: &str, seed: u64) -> Vec<String> {
    let mut rng = Rng(seed);
    let shape = random_shape(&mut rng);
    let n_slots_max = shape.n_total() as u32 + 3;
    let n_slots = rng.below(n_slots_max);
    let mut residency = Residency::new(shape.clone(), n_slots, by_name(name, &shape));
    let mut model = Model::new(&shape, n_slots);
    prime(&mut residency, &mut rng);
    let mut lanes = [(); 3].map(|()| Plan::default());
    let mut decisions = Vec::new();
    for step in 0..300 {
        let label = format!("{name}, seed {seed}, step {step}");
        let plan = &mut lanes[rng.below(3) as usize];
        if plan.in_flight() {
            model.release(plan);
            residency.release(plan);
        } else if rng.below(40) == 0 {
            prime(&mut residency, &mut rng);
        } else if rng.below(20) == 0 {
            model.resize(&mut residency, rng.below(n_slots_max) as usize, &label);
        } else if rng.below(40) == 0 {
            model.fill_free(&mut residency, &label);
        } else if rng.below(20) == 0 {
            let owned = OwnedEvent::random(&mut rng, &shape);
            residency.teach(&owned.event()).unwrap();
        } else {
            let owned = OwnedEvent::random(&mut rng, &shape);
            let event = owned.event();
            let before = model.clone();
            match rng.below(8) {
                0 => residency.plan_taught(&event, &owned.half(), plan).unwrap(),
                _ => residency.plan(&event, plan).unwrap(),
            }
            let (hits, fills) = (&plan.hits, &plan.fills);
            decisions.push(format!("{hits:?} {fills:?} {:?}\n", plan.bypassed));
            model.follow(&event, plan, &label);
            model.check(&residency, &label);
            if rng.below(4) == 0 {
                residency.rollback(plan);
                model = before;
            } else {
                model.commit(&event, plan);
                residency.commit(plan);
            }
        }
        model.check(&residency, &label);
    }
    decisions
}

/// The model is a plain map: a policy may choose any unpinned resident as a victim, and that is all
/// it chooses.
#[test]
fn every_plan_obeys_the_rules() {
    for name in names() {
        for seed in 0..64 {
            run(&name, seed);
        }
    }
}

#[test]
fn same_events_same_decisions() {
    for name in names() {
        for seed in 0..8 {
            assert!(run(&name, seed) == run(&name, seed), "{name}, seed {seed}");
        }
    }
}

/// Hears every event twice.
struct Twice(Box<dyn Policy>);

impl Policy for Twice {
    fn resize(&mut self, n_slots: u32) {
        self.0.resize(n_slots);
    }

    fn prime(&mut self, prior: &Prior) {
        self.0.prime(prior);
    }

    fn route(&mut self, event: &Event) {
        self.0.route(event);
        self.0.route(event);
    }

    fn insert(&mut self, id: ExpertId) {
        self.0.insert(id);
    }

    fn remove(&mut self, id: ExpertId) {
        self.0.remove(id);
    }

    fn restore(&mut self, id: ExpertId) {
        self.0.restore(id);
    }

    fn evict(&mut self, pinned: &dyn Fn(ExpertId) -> bool) -> Option<ExpertId> {
        self.0.evict(pinned)
    }

    fn validate(&self) {
        self.0.validate();
    }
}

/// A rollback leaves nothing behind but what the policy heard: undoing the first of two equal plans
/// comes to the same as hearing the event twice and planning once.
#[test]
fn a_rolled_back_plan_changes_no_later_one() {
    for name in names() {
        for seed in 0..64 {
            let mut rng = Rng(seed);
            let shape = random_shape(&mut rng);
            let n_slots = 1 + rng.below(shape.n_total() as u32);
            let twice = Box::new(Twice(by_name(&name, &shape)));
            let mut undone = Residency::new(shape.clone(), n_slots, by_name(&name, &shape));
            let mut once = Residency::new(shape.clone(), n_slots, twice);
            if let Some(frequency) = random_frequency(&mut rng, &shape) {
                let prior = Prior {
                    frequency: &frequency,
                    n_tokens: 8.0,
                };
                undone.prime(&prior);
                once.prime(&prior);
            }
            let (mut a, mut b) = (Plan::default(), Plan::default());
            for step in 0..150 {
                if rng.below(15) == 0 {
                    let n_slots = 1 + rng.below(shape.n_total() as u32);
                    for residency in [&mut undone, &mut once] {
                        residency.resize(n_slots).unwrap();
                        residency.fill_free();
                    }
                }
                let owned = OwnedEvent::random(&mut rng, &shape);
                let event = owned.event();
                undone.plan(&event, &mut a).unwrap();
                undone.rollback(&mut a);
                undone.validate();
                undone.plan(&event, &mut a).unwrap();
                once.plan(&event, &mut b).unwrap();
                assert_eq!(
                    (&a.hits, &a.fills, &a.bypassed),
                    (&b.hits, &b.fills, &b.bypassed),
                    "{name}, seed {seed}, step {step}"
                );
                for (residency, plan) in [(&mut undone, &mut a), (&mut once, &mut b)] {
                    residency.commit(plan);
                    residency.release(plan);
                }
            }
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
                ranks: &[],
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
    let mut plan = Plan::default();
    let event = Event {
        layer: 0,
        n_tokens,
        experts: &experts,
        rows: &rows,
        ranks: &[],
    };
    residency.plan(&event, &mut plan).unwrap();
    residency.commit(&mut plan);
    residency.release(&mut plan);
    let victim = plan.fills.iter().find_map(|fill| fill.victim);
    (plan.hits.len(), victim.map(|id| id.expert))
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
