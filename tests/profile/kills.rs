//! A writer that is killed at any moment leaves a whole file.

use super::{names, random, rng};
use hotset::profile::Profile;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

const PATH: &str = "TEST_PROFILE_PATH";
const BEGUN: &str = "the writer has begun";
const N_KILLS: usize = 200;

/// What the writer writes by turns: different in length and in every layer.
fn profiles() -> [Profile; 2] {
    let mut profiles = [random(&[128; 10], 1), random(&[128; 10], 2)];
    for profile in &mut profiles {
        profile.created = "2026-11-22T20:15:00Z".to_string();
        profile.updated = profile.created.clone();
    }
    profiles[1].name = "a longer name".to_string();
    profiles
}

/// Runs in a process of its own until it is killed.
#[test]
#[ignore = "part of another test"]
fn writer() {
    let Some(path) = std::env::var_os(PATH) else {
        return;
    };
    let profiles = profiles();
    println!("{BEGUN}");
    for profile in profiles.iter().cycle() {
        profile.write(path.as_ref()).unwrap();
    }
}

/// Starts a writer and kills it some time after it has begun.
fn kill_after(path: &Path, time: Duration) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "kills::writer", "--nocapture"])
        .env(PATH, path)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let has_begun = lines.any(|line| line.unwrap().contains(BEGUN));
    assert!(has_begun, "the writer ended at once");
    std::thread::sleep(time);
    child.kill().unwrap();
    let status = child.wait().unwrap();
    assert_eq!(
        status.code(),
        None,
        "it was killed, and did not fail before"
    );
}

#[test]
fn a_killed_writer_leaves_one_of_its_profiles() {
    let profiles = profiles();
    let mut n_found = [0, 0];
    let mut n_left_sum = 0;
    for name in ["some.json", "some.json.gz"] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        profiles[0].write(&path).unwrap();
        let mut below = rng(11);
        for kill in 0..N_KILLS / 2 {
            kill_after(&path, Duration::from_micros(below(15_000) as u64));
            let read = Profile::read(&path).unwrap_or_else(|error| panic!("kill {kill}: {error}"));
            let found = profiles.iter().position(|profile| *profile == read);
            n_found[found.unwrap_or_else(|| panic!("kill {kill}: mixed"))] += 1;
        }
        let n_left = names(folder.path()).len() - 1;
        n_left_sum += n_left;

        // What they left is in nobody's way.
        profiles[0].write(&path).unwrap();
        assert_eq!(Profile::read(&path).unwrap(), profiles[0]);
        assert_eq!(names(folder.path()).len() - 1, n_left);
    }
    // Otherwise the kills came too early, or nothing was ever in progress.
    assert!(n_found.iter().all(|&n| n >= 3), "{n_found:?}");
    assert!(n_left_sum > 0, "no writer was killed while it wrote");
}
