//! Programs under limits of their own, or where the system does not say what there is: they work, or say in one line
//! why they do not.

#![cfg(all(target_os = "linux", feature = "llama", feature = "cli"))]
// Sets limits.
#![allow(unsafe_code)]

mod child;

use child::{Ended, completion, polyglot, run};
use std::ffi::OsString;
use std::fs;
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

/// One of each kind.
const SETTINGS: [&str; 3] = ["6MiB", "40%", "auto"];
const MIB: u64 = 1 << 20;

fn generating(ram: &str) -> Command {
    completion(&polyglot(), &[("HOTSET_RAM", ram)], &["-n", "8"])
}

/// The same in a shell that does this first.
fn after(what: &str, command: &Command) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", &format!("{what} && exec \"$0\" \"$@\"")]);
    shell.arg(command.get_program()).args(command.get_args());
    wrapped(shell, command)
}

/// `around`, which runs `command`, with its environment.
fn wrapped(mut around: Command, command: &Command) -> Command {
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => around.env(name, value),
            None => around.env_remove(name),
        };
    }
    around
}

fn limited(mut command: Command, what: libc::__rlimit_resource_t, n_bytes: u64) -> Command {
    let limit = libc::rlimit {
        rlim_cur: n_bytes,
        rlim_max: n_bytes,
    };
    // SAFETY: a system call that allocates nothing, between fork and exec.
    unsafe {
        command.pre_exec(move || match libc::setrlimit(what, &limit) {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        })
    };
    command
}

fn skip(test: &str, why: &str) {
    // Past the harness, which swallows what tests that pass print.
    let line = format!("skipped: {test}: {why}\n");
    let _ = io::stderr().write_all(line.as_bytes());
}

fn assert_says_why(ended: &Ended, why: &str) {
    assert!([1, 2].contains(&ended.code()), "{}", ended.stderr);
    let lines = ended.said();
    assert!(
        lines.len() == 1 && lines[0].contains(why),
        "{}",
        ended.stderr
    );
}

#[test]
fn memory_is_known_without_proc() {
    let hide = "mount -t tmpfs tmpfs /proc";
    let mut trial = Command::new("unshare");
    trial.args(["-m", "sh", "-c", hide]);
    if !trial.status().is_ok_and(|status| status.success()) {
        return skip("proc", "mounting is not allowed");
    }
    let expected = run(generating("40%")).text().into_owned();
    for ram in SETTINGS {
        let inner = after(hide, &generating(ram));
        let mut command = Command::new("unshare");
        command
            .arg("-m")
            .arg(inner.get_program())
            .args(inner.get_args());
        let ended = run(wrapped(command, &inner));
        assert_eq!(ended.text(), expected, "{ram}");
        assert!(
            !ended.stderr.contains(" 0 slots"),
            "{ram}: {}",
            ended.stderr
        );
    }
}

#[test]
fn limits_of_the_process_are_respected() {
    let expected = run(generating("40%")).text().into_owned();
    // Enough for what else there is, and too little for what is asked for.
    for (what, name) in [
        (libc::RLIMIT_AS, "address space"),
        (libc::RLIMIT_DATA, "data"),
    ] {
        for ram in SETTINGS {
            let ended = run(limited(generating(ram), what, 1500 * MIB));
            assert_eq!(ended.text(), expected, "{name}: {ram}");
        }
        let ended = run(limited(generating("3GiB"), what, 1500 * MIB));
        assert_says_why(&ended, &format!("the limit of {name} of "));
    }
    // Of locked memory, in which old kernels keep the rings of io_uring.
    for ram in SETTINGS {
        let ended = run(limited(generating(ram), libc::RLIMIT_MEMLOCK, 0));
        assert_eq!(ended.text(), expected, "{ram}");
    }
}

/// Slots for all experts are more than the process may map; it takes what it can have.
#[test]
fn auto_takes_what_may_be_mapped() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let model = dir.path().join("heavy.gguf");
    child::widen("16", &model);
    let generating = || completion(&model, &[("HOTSET_RAM", "auto")], &["-n", "8"]);
    let expected = run(generating()).text().into_owned();
    let ended = run(limited(generating(), libc::RLIMIT_DATA, 200 * MIB));
    assert_eq!(ended.text(), expected);
    let n_slots = |ended: &Ended| {
        let words: Vec<_> = ended.stderr.split_whitespace().collect();
        let at = words.iter().position(|w| *w == "slots,").unwrap();
        words[at - 1].parse::<u32>().unwrap()
    };
    assert!((1..384).contains(&n_slots(&ended)), "{}", ended.stderr);
}

/// Threads are refused at any moment.
#[test]
fn no_thread_is_refused_without_a_word() {
    let group =
        Path::new("/sys/fs/cgroup/pids").join(format!("hotset-limits-{}", std::process::id()));
    if let Err(why) = fs::create_dir(&group) {
        return skip("threads", &format!("no control group for processes: {why}"));
    }
    let mut join = OsString::from("echo $$ > ");
    join.push(group.join("cgroup.procs"));
    let join = join.into_string().unwrap();
    let expected = run(generating("40%")).text().into_owned();
    let mut n_worked = 0;
    // With two llama.cpp itself has as many as it needs to say something.
    for n_tasks in [2, 3, 4, 5, 6, 7, 8, 10, 24] {
        for ram in SETTINGS {
            fs::write(group.join("pids.max"), n_tasks.to_string()).unwrap();
            let ended = run(after(&join, &generating(ram)));
            let name = format!("{n_tasks} tasks, {ram}");
            assert!(
                !ended.stderr.contains("panicked"),
                "{name}: {}",
                ended.stderr
            );
            if ended.code() == 0 {
                assert_eq!(ended.text(), expected, "{name}");
                n_worked += 1;
                continue;
            }
            assert_eq!(ended.code(), 1, "{name}");
            // The last two are OpenMP's and llama.cpp's own.
            let words = ["threads that read are refused", "Thread creation failed"];
            let is_said = words.iter().any(|word| ended.stderr.contains(word));
            assert!(is_said, "{name}: {}", ended.stderr);
        }
    }
    assert!(n_worked >= SETTINGS.len());
    fs::remove_dir(&group).unwrap();
}
