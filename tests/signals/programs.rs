//! Programs that compute when a signal comes.

use super::child::{Ended, Running, command, completion, polyglot};
use super::terminal::Terminal;
use super::{Left, borrowed};
use std::io::Read;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, Stdio};

const SIGNALS: [libc::c_int; 3] = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP];
const RAM: (&str, &str) = ("HOTSET_RAM", "30%");

/// A text that lasts.
fn long(vars: &[(&str, &str)]) -> Command {
    completion(&polyglot(), vars, &["-n", "30000", "-c", "32768"])
}

fn bench(vars: &[(&str, &str)]) -> Command {
    let mut command = command(env!("CARGO_BIN_EXE_llama-bench"), vars);
    command.arg("-m").arg(polyglot());
    command.args(["-p", "0", "-n", "64", "-r", "5000", "-t", "2", "-ngl", "0"]);
    command.arg("--progress");
    command
}

fn perplexity(vars: &[(&str, &str)]) -> Command {
    let mut command = command(env!("CARGO_BIN_EXE_llama-perplexity"), vars);
    command.arg("-m").arg(polyglot());
    let text = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.lock");
    command.args(["-f", text, "-c", "128", "-b", "128", "-t", "2", "-ngl", "0"]);
    command.arg("--no-repack");
    command
}

/// Ends a program by a signal when it has said `what`.
fn end(command: Command, what: &str, signal: libc::c_int) -> Ended {
    let mut running = Running::start(command);
    let is_said = |r: &Running| match what {
        "" => r.stdout().len() > 60,
        what => (r.stderr() + &String::from_utf8_lossy(&r.stdout())).contains(what),
    };
    running.wait_until("some work", is_said);
    running.signal(signal);
    running.wait()
}

fn assert_ends(make: impl Fn(&[(&str, &str)]) -> Command, what: &str, saves: bool) {
    for signal in SIGNALS {
        let stock = end(make(&[("HOTSET", "off")]), what, signal);
        let left = Left::new();
        let vars = left.vars();
        let ended = end(make(&[&borrowed(&vars)[..], &[RAM]].concat()), what, signal);
        assert_eq!(ended.status, stock.status, "{}", ended.stderr);
        match saves {
            true => left.assert_saved(&ended),
            false => left.assert_counted(&ended),
        }
        left.assert_recorded(&ended);
        let ended = end(make(&[RAM]), what, signal);
        assert_eq!(ended.status, stock.status, "{}", ended.stderr);
        assert!(ended.stderr.contains("experts routed"), "{}", ended.stderr);
    }
}

#[test]
fn a_completion_leaves_all_there_is() {
    assert_ends(long, "", true);
}

#[test]
fn a_benchmark_leaves_all_there_is() {
    assert_ends(bench, "generation run 3/", false);
}

#[test]
fn a_perplexity_leaves_all_there_is() {
    assert_ends(perplexity, "[3]", true);
}

/// Nobody reads what it prints any more.
#[test]
fn a_broken_pipe_ends_a_completion_with_all_there_is() {
    let left = Left::new();
    let files = left.vars();
    let ours = [&borrowed(&files)[..], &[RAM]].concat();
    let [_, ended] = [&[("HOTSET", "off")][..], &ours].map(|vars| {
        let (mut reader, writer) = std::io::pipe().unwrap();
        let running =
            Running::start_with(&mut long(vars), Stdio::null(), Some(writer.into()), None);
        reader.read_exact(&mut [0; 60]).unwrap();
        drop(reader);
        let ended = running.wait();
        assert_eq!(
            ended.status.signal(),
            Some(libc::SIGPIPE),
            "{}",
            ended.stderr
        );
        ended
    });
    left.assert_saved(&ended);
    left.assert_recorded(&ended);
}

/// What is ignored, as under nohup, stays ignored.
#[test]
fn an_ignored_signal_stays_ignored() {
    #![allow(unsafe_code)]
    let left = Left::new();
    let vars = left.vars();
    let mut command = long(&[&borrowed(&vars)[..], &[RAM]].concat());
    let ignore = || {
        // SAFETY: a plain system call.
        unsafe { libc::signal(libc::SIGHUP, libc::SIG_IGN) };
        Ok(())
    };
    // SAFETY: only makes a system call.
    unsafe { command.pre_exec(ignore) };
    let mut running = Running::start(command);
    running.wait_until("some text", |r| r.stdout().len() > 60);
    running.signal(libc::SIGHUP);
    let n = running.stdout().len();
    running.wait_until("more text", |r| r.stdout().len() > n + 60);
    running.terminate();
    let ended = running.wait();
    assert_eq!(ended.status.signal(), Some(libc::SIGTERM));
    left.assert_saved(&ended);
}

/// An error that nobody can read ends the program all the same.
#[test]
fn a_stopped_terminal_delays_no_error() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.gguf");
    std::fs::copy(polyglot(), &path).unwrap();
    let terminal = Terminal::open();
    let vars = [RAM, ("HOTSET_FAULT", "delay_ms=1"), ("HOTSET_STATS", "off")];
    let mut command = completion(&path, &vars, &["-n", "30000", "-c", "32768"]);
    let dev = terminal.stdio();
    let mut running = Running::start_with(&mut command, Stdio::null(), None, Some(dev));
    running.wait_until("some text", |r| r.stdout().len() > 20);
    terminal.stop();
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len(1 << 20).unwrap();
    assert_eq!(running.wait().code(), 1);
}
