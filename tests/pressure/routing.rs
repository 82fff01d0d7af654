//! What hotset remembers of the routing does not grow beside the budget.

use crate::child::{Running, completion};
use crate::tiny::{self, Arch, Spec, Type};
use std::path::Path;

const MIB: u64 = 1 << 20;
/// What policies and trackers may take for all that they learn.
const LEARNT: u64 = 4 * MIB;
/// What docs/memory.md says that the log takes, and the comparison at the end.
const LOG: u64 = 8 * MIB;
const COMPARISON: u64 = 16 * MIB;

/// Many thin layers, of which a token picks many experts, in two pools.
const THIN: Spec = Spec {
    name: "thin",
    arch: Arch::Qwen3Moe,
    n_layer: 60,
    n_embd: 256,
    n_expert: 32,
    top_k: 16,
    n_ff: 32,
    types: &[[Type::Q8_0; 3], [Type::F16; 3]],
    seed: 5,
    splits: 1,
};

/// The most anonymous memory of a process that generates `n` tokens.
fn most_bytes(model: &Path, stats: &str, n: &str) -> u64 {
    let vars = [
        ("HOTSET_RAM", "100%"),
        ("HOTSET_STATS", stats),
        ("HOTSET_PREFETCH", "off"),
    ];
    // With one thread: two that sleep at each barrier take minutes where a core wakes late.
    let args = [
        "-c",
        "1280",
        "-n",
        n,
        "--temp",
        "0",
        "--no-warmup",
        "-t",
        "1",
    ];
    let mut most = 0;
    let running = Running::start(completion(model, &vars, &args));
    let ended = running.wait_watching(|running| {
        let status = std::fs::read_to_string(format!("/proc/{}/status", running.id()));
        let line = |text: &str| {
            let line = text.lines().find_map(|l| l.strip_prefix("RssAnon:"))?;
            line.trim().strip_suffix(" kB")?.parse::<u64>().ok()
        };
        most = status.ok().and_then(|s| line(&s)).unwrap_or(0).max(most);
    });
    assert!(ended.status.success(), "{}", ended.stderr);
    let has_table = ended.stderr.contains("hit rate on ");
    assert_eq!(has_table, stats == "exit", "{}", ended.stderr);
    most << 10
}

/// 960,000 experts, of which a list would take 9 MiB, and as much again to be compared.
#[test]
fn what_was_routed_takes_what_it_should() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let model = tiny::write(&THIN, dir.path());
    for (stats, allowed) in [("off", LEARNT), ("exit", LEARNT + LOG + COMPARISON)] {
        let [few, many] = ["20", "1000"].map(|n| most_bytes(&model, stats, n));
        let grown = many.saturating_sub(few);
        let about = format!("{stats}: {few} bytes, and {grown} more after 1000 tokens");
        println!("{about}");
        assert!(grown <= allowed, "{about}");
    }
}
