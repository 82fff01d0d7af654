//! The bundled model, made heavier, with `HOTSET_RAM=auto` in a group whose limit falls and rises again.

use crate::child::{Running, completion};
use crate::group::Group;
use crate::heavy;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

const MIB: u64 = 1 << 20;
/// Makes 570 MiB of experts.
const FACTOR: &str = "40";
const PLENTY: u64 = 8 << 30;
/// How far the limit falls below what was in use.
const LESS: u64 = 300 * MIB;
/// What version 1 of control groups is left with at each step down: less than hotset's reserve.
const SLACK: u64 = 16 * MIB;

/// Generates for longer than the test takes.
fn generating(model: &Path, setting: (&str, &str)) -> Command {
    let args = ["-c", "16384", "-n", "16000", "--temp", "0.8"];
    completion(model, &[setting], &args)
}

/// Lowers the limit as far as it goes again and again, until it is `n_bytes`.
fn lower(running: &mut Running, group: &Group, n_bytes: u64) {
    let begin = Instant::now();
    loop {
        let next = n_bytes.max(group.used() + SLACK);
        if group.limit(next).is_ok() && next == n_bytes {
            return;
        }
        assert!(running.is_running(), "{}", running.stderr());
        let waited = begin.elapsed();
        assert!(
            waited < Duration::from_secs(30),
            "{} of {n_bytes} bytes in use after {waited:?}:\n{}",
            group.used(),
            running.stderr()
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_limit_that_falls_costs_experts_and_no_token() {
    let Some((group, _dir, model)) = heavy("limit", FACTOR) else {
        return;
    };

    let mut running = Running::start(generating(&model, ("HOTSET_RAM", "auto")));
    group.add(running.id());
    group.limit(PLENTY).unwrap();
    let has_said = |r: &Running, what: &str| r.stderr().contains(what);
    running.wait_until("text", |r| r.stdout().len() > 200);
    assert!(!has_said(&running, "memory is"), "{}", running.stderr());

    let before = group.used();
    assert!(before > 500 * MIB, "the experts are in memory: {before}");
    lower(&mut running, &group, before - LESS);
    running.wait_until("the line", |r| {
        has_said(r, "hotset: memory is short: experts get ")
    });
    let n_bytes = running.stdout().len();
    running.wait_until("more text", |r| r.stdout().len() > n_bytes + 200);
    let used = group.used();
    assert!(used <= before - LESS, "{used} of {before} bytes are in use");

    group.limit(PLENTY).unwrap();
    let line = "hotset: memory is free again: experts get ";
    running.wait_until("growing back", |r| has_said(r, line));
    let n_bytes = running.stdout().len();
    running.wait_until("more text", |r| r.stdout().len() > n_bytes + 200);
    let text = running.stdout();
    drop(running);
    drop(group);

    let mut stock = Running::start(generating(&model, ("HOTSET", "off")));
    stock.wait_until("as much text", |r| r.stdout().len() >= text.len());
    let expected = stock.stdout();
    let same = expected
        .iter()
        .zip(&text)
        .take_while(|(a, b)| a == b)
        .count();
    assert_eq!(same, text.len(), "the same text");
}
