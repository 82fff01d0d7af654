//! What is held elsewhere leaves first, whatever the policy, so that the capacities of two tiers add up.

use crate::{by_name, names};
use hotset::expert::{Event, ExpertId, Shape};
use hotset::residency::{Buffers, Residency};

fn id(expert: u32) -> ExpertId {
    ExpertId { layer: 0, expert }
}

fn event(experts: &[u32]) -> Event<'_> {
    Event {
        layer: 0,
        n_tokens: 1,
        experts,
        rows: &[1; 8][..experts.len()],
        ..Event::default()
    }
}

/// A pool of four slots in which 0 to 3 have been used.
fn filled(name: &str) -> Residency {
    let shape = Shape::new(&[12]);
    let mut residency = Residency::new(shape.clone(), 4, by_name(name, &shape));
    for expert in 0..4 {
        use_one(&mut residency, expert);
    }
    residency
}

/// Uses an expert; returns whose place it took.
fn use_one(residency: &mut Residency, expert: u32) -> Option<u32> {
    let planned = residency
        .plan(&event(&[expert]), Buffers::default())
        .unwrap();
    residency.validate();
    let victim = planned.fills.first().and_then(|fill| fill.victim);
    let committed = residency.commit(planned);
    residency.release(committed);
    victim.map(|id| id.expert)
}

#[test]
fn the_oldest_spare_goes_first() {
    for name in names() {
        let mut residency = filled(&name);
        for expert in [2, 0, 3, 0, 7] {
            residency.spare(id(expert));
        }
        assert_eq!(residency.n_spare(), 3, "{name}: 7 is not resident");
        let victims = [4, 5, 6].map(|expert| use_one(&mut residency, expert));
        assert_eq!(victims, [2, 0, 3].map(Some), "{name}");
        assert_eq!(residency.n_spare(), 0, "{name}");
    }
}

#[test]
fn what_is_used_or_kept_is_no_spare() {
    for name in names() {
        let mut residency = filled(&name);
        for expert in [1, 2, 3] {
            residency.spare(id(expert));
        }
        use_one(&mut residency, 1);
        residency.keep(id(2));
        residency.keep(id(9));
        assert_eq!(use_one(&mut residency, 4), Some(3), "{name}");
        assert_eq!(residency.n_spare(), 0, "{name}");
        assert!(residency.is_resident(id(2)), "{name}");
    }
}

#[test]
fn pinned_and_expected_spares_stay() {
    for name in names() {
        let mut residency = filled(&name);
        for expert in [0, 1, 2] {
            residency.spare(id(expert));
        }
        let pinning = residency.plan(&event(&[0]), Buffers::default()).unwrap();
        let pinning = residency.commit(pinning);
        residency.spare(id(0));
        residency.expect([id(1)]);
        assert_eq!(use_one(&mut residency, 4), Some(2), "{name}");
        // Neither is a spare that can go; what is left and not expected is 3 and 4.
        let victim = use_one(&mut residency, 5);
        assert!([Some(3), Some(4)].contains(&victim), "{name}: {victim:?}");
        residency.expect([]);
        residency.release(pinning);
        assert_eq!(use_one(&mut residency, 6), Some(1), "{name}");
        assert_eq!(use_one(&mut residency, 7), Some(0), "{name}");
    }
}

/// As residents like any other.
#[test]
fn a_rollback_brings_spares_back() {
    for name in names() {
        let mut residency = filled(&name);
        residency.spare(id(3));
        residency.spare(id(1));
        let slots =
            |residency: &Residency| [0, 1, 2, 3].map(|expert| residency.slot_of(id(expert)));
        let before = slots(&residency);
        let planned = residency.plan(&event(&[5, 6]), Buffers::default()).unwrap();
        assert_eq!(
            [1, 3].map(|expert| residency.is_resident(id(expert))),
            [false; 2],
            "{name}"
        );
        residency.rollback(planned);
        residency.validate();
        assert_eq!(slots(&residency), before, "{name}");
        assert_eq!(residency.n_spare(), 0, "{name}");
    }
}

/// How often a disk is read, when a device holds `n_device` experts and memory `n_memory`: half of all tokens use
/// one of the experts of the first group, the others one of the rest, each group in a circle. Counted after the
/// first half.
fn n_disk_reads(n_device: u32, n_memory: u32, groups: [u32; 2], has_spares: bool) -> u32 {
    let shape = Shape::new(&[groups[0] + groups[1]]);
    let new = |n| Residency::new(shape.clone(), n, by_name("lfu", &shape));
    let (mut device, mut memory) = (new(n_device), new(n_memory));
    let mut n_reads = 0;
    for token in 0..4000 {
        let expert = match token % 2 {
            0 => token / 2 % groups[0],
            _ => groups[0] + token / 2 % groups[1],
        };
        let picked = event(std::slice::from_ref(&expert));
        let upper = device.plan(&picked, Buffers::default()).unwrap();
        let missing: Vec<u32> = upper.fills.iter().map(|fill| fill.expert).collect();
        let asked = event(&missing);
        let lower = memory
            .plan_learning(&asked, &picked, Buffers::default())
            .unwrap();
        if token >= 2000 {
            n_reads += (lower.fills.len() + lower.staged.len()) as u32;
        }
        if has_spares {
            memory.spare(id(expert));
            let victims = upper.fills.iter().filter_map(|fill| fill.victim);
            victims.for_each(|victim| memory.keep(victim));
        }
        for (residency, planned) in [(&mut device, upper), (&mut memory, lower)] {
            let committed = residency.commit(planned);
            residency.release(committed);
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
