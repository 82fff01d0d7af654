//! Decisions are the same on every machine.

use crate::names;
use crate::world::{RolledBack, run};
use std::path::Path;

/// FNV-1a.
fn hash(texts: &[String]) -> u64 {
    let bytes = texts.iter().flat_map(|text| text.bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// One line for each policy: its name and a hash of all its plans in some runs, without what a rollback
/// may leave behind. A policy that
/// changes on purpose gets a new line by `HOTSET_GOLDEN=write cargo test --test conformance`.
#[test]
fn decisions_are_the_golden_ones() {
    let mut actual = String::new();
    for name in names() {
        let plans = |seed| run(&name, seed, RolledBack::Elsewhere);
        let plans: Vec<String> = (0..16).flat_map(plans).collect();
        actual += &format!("{name} {:016x}\n", hash(&plans));
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/decisions.golden.txt");
    if std::env::var("HOTSET_GOLDEN").is_ok_and(|value| value == "write") {
        std::fs::write(&path, &actual).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap();
    assert!(
        actual == golden,
        "{} says\n{golden}\nbut the policies decide\n{actual}",
        path.display()
    );
}
