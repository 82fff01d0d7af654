//! A model in a group that has room for it, and in one that has not, when nobody has said what is to stream.

use crate::child::{Ended, completion, run};
use crate::group::Group;
use crate::heavy;
use std::path::Path;
use std::process::Command;

const MIB: u64 = 1 << 20;
/// Makes 570 MiB of experts.
const FACTOR: &str = "40";

/// `hotset run` in a group of this limit from its begin on.
fn complete(group: &Group, limit: u64, model: &Path, options: &str) -> Ended {
    group.limit(limit).unwrap();
    let like = completion(model, &[], &["-n", "16"]);
    let mut shell = Command::new("sh");
    for (name, value) in like.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    let enter = format!(
        "echo $$ > {}/cgroup.procs; exec \"$@\"",
        group.dir().display()
    );
    shell.args(["-c", &enter, "sh", env!("CARGO_BIN_EXE_hotset"), "run"]);
    shell.args(options.split_whitespace()).args(like.get_args());
    run(shell)
}

#[test]
fn what_a_group_has_no_room_for_is_streamed() {
    let Some((group, _dir, model)) = heavy("whole", FACTOR) else {
        return;
    };
    let has = |ended: &Ended, part: &str| ended.said().iter().any(|line| line.contains(part));
    let roomy = complete(&group, 2048 * MIB, &model, "--tool completion");
    assert!(
        has(&roomy, "fits in memory and is loaded as usual"),
        "{}",
        roomy.stderr
    );
    assert!(!has(&roomy, "layers stream"), "{}", roomy.stderr);
    let tight = complete(&group, 400 * MIB, &model, "--tool completion");
    assert!(has(&tight, "does not fit in memory"), "{}", tight.stderr);
    assert!(has(&tight, "layers stream"), "{}", tight.stderr);
    assert_eq!(tight.text(), roomy.text());
}
