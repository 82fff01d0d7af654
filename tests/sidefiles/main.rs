//! Counters, profile and trace obey one rule: what is in the way is said before a model is loaded, what is there keeps
//! what it is, and nothing about them costs a run.

#![cfg(all(feature = "llama", feature = "cli"))]
#![allow(unsafe_code)]

#[path = "../child/mod.rs"]
mod child;
mod kept;
mod lost;
mod refused;
#[path = "../tiny/mod.rs"]
mod tiny;

use child::{Ended, completion, run};
use hotset::profile::Profile;
use hotset::trace::Trace;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// A file that a run leaves behind.
struct Side {
    name: &'static str,
    file: &'static str,
    /// Whether the file is what it should be.
    is_whole: fn(&Path) -> bool,
}

const SIDES: [Side; 4] = [
    Side {
        name: "HOTSET_STATS",
        file: "stats.json",
        is_whole: |path| {
            let text = fs::read(path).unwrap();
            serde_json::from_slice::<serde_json::Value>(&text)
                .is_ok_and(|v| v[0]["n_slots"].is_u64())
        },
    },
    Side {
        name: "HOTSET_PROFILE_SAVE",
        file: "profile.json",
        is_whole: |path| Profile::read(path).is_ok_and(|p| p.tokens.generation > 0),
    },
    Side {
        name: "HOTSET_TRACE",
        file: "run.trace.gz",
        is_whole: |path| Trace::open(path, u32::MAX).is_ok_and(|t| t.n_tokens() > 0),
    },
    Side {
        name: "HOTSET_TIMELINE",
        file: "timeline.json",
        is_whole: |path| {
            let text = fs::read(path).unwrap();
            let value = serde_json::from_slice::<serde_json::Value>(&text).unwrap_or_default();
            let phases = value["traceEvents"].as_array();
            let has = |phase| phases.is_some_and(|events| events.iter().any(|e| e["ph"] == phase));
            // Computing, and reads.
            ["X", "b", "e"].into_iter().all(has)
        },
    },
];

/// A folder with a model, and another one for what runs of it leave behind.
struct Bench {
    dir: TempDir,
    model: PathBuf,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let model = tiny::write(&tiny::all()[0], dir.path());
        fs::create_dir(dir.path().join("out")).unwrap();
        Self { dir, model }
    }

    fn out(&self) -> PathBuf {
        self.dir.path().join("out")
    }

    fn path(&self, side: &Side) -> PathBuf {
        self.out().join(side.file)
    }

    /// A short run that writes all files to `folder`.
    fn command(&self, folder: &Path) -> Command {
        let mut command = completion(&self.model, &[("HOTSET_RAM", "30%")], &["-n", "6"]);
        for side in &SIDES {
            command.env(side.name, folder.join(side.file));
        }
        command
    }

    /// One that takes some seconds.
    fn slow_command(&self) -> Command {
        let mut command = self.command(&self.out());
        command
            .env("HOTSET_FAULT", "delay_ms=20")
            .args(["-n", "40"]);
        command
    }

    /// What such a run prints without hotset.
    fn stock_text(&self) -> Vec<u8> {
        run(completion(&self.model, &[("HOTSET", "off")], &["-n", "6"])).stdout
    }
}

/// Names of the files in a folder, sorted.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<String> = entries
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn warnings(ended: &Ended) -> Vec<&str> {
    let mut lines = ended.said();
    lines.retain(|line| line.starts_with("hotset: warning: HOTSET_"));
    lines
}

fn is_root() -> bool {
    // SAFETY: a plain system call.
    unsafe { libc::geteuid() == 0 }
}

/// Makes file permissions count for `command` even if root runs it.
fn forget_powers_of_root(command: &mut Command) {
    const POWERS: [libc::c_ulong; 3] = [0, 1, 2];
    let forget = || {
        for power in POWERS {
            // SAFETY: a plain system call. Who is not root has no such power and may not drop it.
            unsafe { libc::prctl(libc::PR_CAPBSET_DROP, power, 0, 0, 0) };
        }
        Ok(())
    };
    // SAFETY: only makes system calls.
    unsafe { command.pre_exec(forget) };
}

/// `command` after a script that mounts things for it alone, in which `$OUT` is `folder`. `None` where the system lets
/// nobody mount.
fn mounted(command: &Command, folder: &Path, script: &str) -> Option<Command> {
    let ways: [&[&str]; 2] = [&["-m"], &["-rm"]];
    let can = |way: &&&[&str]| {
        let tried = Command::new("unshare")
            .args(**way)
            .args(["sh", "-c", "mount -t tmpfs none /tmp"])
            .output();
        tried.is_ok_and(|tried| tried.status.success())
    };
    let Some(way) = ways.iter().find(can) else {
        eprintln!("nothing can be mounted here: not tested");
        return None;
    };
    let mut shell = Command::new("unshare");
    shell.args(*way).args(["sh", "-ec", script, "sh"]);
    shell.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    shell.env("OUT", folder);
    Some(shell)
}
