//! Readers that go, and disks that are full: what commands print may find no place.

use super::{hotset, replay, run, text};
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Command, Stdio};

/// Every command that prints, with its arguments.
fn commands(folder: &Path) -> Vec<Command> {
    let profile = folder.join("p.json");
    let written = super::profile::small("it", [4, 3, 2, 1]);
    written.write(&profile).unwrap();
    let (a, b) = (profile.display().to_string(), replay::ITALIAN.to_string());
    let out = |name: &str| folder.join(name).display().to_string();
    let lines: Vec<Vec<String>> = [
        "--help",
        "--version",
        "completions zsh",
        "man",
        "replay --help",
        "policies",
        "policies --json",
        "replay B --budgets 10% --limit 40",
        "replay B --budgets 10% --limit 40 --format csv",
        "replay B --budgets 10% --limit 40 --format json",
        "replay B --budgets 10% --limit 40 --format svg",
        "plan B -m W --limit 99",
        "plan B -m W --limit 99 --format json",
        "profile show A",
        "profile show A --json",
        "profile diff A A",
        "profile merge A A --name x -o M",
        "profile plot A -o S",
        "widen W --factor 2 -o X",
    ]
    .iter()
    .map(|line| {
        let word = |word: &str| match word {
            "A" => a.clone(),
            "B" => b.clone(),
            "M" => out("merged.json"),
            "S" => out("map.svg"),
            "W" => concat!(env!("CARGO_MANIFEST_DIR"), "/models/polyglot-moe.gguf").to_string(),
            "X" => out("wide.gguf"),
            word => word.to_string(),
        };
        line.split(' ').map(word).collect()
    })
    .collect();
    let command = |line: &Vec<String>| {
        let _ = fs::remove_file(out("merged.json"));
        hotset(&line.iter().map(String::as_str).collect::<Vec<_>>())
    };
    lines.iter().map(command).collect()
}

/// The end of a pipe that nobody reads.
fn unread() -> Stdio {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    OwnedFd::from(writer).into()
}

fn only_whole_files(folder: &Path) {
    let is_known = |name: &str| ["p.json", "merged.json", "map.svg", "wide.gguf"].contains(&name);
    for entry in fs::read_dir(folder).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(is_known(&name), "{name} was left behind");
    }
}

#[test]
fn nobody_hears_of_a_reader_that_has_gone() {
    let folder = tempfile::tempdir().unwrap();
    for mut command in commands(folder.path()) {
        let _ = fs::remove_file(folder.path().join("merged.json"));
        let output = run(command.stdout(unread()));
        assert_eq!(text(&output.stderr), "", "{command:?}");
        // As `cat` and others end.
        assert_eq!(output.status.signal(), Some(libc::SIGPIPE), "{command:?}");
        only_whole_files(folder.path());
    }
    // A reader that goes after the first line.
    let mut replay = hotset(&[
        "replay",
        replay::ITALIAN,
        "--format",
        "csv",
        "--limit",
        "99",
    ]);
    let mut child = replay
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut reader = BufReader::with_capacity(16, child.stdout.take().unwrap());
    reader.read_line(&mut line).unwrap();
    drop(reader);
    let output = child.wait_with_output().unwrap();
    assert_eq!(text(&output.stderr), "");
}

#[test]
fn a_full_disk_is_told_in_a_line() {
    let folder = tempfile::tempdir().unwrap();
    for mut command in commands(folder.path()) {
        let _ = fs::remove_file(folder.path().join("merged.json"));
        let Ok(full) = File::options().write(true).open("/dev/full") else {
            return; // Not on every system.
        };
        let output = run(command.stdout(full));
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{command:?}: {stderr}");
        assert!(
            stderr.starts_with("hotset: error: standard output: "),
            "{stderr}"
        );
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
    }
}

/// Neither what is printed nor what is said finds a place.
#[test]
fn no_output_at_all_is_no_crash() {
    let folder = tempfile::tempdir().unwrap();
    let mut all = commands(folder.path());
    all.push(hotset(&["fly"]));
    all.push(hotset(&["replay", "no-such-file"]));
    for (number, mut command) in all.into_iter().enumerate() {
        let _ = fs::remove_file(folder.path().join("merged.json"));
        // SAFETY: plain system calls between fork and exec.
        unsafe {
            command.pre_exec(move || {
                libc::close(2);
                if number % 2 == 0 {
                    libc::close(1);
                }
                Ok(())
            })
        };
        let status = command.stdout(Stdio::null()).status().unwrap();
        assert!(
            matches!(status.code(), Some(0 | 2)),
            "{command:?}: {status}"
        );
    }
    let failed = hotset(&["fly"]).stderr(unread()).status().unwrap();
    assert_eq!(failed.code(), Some(2));
}
