//! Programs of others that use the library: this test's own, started again.

use super::Left;
use super::child::{Ended, Running, command, polyglot};
use super::runner::{Options, Runner, take_hook};
use hotset::config::Config;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;

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

/// Computes some tokens and says so; then loads another model, or waits.
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
    loop {
        std::thread::sleep(std::time::Duration::from_secs(60));
    }
}

fn end(command: Command, what: &str, signal: libc::c_int) -> Ended {
    let mut running = Running::start(command);
    running.wait_until(what, |r| {
        String::from_utf8_lossy(&r.stdout()).contains(what)
    });
    std::thread::sleep(std::time::Duration::from_millis(300));
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
