//! What is held elsewhere leaves first, whatever the policy, so that the capacities of two tiers add up.

use crate::{by_name, names};
use hotset::expert::{Event, ExpertId, Shape};
use hotset::residency::{Plan, Residency};

fn id(expert: u32) -> ExpertId {
    ExpertId { layer: 0, expert }
}

fn event(experts: &[u32]) -> Event<'_> {
    Event {
        layer: 0,
        n_tokens: 1,
        experts,
        rows: &[1; 8][..experts.len()],
        ranks: &[],
    }
}

/// A pool of four slots in which 0 to 3 have been used.
fn filled(name: &str) -> (Residency, Plan) {
    let shape = Shape::new(&[12]);
    let mut residency = Residency::new(shape.clone(), 4, by_name(name, &shape));
    let mut plan = Plan::default();
    for expert in 0..4 {
        use_one(&mut residency, &mut plan, expert);
    }
    (residency, plan)
}

/// Uses an expert; returns whose place it took.
fn use_one(residency: &mut Residency, plan: &mut Plan, expert: u32) -> Option<u32> {
    residency.plan(&event(&[expert]), plan).unwrap();
    residency.validate();
    let victim = plan.fills.first().and_then(|fill| fill.victim);
    residency.commit(plan);
    residency.release(plan);
    victim.map(|id| id.expert)
}

#[test]
fn the_oldest_spare_goes_first() {
    for name in names() {
        let (mut residency, mut plan) = filled(&name);
        for expert in [2, 0, 3, 0, 7] {
            residency.spare(id(expert));
        }
        assert_eq!(residency.n_spare(), 3, "{name}: 7 is not resident");
        let victims = [4, 5, 6].map(|expert| use_one(&mut residency, &mut plan, expert));
        assert_eq!(victims, [2, 0, 3].map(Some), "{name}");
        assert_eq!(residency.n_spare(), 0, "{name}");
    }
}

#[test]
fn what_is_used_or_kept_is_no_spare() {
    for name in names() {
        let (mut residency, mut plan) = filled(&name);
        for expert in [1, 2, 3] {
            residency.spare(id(expert));
        }
        use_one(&mut residency, &mut plan, 1);
        residency.keep(id(2));
        residency.keep(id(9));
        assert_eq!(use_one(&mut residency, &mut plan, 4), Some(3), "{name}");
        // As new as it was before it was a spare: the policy chooses again.
        let (mut plain, mut other) = filled(&name);
        use_one(&mut plain, &mut other, 1);
        assert_eq!(residency.n_spare(), 0, "{name}");
        assert!(residency.is_resident(id(2)), "{name}");
    }
}

#[test]
fn pinned_and_expected_spares_stay() {
    for name in names() {
        let (mut residency, mut plan) = filled(&name);
        for expert in [0, 1, 2] {
            residency.spare(id(expert));
        }
        let mut pinning = Plan::default();
        residency.plan(&event(&[0]), &mut pinning).unwrap();
        residency.commit(&mut pinning);
        residency.spare(id(0));
        residency.expect([id(1)]);
        assert_eq!(use_one(&mut residency, &mut plan, 4), Some(2), "{name}");
        // Neither is a spare that can go; what is left and not expected is 3 and 4.
        let victim = use_one(&mut residency, &mut plan, 5);
        assert!([Some(3), Some(4)].contains(&victim), "{name}: {victim:?}");
        residency.expect([]);
        residency.release(&mut pinning);
        assert_eq!(use_one(&mut residency, &mut plan, 6), Some(1), "{name}");
        assert_eq!(use_one(&mut residency, &mut plan, 7), Some(0), "{name}");
    }
}

/// A plan that evicted spares is undone, and the policy decides as if it had not been.
#[test]
fn a_rollback_brings_spares_back() {
    for name in names() {
        let (mut residency, mut plan) = filled(&name);
        let (mut plain, mut other) = filled(&name);
        residency.spare(id(3));
        residency.spare(id(1));
        residency.plan(&event(&[5, 6]), &mut plan).unwrap();
        residency.rollback(&mut plan);
        residency.validate();
        for expert in [1, 3] {
            residency.keep(id(expert));
        }
        // What was routed stays learnt.
        plain.teach(&event(&[5, 6])).unwrap();
        for expert in [7, 8, 5, 9, 6, 10, 11, 0, 7] {
            let victims = [
                use_one(&mut residency, &mut plan, expert),
                use_one(&mut plain, &mut other, expert),
            ];
            assert_eq!(victims[0], victims[1], "{name} {expert}");
        }
    }
}

/// How often a disk is read, when a device holds `n_device` experts and memory `n_memory`: half of all tokens use
/// one of the experts of the first group, the others one of the rest, each group in a circle. Counted after the
/// first half.
fn n_disk_reads(n_device: u32, n_memory: u32, groups: [u32; 2], has_spares: bool) -> u32 {
    let shape = Shape::new(&[groups[0] + groups[1]]);
    let new = |n| Residency::new(shape.clone(), n, by_name("lfu", &shape));
    let (mut device, mut memory) = (new(n_device), new(n_memory));
    let (mut upper, mut lower) = (Plan::default(), Plan::default());
    let mut n_reads = 0;
    for token in 0..4000 {
        let expert = match token % 2 {
            0 => token / 2 % groups[0],
            _ => groups[0] + token / 2 % groups[1],
        };
        let picked = event(std::slice::from_ref(&expert));
        device.plan(&picked, &mut upper).unwrap();
        let missing: Vec<u32> = upper.fills.iter().map(|fill| fill.expert).collect();
        let asked = event(&missing);
        memory.plan_taught(&asked, &picked, &mut lower).unwrap();
        if token >= 2000 {
            n_reads += (lower.fills.len() + lower.bypassed.len()) as u32;
        }
        if has_spares {
            memory.spare(id(expert));
            let victims = upper.fills.iter().filter_map(|fill| fill.victim);
            victims.for_each(|victim| memory.keep(victim));
        }
        for (residency, plan) in [(&mut device, &mut upper), (&mut memory, &mut lower)] {
            residency.commit(plan);
            residency.release(plan);
            residency.validate();
        }
    }
    n_reads
}

/// One slot of the device is what its misses pass through.
#[test]
fn capacities_add_up() {
    assert_eq!(n_disk_reads(9, 24, [8, 24], true), 0);
    assert!(n_disk_reads(9, 24, [8, 24], false) > 200);
    assert!(n_disk_reads(9, 22, [8, 24], true) > 0);
}
