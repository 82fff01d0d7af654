//! A server with `HOTSET_RAM` in a group: its clients' threads need no memory, and experts come back after a sleep.

use crate::child::{Running, command};
use crate::group::Group;
use crate::heavy;
use crate::serving::LlamaServer;
use serde_json::json;
use std::io::Write;
use std::net::TcpStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

const MIB: u64 = 1 << 20;
/// Makes 230 MiB of experts.
const FACTOR: &str = "16";
/// Room for all of them.
const PLENTY: u64 = 420 * MIB;
const LESS: u64 = 150 * MIB;
const ARGS: &[&str] = &["-np", "1", "-ub", "32", "-b", "32", "-c", "256"];

/// Starts it in `group`, so that all it takes counts there.
fn start(group: &Group, model: &Path, ram: &str, args: &[&str]) -> LlamaServer {
    let mut program = command(env!("CARGO_BIN_EXE_llama-server"), &[("HOTSET_RAM", ram)]);
    program.arg("-m").arg(model);
    LlamaServer::start_with(group.joining(&program), &[ARGS, args].concat())
}

fn ask(server: &LlamaServer) {
    let body =
        json!({ "prompt": "int main", "n_predict": 8, "temperature": 0, "cache_prompt": false });
    server.post("completion", &body);
}

/// Without a pause, so that it stays awake.
fn ask_until_experts_get(server: &mut LlamaServer, mib: f64) {
    let begin = Instant::now();
    while experts_get(server.running()).is_none_or(|now| now < mib) {
        ask(server);
        let is_late = begin.elapsed() > Duration::from_secs(60);
        assert!(!is_late, "{}", server.running().stderr());
    }
}

fn n_threads(process: u32) -> usize {
    let tasks = std::fs::read_dir(format!("/proc/{process}/task"));
    tasks.map_or(0, |tasks| tasks.count())
}

/// The bytes of the last line about a change.
fn experts_get(running: &Running) -> Option<f64> {
    let stderr = running.stderr();
    let (_, line) = stderr.rsplit_once("experts get ")?;
    let (number, unit) = line.split_once(' ')?;
    unit.starts_with("MiB").then(|| number.parse().ok())?
}

/// Each has a stack of 8 MiB, of which it uses next to nothing: all of them together 8 GiB.
#[test]
fn threads_that_are_idle_cost_no_experts() {
    let Some((group, _dir, model)) = heavy("threads", FACTOR) else {
        return;
    };
    // What the system has to keep for each is some 50 KiB.
    group.limit(PLENTY + 64 * MIB).unwrap();
    let mut server = start(&group, &model, "auto", &["--threads-http", "1024"]);
    ask(&server);
    assert!(n_threads(server.id()) > 1024);
    let said = server.running().stderr();
    assert!(said.contains(" through 237.1 MiB: 384 slots"), "{said}");
    std::thread::sleep(Duration::from_secs(2));
    assert!(group.used() > 200 * MIB, "they stay: {}", group.used());
    let said = server.stop();
    drop(group);
    assert!(!said.contains("memory is"), "{said}");
}

/// Each has a thread with a stack of 8 MiB, of which it uses next to nothing.
#[test]
fn clients_that_wait_cost_no_experts() {
    let Some((group, _dir, model)) = heavy("clients", FACTOR) else {
        return;
    };
    group.limit(PLENTY).unwrap();
    let mut server = start(&group, &model, "auto", &[]);
    ask(&server);
    let before = group.used();
    assert!(before > 200 * MIB, "the experts are in memory: {before}");

    let process = server.id();
    let client = || {
        let mut client = TcpStream::connect(server.address()).unwrap();
        let begun = b"POST /completion HTTP/1.1\r\nContent-Length: 100\r\n\r\n{";
        client.write_all(begun).unwrap();
        // The server starts a thread for a client if none is idle: not if they come faster than threads wake.
        std::thread::sleep(Duration::from_millis(10));
        client
    };
    let clients: Vec<_> = (0..64).map(|_| client()).collect();
    let have_threads = |_: &Running| n_threads(process) >= clients.len() / 2;
    server.running().wait_until("threads", have_threads);
    // For some looks at the memory.
    std::thread::sleep(Duration::from_secs(2));
    ask(&server);
    drop(clients);
    ask(&server);
    let after = group.used();
    let said = server.stop();
    drop(group);
    assert!(!said.contains("memory is"), "{said}");
    assert!(after >= before / 10 * 9, "{after} of {before}");
}

/// It slept while memory was taken away, and its users wait for an answer. All of it is there again in some seconds.
#[test]
fn a_server_that_wakes_with_less_memory_works_and_grows() {
    let Some((group, _dir, model)) = heavy("wakes", FACTOR) else {
        return;
    };
    for (ram, most) in [("auto", 230.0), ("200MiB", 200.0)] {
        group.limit(PLENTY).unwrap();
        let mut server = start(&group, &model, ram, &["--sleep-idle-seconds", "1"]);
        ask(&server);
        let awake = group.used();
        let is_asleep = |_: &Running| group.used() < awake / 4;
        server.running().wait_until("sleep", is_asleep);
        group.limit(LESS).unwrap();
        ask(&server);
        assert!(group.used() <= LESS, "{ram}");
        group.limit(PLENTY).unwrap();
        ask_until_experts_get(&mut server, 0.9 * most);
        let said = server.stop();
        let word = "hotset: only ";
        assert_eq!(said.contains(word), ram != "auto", "{said}");
        assert!(said.contains("memory is free again"), "{said}");
    }
    drop(group);
}

/// What it begins with is not the most that it may ever have.
#[test]
fn a_server_grows_when_another_process_ends() {
    let Some((group, _dir, model)) = heavy("grows", FACTOR) else {
        return;
    };
    group.limit(PLENTY).unwrap();
    // It keeps what it reads until there is no more to come.
    let keep = "{ head -c 272629760 /dev/zero; sleep 600; } | tail -c 300000000 > /dev/null";
    let mut other = Command::new("sh");
    other.args(["-c", keep]);
    let mut other = group.joining(&other).process_group(0).spawn().unwrap();
    while group.used() < 260 * MIB {
        std::thread::sleep(Duration::from_millis(10));
    }
    let mut server = start(&group, &model, "auto", &[]);
    ask(&server);
    assert!(group.used() <= PLENTY);
    let said = server.running().stderr();
    let begun = said
        .split_once(" through ")
        .and_then(|(_, rest)| rest.split_once(" MiB"));
    let begun: f64 = begun.expect("a line").0.parse().unwrap();
    assert!(begun < 130.0, "{said}");
    // SAFETY: a plain system call; the group is the child's own, which has not been waited for.
    unsafe { libc::kill(-(other.id() as i32), libc::SIGKILL) };
    other.wait().unwrap();
    ask_until_experts_get(&mut server, 0.9 * 230.0);
    server.stop();
    drop(group);
}
