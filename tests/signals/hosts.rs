//! Programs of others that use the library: this test's own, started again.

#![allow(unsafe_code)]

use super::Left;
use super::child::{Ended, Running, command, polyglot, run};
use super::runner::{Options, Runner, take_hook};
use hotset::config::Config;
use hotset::sync::Busy;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::Command;
use std::time::Duration;

/// The test that is the host when it has this variable.
const HOST: &str = "SIGNALS_HOST";

fn host(role: &str, vars: &[(&str, &str)]) -> Command {
    let exe = std::env::current_exe().unwrap();
    let mut host = command(exe.to_str().unwrap(), vars);
    host.env(HOST, role);
    host.args([
        "--exact",
        "hosts::is_a_host",
        "--nocapture",
        "--test-threads",
        "1",
    ]);
    host
}

/// Computes some tokens and says so; then loads another model, or is interrupted while it has a lock, or waits.
#[test]
fn is_a_host() {
    let Ok(role) = std::env::var(HOST) else {
        return;
    };
    let config = Config::from_env().unwrap();
    let _hook = take_hook(Some(&config));
    let mut first = Runner::load(&polyglot(), Options::default()).unwrap();
    first.run();
    println!("computed");
    if role == "loads another" {
        println!("loading");
        let second = Runner::load(&polyglot(), Options::default());
        println!("loaded: {}", second.is_some());
    }
    if let Some(for_how_long) = role.strip_prefix("is busy for ") {
        let busy = Busy::begin();
        mask(libc::SIG_UNBLOCK, libc::SIGTERM);
        // SAFETY: a plain system call.
        unsafe { libc::raise(libc::SIGTERM) };
        std::thread::sleep(Duration::from_millis(for_how_long.parse().unwrap()));
        println!("went on");
        drop(busy);
    }
    loop {
        std::thread::sleep(Duration::from_secs(60));
    }
}

/// Changes which signals the calling thread takes, and those that it will start.
fn mask(how: libc::c_int, signal: libc::c_int) {
    // SAFETY: plain data, which sigemptyset initialises.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::sigaddset(&mut set, signal);
        libc::sigprocmask(how, &set, std::ptr::null_mut());
    }
}

fn end(command: Command, what: &str, signal: libc::c_int) -> Ended {
    let mut running = Running::start(command);
    running.wait_until(what, |r| {
        String::from_utf8_lossy(&r.stdout()).contains(what)
    });
    std::thread::sleep(Duration::from_millis(300));
    running.signal(signal);
    running.wait()
}

/// The models that run are saved while another one is read before its first token.
#[test]
fn a_model_that_is_being_warmed_is_in_nobodys_way() {
    let dir = tempfile::tempdir().unwrap();
    let known = dir.path().join("known.json");
    let path = known.to_str().unwrap();
    let save = [("HOTSET_RAM", "100%"), ("HOTSET_PROFILE_SAVE", path)];
    end(host("computes", &save), "computed", libc::SIGTERM);
    assert!(known.exists());
    let left = Left::new();
    let save = left.path("run.json");
    let save = save.to_str().unwrap();
    // The first model is warm in a moment, too: its reads are many at once, each of them late.
    let vars = [
        ("HOTSET_RAM", "90%"),
        ("HOTSET_PROFILE", path),
        ("HOTSET_PROFILE_SAVE", save),
        ("HOTSET_FAULT", "delay_ms=40"),
    ];
    let ended = end(host("loads another", &vars), "loading", libc::SIGTERM);
    assert_eq!(
        ended.status.signal(),
        Some(libc::SIGTERM),
        "{}",
        ended.stderr
    );
    assert!(
        !String::from_utf8_lossy(&ended.stdout).contains("loaded"),
        "it was loaded too soon"
    );
    left.assert_whole(&ended);
}

/// What is saved may need the lock that the interrupted thread has; which may also wait for a disk that hangs.
#[test]
fn who_has_a_lock_goes_on_for_a_moment() {
    for (role, goes_on) in [("is busy for 300", true), ("is busy for 60000", false)] {
        let left = Left::new();
        let save = left.path("run.json");
        let vars = [
            ("HOTSET_RAM", "30%"),
            ("HOTSET_PROFILE_SAVE", save.to_str().unwrap()),
        ];
        let mut host = host(role, &vars);
        // But for the thread that has the lock nobody takes it, as in a program with one thread.
        // SAFETY: only makes a system call.
        unsafe {
            host.pre_exec(|| {
                mask(libc::SIG_BLOCK, libc::SIGTERM);
                Ok(())
            })
        };
        let ended = run(host);
        assert_eq!(ended.status.signal(), Some(libc::SIGTERM), "{role}");
        let said = String::from_utf8_lossy(&ended.stdout);
        assert_eq!(said.contains("went on"), goes_on, "{role}: {said}");
        left.assert_whole(&ended);
    }
}
