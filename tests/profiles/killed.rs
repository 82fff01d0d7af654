//! Programs that are killed while they learn: what they leave is whole, and what was there stays.

use super::child::{Ended, Running, completion, polyglot, run};
use super::text;
use hotset::profile::Profile;
use serde_json::Value;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

const N_KILLS: u32 = 50;

/// Runs `command` and kills it after this time, if it has not ended by then.
fn kill_after(command: Command, time: Duration) -> Ended {
    let begin = Instant::now();
    let mut running = Running::start(command);
    while begin.elapsed() < time && running.is_running() {
        std::thread::sleep(Duration::from_millis(1));
    }
    running.signal(libc::SIGKILL);
    running.wait()
}

/// The tokens that the profile has learnt from, which is whole.
fn n_tokens(profile: &Path, kill: u32) -> u64 {
    let profile = Profile::read(profile).unwrap_or_else(|error| panic!("kill {kill}: {error}"));
    profile.tokens.prompt + profile.tokens.generation
}

#[test]
fn a_killed_program_leaves_whole_files_and_all_that_was_saved() {
    let dir = tempfile::tempdir().unwrap();
    let [profile, stats] = ["run.json", "stats.json"].map(|name| dir.path().join(name));
    let vars = [
        ("HOTSET_RAM", "30%"),
        ("HOTSET_PROFILE_SAVE", text(&profile)),
        ("HOTSET_STATS", text(&stats)),
    ];
    let start = || completion(&polyglot(), &vars, &["-n", "4"]);
    let mut shortest = Duration::MAX;
    for _ in 0..3 {
        let begin = Instant::now();
        run(start()).text();
        shortest = shortest.min(begin.elapsed());
    }
    let per_run = n_tokens(&profile, 0) / 3;
    let mut n_before = n_tokens(&profile, 0);
    // About when a run saves, as far as is known: how long that takes depends on what else the machine does.
    let mut about = shortest;
    let (mut n_killed, mut n_saved) = (0, 0);
    let mut random = 1u64;
    for kill in 1..=N_KILLS {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        let part = 0.8 + 0.4 * ((random >> 33) as f64 / f64::from(1u32 << 31));
        let ended = kill_after(start(), about.mul_f64(part));
        n_killed += u32::from(ended.status.signal() == Some(libc::SIGKILL));
        let n_now = n_tokens(&profile, kill);
        let is_saved = n_now == n_before + per_run;
        assert!(
            is_saved || n_now == n_before,
            "kill {kill}: {n_now} after {n_before}"
        );
        // Who came to his end has saved.
        assert!(is_saved || ended.status.code().is_none(), "kill {kill}");
        n_saved += u32::from(is_saved);
        about = about.mul_f64(if is_saved { 0.9 } else { 1.1 });
        n_before = n_now;
        let counters: Vec<Value> = serde_json::from_slice(&std::fs::read(&stats).unwrap())
            .unwrap_or_else(|error| panic!("kill {kill}: {error}"));
        assert_eq!(counters.len(), 1, "kill {kill}");
    }
    println!("{n_killed} killed, {n_saved} saved");
    // Otherwise the kills came too early, or too late.
    assert!(n_killed.min(n_saved) >= N_KILLS / 5, "{n_killed} {n_saved}");
    // What they left is in nobody's way.
    run(start()).text();
    assert_eq!(n_tokens(&profile, N_KILLS + 1), n_before + per_run);
}
