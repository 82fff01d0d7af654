//! Dense weights that are mapped are needed for each token, though the kernel could drop them.

use crate::child::{Running, completion};
use crate::group::Group;
use crate::tiny::{self, Arch, Spec, Type};
use std::path::Path;

const MIB: u64 = 1 << 20;
/// 105 MiB of dense weights, and 153 MiB of experts.
const DENSE: Spec = Spec {
    name: "dense",
    arch: Arch::Olmoe,
    n_layer: 6,
    n_embd: 2048,
    n_expert: 16,
    top_k: 2,
    n_ff: 256,
    types: &[[Type::Q8_0; 3]],
    seed: 3,
    splits: 1,
};
/// What buffers differ by, and what else the process has.
const FEW: u64 = 12 * MIB;

/// What it says that experts get, in bytes, and the terms that led to it; and its text.
fn generate(model: &Path, group: &Group, mode: &str) -> (u64, String, Vec<u8>) {
    let program = completion(
        model,
        &[("HOTSET_RAM", "auto")],
        &["-n", "8", "-ub", "32", "-b", "32", "--load-mode", mode],
    );
    let ended = Running::start(group.joining(&program)).wait();
    ended.text();
    let line = |begin: &str| {
        let mut lines = ended.said().into_iter();
        let line = lines.find(|line| line.starts_with(begin));
        line.unwrap_or_else(|| panic!("{begin}:\n{}", ended.stderr))
    };
    let start = line("hotset: 6 layers stream");
    let (_, through) = start.split_once(" through ").unwrap();
    let (number, _) = through.split_once(" MiB").expect("some mebibytes");
    let n_bytes = number.parse::<f64>().unwrap() * MIB as f64;
    let terms = line("hotset: auto: limit ").to_string();
    (n_bytes as u64, terms, ended.stdout)
}

#[test]
fn mapped_weights_leave_as_much_to_experts_as_those_that_are_read() {
    let Some(group) = Group::new("mapped") else {
        return;
    };
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let model = tiny::write(&DENSE, dir.path());
    group.limit(340 * MIB).unwrap();
    let (read, said, text) = generate(&model, &group, "none");
    assert!(
        (20 * MIB..150 * MIB).contains(&read),
        "some of them: {said}"
    );
    let (mapped, also_said, same) = generate(&model, &group, "mmap");
    assert!(mapped.abs_diff(read) <= FEW, "{said}\n{also_said}");
    assert!(text == same, "the same text");
    for said in [said, also_said] {
        // Each has a term for them.
        let weights = said.split_once("- weights ").expect("their term").1;
        let weights: u64 = weights.split(' ').next().unwrap().parse().unwrap();
        assert!((100..110).contains(&weights), "{said}");
    }
    drop(group);
}
