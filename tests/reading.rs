//! Disks that answer late, one by one, or not at first: the tokens are right, and a line says what is wrong.

#![cfg(all(feature = "llama", feature = "cli"))]

mod child;

use child::{Ended, StatsFile, completion, polyglot, run};
use std::sync::LazyLock;

/// What these give without hotset.
static RIGHT_TEXT: LazyLock<String> = LazyLock::new(|| {
    let stock = run(completion(&polyglot(), &[("HOTSET", "off")], ARGS));
    stock.text().into_owned()
});

const ARGS: &[&str] = &["-n", "24"];

/// A run that reads by `io` and suffers `fault`, and the calls that were made again.
fn suffer(io: &str, fault: &str) -> (Ended, u64) {
    let file = StatsFile::new();
    let json = file.path();
    let vars = [
        ("HOTSET_RAM", "30%"),
        ("HOTSET_IO", io),
        ("HOTSET_FAULT", fault),
        ("HOTSET_STATS", &json),
    ];
    let ended = run(completion(&polyglot(), &vars, ARGS));
    assert_eq!(ended.text(), *RIGHT_TEXT, "{io} {fault}");
    (ended, count_of(&file, "n_retries"))
}

fn count_of(file: &StatsFile, name: &str) -> u64 {
    file.read_streamed()[name].as_u64().expect("a count")
}

/// Lines of hotset's with all of `parts`.
fn n_lines(ended: &Ended, parts: &[&str]) -> usize {
    let mut lines = ended.said();
    lines.retain(|line| parts.iter().all(|part| line.contains(part)));
    lines.len()
}

#[test]
fn what_passes_changes_no_token_and_is_one_line() {
    for io in ["uring", "pread"] {
        for (fault, why) in [
            ("again=40", "Resource temporarily unavailable"),
            ("nomem=40", "Cannot allocate memory"),
        ] {
            let (ended, n_retries) = suffer(io, fault);
            assert!(n_retries > 0);
            let parts = [why, "offset", "polyglot-moe.gguf", "tried again"];
            assert_eq!(n_lines(&ended, &parts), 1, "{}", ended.stderr);
            assert_eq!(n_lines(&ended, &["tried again"]), 1, "{}", ended.stderr);
        }
        let (ended, n_retries) = suffer(io, "short=7");
        assert_eq!(n_retries, 0);
        assert_eq!(n_lines(&ended, &["tried again"]), 0, "{}", ended.stderr);
    }
}

#[test]
fn direct_reads_that_end_go_on_through_the_page_cache() {
    for io in ["uring", "pread"] {
        let (ended, _) = suffer(io, "direct=50");
        let n = n_lines(&ended, &["polyglot-moe.gguf", "page cache"]);
        assert_eq!(n, 1, "{}", ended.stderr);
    }
}

#[test]
fn a_read_that_does_not_end_says_so() {
    let (ended, _) = suffer("auto", "stall_ms=13500");
    let parts = [
        "reading ",
        " bytes at offset ",
        "polyglot-moe.gguf",
        "(tensor 'blk.",
        "_exps.weight' expert ",
    ];
    let said = |what: &str| n_lines(&ended, &[&parts[..], &[what]].concat());
    assert_eq!(said(") takes 1"), 1, "{}", ended.stderr);
    assert_eq!(said(") has ended: it took 1"), 1, "{}", ended.stderr);
}

#[test]
fn where_io_uring_is_serial_auto_reads_with_threads() {
    let fault = "serial_ms=6";
    let (ended, _) = suffer("auto", fault);
    let n = n_lines(&ended, &["layers stream", "; io_uring"]);
    assert_eq!(n, 0, "{}", ended.stderr);
    assert_eq!(n_lines(&ended, &["layers stream", "pread, "]), 1);
    let parts = ["polyglot-moe.gguf", "slow to read", " MB/s", " ms"];
    assert_eq!(n_lines(&ended, &parts), 1, "{}", ended.stderr);
}
