//! Bad events, plans used out of order, and names that no policy has.

use crate::names;
use hotset::expert::{Event, Shape};
use hotset::policy::{self, REGISTRY};
use hotset::residency::{Buffers, Counts, Residency};
use std::collections::BTreeSet;

#[test]
fn a_refused_event_changes_nothing() {
    let shape = Shape::new(&[4, 2]);
    for name in names() {
        let mut residency =
            Residency::new(shape.clone(), 3, policy::by_name(&name, &shape).unwrap());
        let refused = [
            (2, 1, &[0][..], &[1][..], "layer 2 is outside 0..2"),
            (1, 1, &[0, 2], &[1, 1], "expert 2 is outside 0..2"),
            (
                0,
                1,
                &[1, 0],
                &[1, 1],
                "routing event of layer 0: expert 0 is not above expert 1",
            ),
            (
                0,
                1,
                &[1, 1],
                &[1, 1],
                "routing event of layer 0: expert 1 is not above expert 1",
            ),
            (
                0,
                1,
                &[1, 2],
                &[1],
                "routing event of layer 0: 2 experts but 1 row counts",
            ),
            (
                0,
                1,
                &[1, 2],
                &[1, 0],
                "routing event of layer 0: 1 tokens and rows [1, 0] must be at least 1",
            ),
            (
                0,
                0,
                &[1],
                &[1],
                "routing event of layer 0: 0 tokens and rows [1] must be at least 1",
            ),
        ];
        for (layer, n_tokens, experts, rows, message) in refused {
            let event = Event {
                layer,
                n_tokens,
                experts,
                rows,
                ..Event::default()
            };
            let error = residency.plan(&event, Buffers::default()).unwrap_err();
            assert_eq!(error.to_string(), message);
            let top_k = (residency.n_pinned(), residency.n_resident());
            assert_eq!(top_k, (0, 0), "{name}: {message}");
            residency.validate();
        }
        let event = Event {
            layer: 0,
            n_tokens: 1,
            experts: &[1, 2],
            rows: &[1, 1],
            ranks: &[0],
            ..Event::default()
        };
        let error = residency.plan(&event, Buffers::default()).unwrap_err();
        let message = "routing event of layer 0: 2 experts but 1 ranks";
        assert_eq!(error.to_string(), message);
        let top_k = (residency.n_pinned(), residency.n_resident());
        assert_eq!(top_k, (0, 0), "{name}");
        assert_eq!(residency.counts(), Counts::default(), "{name}");
    }
}

/// Other wrong orders do not compile. This one would empty a slot that is being read.
#[test]
fn a_fill_that_others_use_is_not_rolled_back() {
    let shape = Shape::uniform(1, 4);
    for name in names() {
        let policy = policy::by_name(&name, &shape).unwrap();
        let mut residency = Residency::new(shape.clone(), 2, policy);
        let event = Event {
            layer: 0,
            n_tokens: 1,
            experts: &[1],
            rows: &[1],
            ..Event::default()
        };
        let first = residency.plan(&event, Buffers::default()).unwrap();
        let second = residency.plan(&event, Buffers::default()).unwrap();
        let second = residency.commit(second);
        let rollback = std::panic::AssertUnwindSafe(|| residency.rollback(first));
        assert!(std::panic::catch_unwind(rollback).is_err(), "{name}");
        residency.validate();
        assert_eq!(residency.n_pinned(), 1, "{name}");
        residency.release(second);
    }
}

#[test]
fn names_are_found_or_refused() {
    let shape = Shape::uniform(1, 4);
    for spec in REGISTRY {
        let value = |name: &str| {
            policy::find(name)
                .map(|(found, value)| (found.name, value))
                .ok()
        };
        assert_eq!(
            value(spec.name),
            Some((spec.name, spec.param.map_or(0, |p| p.default)))
        );
        let mut refused: Vec<String> = ["", "+1", "-1", " 1", "1 ", "x", "1:1", "99999999999"]
            .map(|number| format!("{}:{number}", spec.name))
            .into();
        refused.push(spec.name.to_uppercase());
        refused.push(format!(" {}", spec.name));
        match spec.param {
            Some(p) => {
                assert!(p.min <= p.default && p.default <= p.max, "{}", spec.name);
                for number in [p.min, p.max] {
                    assert_eq!(
                        value(&format!("{}:{number}", spec.name)),
                        Some((spec.name, number))
                    );
                }
                refused.push(format!("{}:{}", spec.name, p.max + 1));
                refused.extend(
                    p.min
                        .checked_sub(1)
                        .map(|number| format!("{}:{number}", spec.name)),
                );
            }
            None => refused.push(format!("{}:1", spec.name)),
        }
        for name in refused {
            let Err(error) = policy::by_name(&name, &shape) else {
                panic!("`{name}` is accepted");
            };
            let error = error.to_string();
            assert!(
                error.starts_with(&format!("HOTSET_POLICY={name}: must be ")),
                "{error}"
            );
            assert!(policy::find(&name).is_err(), "{name}");
        }
    }
    let error = policy::find("fifo")
        .err()
        .expect("no such policy")
        .to_string();
    for spec in REGISTRY {
        let range = spec.param.map_or(String::new(), |p| {
            format!(
                "[:{}, {} to {}, default {}]",
                p.name, p.min, p.max, p.default
            )
        });
        assert!(error.contains(&format!("{}{range}", spec.name)), "{error}");
    }
    let distinct: BTreeSet<&str> = REGISTRY.iter().map(|spec| spec.name).collect();
    assert_eq!(distinct.len(), REGISTRY.len(), "two policies share a name");
}
