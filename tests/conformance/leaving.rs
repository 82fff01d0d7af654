//! How experts leave: chosen by the policy, or by others.

use crate::model::{Model, OwnedEvent, Rng};
use crate::world::{RolledBack, run};
use crate::{by_name, names, random_shape};
use hotset::expert::ExpertId;
use hotset::residency::{Buffers, Planned, Residency};
use std::collections::BTreeSet;

/// Against a plain set of residents: who was told to leave is never chosen, whoever is chosen was
/// resident and not pinned, and nobody is chosen only if all are pinned.
#[test]
fn who_has_left_is_not_chosen() {
    for name in names() {
        for seed in 0..32 {
            let mut rng = Rng(seed);
            let shape = random_shape(&mut rng);
            let n_total = shape.n_total() as u32;
            let n_slots = 1 + rng.below(n_total);
            let mut policy = by_name(&name, &shape);
            policy.resize(n_slots);
            let mut residents: BTreeSet<ExpertId> = BTreeSet::new();
            for step in 0..400 {
                let label = format!("{name}, seed {seed}, step {step}");
                let any = shape.id(rng.below(n_total) as usize);
                match rng.below(4) {
                    0 => policy.route(&OwnedEvent::random(&mut rng, &shape).event()),
                    1 if residents.remove(&any) => policy.evict_this(any),
                    2 => {
                        let pins = rng.below(1 << n_total.min(16));
                        let pinned = |id: ExpertId| pins >> shape.index(id).min(31) & 1 == 1;
                        let free = residents.iter().filter(|&&id| !pinned(id)).count();
                        let victim = policy.evict(&pinned);
                        assert_eq!(victim.is_some(), free > 0, "{label}: {victim:?}");
                        if let Some(id) = victim {
                            assert!(!pinned(id), "{label}: {id} is pinned");
                            assert!(residents.remove(&id), "{label}: {id} had left");
                        }
                    }
                    _ if residents.len() < n_slots as usize && residents.insert(any) => {
                        policy.insert(any);
                    }
                    _ => {}
                }
                policy.validate();
            }
            let left = std::iter::from_fn(|| policy.evict(&|_| false)).collect();
            assert_eq!(residents, left, "{name}, seed {seed}");
        }
    }
}

/// Plans of several lanes that wait at a time. Each is committed, or rolled back unless another one uses
/// what it fills; sizes change meanwhile.
#[test]
fn plans_are_rolled_back_in_any_order() {
    let mut n_late = 0;
    for name in names() {
        for seed in 0..32 {
            let mut rng = Rng(seed);
            let shape = random_shape(&mut rng);
            let n_slots = 1 + rng.below(shape.n_total() as u32);
            let mut residency = Residency::new(shape.clone(), n_slots, by_name(&name, &shape));
            let mut model = Model::new(&shape, n_slots);
            let mut waiting: Vec<(OwnedEvent, Planned)> = Vec::new();
            for step in 0..200 {
                let label = format!("{name}, seed {seed}, step {step}");
                if rng.below(10) == 0 {
                    let n_slots = rng.below(shape.n_total() as u32 + 1) as usize;
                    model.resize(&mut residency, n_slots, &label);
                } else if waiting.len() < 3 && rng.below(2) == 0 {
                    let owned = OwnedEvent::random(&mut rng, &shape);
                    let planned = residency.plan(&owned.event(), Buffers::default()).unwrap();
                    model.follow(&owned.event(), &planned, &label);
                    waiting.push((owned, planned));
                } else if !waiting.is_empty() {
                    let at = rng.below(waiting.len() as u32) as usize;
                    let is_latest = at + 1 == waiting.len();
                    let (owned, planned) = waiting.remove(at);
                    let is_shared = planned.fills.iter().any(|fill| model.pins[&fill.slot] > 1);
                    if is_shared || rng.below(3) == 0 {
                        model.commit(&owned.event(), &planned);
                        model.release(&planned);
                        let committed = residency.commit(planned);
                        residency.release(committed);
                    } else {
                        n_late += u32::from(!is_latest && !planned.fills.is_empty());
                        model.rollback(&planned);
                        residency.rollback(planned);
                    }
                }
                model.check(&residency, &label);
            }
        }
    }
    assert!(
        n_late > 100,
        "{n_late} were rolled back after another was planned"
    );
}

/// Whose ranking depends on what was resident and evicted, and not only on what was routed. To compare
/// with, all of them.
const NOTICE_ROLLBACKS: [&str; 5] = ["slru", "classlru", "lfuda", "s3fifo", "tinylfu"];

/// For all others a plan that is rolled back is an event that was heard of, and nothing else.
#[test]
fn a_rolled_back_plan_changes_no_later_one() {
    for name in names() {
        let is_noticed = (0..12).any(|seed| {
            run(&name, seed, RolledBack::Indeed) != run(&name, seed, RolledBack::Elsewhere)
        });
        let expected = NOTICE_ROLLBACKS.contains(&name.as_str());
        assert_eq!(is_noticed, expected, "{name}");
    }
}
