//! A policy takes the place of another one while experts are resident.

use crate::model::Rng;
use crate::{by_name, names};
use hotset::expert::{Event, ExpertId, Shape};
use hotset::pooled::Pooled;
use hotset::recent_events::RecentEvents;
use hotset::residency::Buffers;

const N_EXPERTS: u32 = 32;
const N_SLOTS: u32 = 8;
/// These are picked by nearly every token.
const HOT: [u32; 3] = [5, 11, 20];

/// A pool of one layer.
struct World {
    pool: Pooled,
    buffers: Buffers,
}

impl World {
    fn new(policy: &str) -> Self {
        let shape = Shape::uniform(1, N_EXPERTS);
        let recent = RecentEvents::new(0);
        Self {
            pool: Pooled::new(shape, N_SLOTS, policy, recent).unwrap(),
            buffers: Buffers::default(),
        }
    }

    /// A token picks these, ascending; returns what left for them.
    fn pick(&mut self, experts: &[u32]) -> Vec<u32> {
        let event = Event {
            layer: 0,
            n_tokens: 1,
            experts,
            rows: &[1; 4][..experts.len()],
            ..Event::default()
        };
        let residency = &mut self.pool.residency;
        let planned = residency
            .plan(&event, std::mem::take(&mut self.buffers))
            .unwrap();
        let committed = residency.commit(planned);
        let victims = committed.fills.iter().filter_map(|fill| fill.victim);
        let victims = victims.map(|victim| victim.expert).collect();
        self.buffers = residency.release(committed);
        self.pool.count(&event, false);
        self.pool.residency.validate();
        victims
    }

    fn resident(&self) -> Vec<u32> {
        let is_resident = |expert: &u32| {
            let id = ExpertId {
                layer: 0,
                expert: *expert,
            };
            self.pool.residency.is_resident(id)
        };
        (0..N_EXPERTS).filter(is_resident).collect()
    }

    fn run(&mut self, rng: &mut Rng, n_tokens: u32) {
        for _ in 0..n_tokens {
            let mut experts: Vec<u32> = HOT.into_iter().filter(|_| rng.below(8) > 0).collect();
            experts.push(rng.below(N_EXPERTS));
            experts.sort_unstable();
            experts.dedup();
            self.pick(&experts);
        }
    }

    fn swap(&mut self, policy: &str) {
        let shape = self.pool.residency.shape().clone();
        self.pool.rank_with(by_name(policy, &shape), None);
        self.pool.residency.validate();
    }
}

/// It finds what is resident, and knows what was picked: what is hot stays. From each to each.
#[test]
fn a_new_policy_knows_what_is_hot() {
    for before in names() {
        for after in names() {
            let label = format!("from {before} to {after}");
            let mut rng = Rng(7);
            let mut world = World::new(&before);
            world.run(&mut rng, 300);
            world.pick(&HOT);
            let resident = world.resident();
            world.swap(&after);
            assert_eq!(world.resident(), resident, "{label}");
            let cold = (0..N_EXPERTS)
                .find(|expert| !resident.contains(expert))
                .unwrap();
            let victims = world.pick(&[cold]);
            assert_eq!(victims.len(), 1, "{label}");
            assert!(
                !HOT.contains(&victims[0]),
                "{label}: {victims:?} left for {cold}"
            );
            world.run(&mut rng, 100);
        }
    }
}

/// Swapping is an event like others: the same ones give the same victims.
#[test]
fn swapping_is_deterministic() {
    for after in names() {
        let residents = [(); 2].map(|()| {
            let mut world = World::new(&names()[0]);
            let mut rng = Rng(3);
            world.run(&mut rng, 100);
            world.swap(&after);
            world.run(&mut rng, 100);
            world.resident()
        });
        assert_eq!(residents[0], residents[1], "{after}");
    }
}
