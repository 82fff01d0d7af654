//! Three lanes plan, roll back, commit and release events at random on one residency, which sometimes
//! gets a prior, is resized or filled, and is not learnt all of an event, or not at once.

use crate::model::{Model, OwnedEvent, Rng};
use crate::{by_name, prime, random_shape};
use hotset::residency::{Buffers, Committed, Plan, Residency};

/// What becomes of a plan that is not committed.
#[derive(Clone, Copy, PartialEq)]
pub enum RolledBack {
    /// It is planned and rolled back, of which the policy may notice something.
    Indeed,
    /// It is planned in another world of the same past. Here the policy hears of the event, and that is
    /// all, so that no later decision depends on what a rollback leaves behind.
    Elsewhere,
    /// The policy hears of the event. Nobody asks what was planned.
    Unseen,
}

struct World {
    rng: Rng,
    residency: Residency,
    model: Model,
    lanes: [Option<Committed>; 3],
}

impl World {
    fn new(name: &str, seed: u64) -> Self {
        let mut rng = Rng(seed);
        let shape = random_shape(&mut rng);
        let n_slots = rng.below(shape.n_total() as u32 + 3);
        let mut residency = Residency::new(shape.clone(), n_slots, by_name(name, &shape));
        prime(&mut residency, &mut rng);
        Self {
            rng,
            model: Model::new(&shape, n_slots),
            residency,
            lanes: [const { None }; 3],
        }
    }

    /// Returns what was planned, if anything was. `elsewhere` makes this world again.
    fn step(
        &mut self,
        how: RolledBack,
        label: &str,
        elsewhere: impl Fn() -> Self,
    ) -> Option<String> {
        let Self {
            rng,
            residency,
            model,
            lanes,
        } = self;
        let shape = residency.shape().clone();
        let n_slots_max = shape.n_total() as u32 + 3;
        let lane = &mut lanes[rng.below(3) as usize];
        if let Some(plan) = lane.take() {
            model.release(&plan);
            residency.release(plan);
        } else if rng.below(40) == 0 {
            prime(residency, rng);
        } else if rng.below(20) == 0 {
            model.resize(residency, rng.below(n_slots_max) as usize, label);
        } else if rng.below(40) == 0 {
            model.fill_free(residency, label);
        } else if rng.below(20) == 0 {
            let owned = OwnedEvent::random(rng, &shape);
            residency.learn(&owned.event()).unwrap();
        } else {
            let owned = OwnedEvent::random(rng, &shape);
            let event = owned.event();
            let learnt = if rng.below(8) == 0 {
                owned.half()
            } else {
                event
            };
            let is_rolled_back = rng.below(4) == 0;
            if is_rolled_back && how != RolledBack::Indeed {
                let decision = (how == RolledBack::Elsewhere).then(|| {
                    let mut other = elsewhere().residency;
                    let planned = other.plan_learning(&event, &learnt, Buffers::default());
                    decision(&planned.unwrap())
                });
                residency.learn(&learnt).unwrap();
                return decision;
            }
            let before = model.clone();
            let planned = residency
                .plan_learning(&event, &learnt, Buffers::default())
                .unwrap();
            let decision = decision(&planned);
            model.follow(&event, &planned, label);
            if how != RolledBack::Unseen {
                model.check(residency, label);
            }
            if is_rolled_back {
                residency.rollback(planned);
                *model = before;
            } else {
                model.commit(&event, &planned);
                *lane = Some(residency.commit(planned));
            }
            return Some(decision);
        }
        None
    }
}

fn decision(plan: &Plan) -> String {
    let (hits, fills) = (&plan.hits, &plan.fills);
    format!("{hits:?} {fills:?} {:?}\n", plan.staged)
}

/// Returns what each plan decided.
pub fn run(name: &str, seed: u64, how: RolledBack) -> Vec<String> {
    let mut world = World::new(name, seed);
    let mut decisions = Vec::new();
    for step in 0..300 {
        let label = format!("{name}, seed {seed}, step {step}");
        let elsewhere = || {
            let mut world = World::new(name, seed);
            for _ in 0..step {
                world.step(RolledBack::Unseen, &label, || unreachable!());
            }
            world
        };
        decisions.extend(world.step(how, &label, elsewhere));
        world.model.check(&world.residency, &label);
    }
    decisions
}
