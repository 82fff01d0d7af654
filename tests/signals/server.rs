//! Servers that compute when signals come.

use super::child::{Ended, polyglot};
use super::serving::{LlamaServer, prompts};
use super::{Left, borrowed};
use serde_json::json;
use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};

const RAM: (&str, &str) = ("HOTSET_RAM", "30%");
const ARGS: &[&str] = &["-np", "4", "-c", "8192"];

/// A server that computes four requests.
fn busy_server(vars: &[(&str, &str)]) -> LlamaServer {
    let server = LlamaServer::start(&polyglot(), vars, ARGS);
    server.complete("The kernel".into());
    prompts()
        .into_iter()
        .for_each(|prompt| server.keep_busy(prompt));
    std::thread::sleep(Duration::from_millis(700));
    server
}

/// Sends it signals, a tenth of a second apart.
fn end(mut server: LlamaServer, signals: &[libc::c_int]) -> Ended {
    for (i, &signal) in signals.iter().enumerate() {
        if i > 0 {
            std::thread::sleep(Duration::from_millis(100));
        }
        if server.running().is_running() {
            server.running().signal(signal);
        }
    }
    server.wait()
}

/// The second one ends the process where it computes: neither by a crash, nor with half of a file.
#[test]
fn two_signals_end_a_busy_server_in_order() {
    const INT: libc::c_int = libc::SIGINT;
    const TERM: libc::c_int = libc::SIGTERM;
    for signals in [
        [INT, INT],
        [TERM, TERM],
        [INT, TERM],
        [INT, INT],
        [TERM, INT],
    ] {
        for vars in [&[RAM][..], &[]] {
            let left = Left::new();
            let files = left.vars();
            // Without streaming there are no counters.
            let files = &borrowed(&files)[..if vars.is_empty() { 1 } else { 3 }];
            let ended = end(busy_server(&[vars, files].concat()), &signals);
            // The first one may have been enough.
            assert!([0, 1].contains(&ended.code()), "{}", ended.stderr);
            if vars.is_empty() {
                left.assert_whole(&ended);
            } else {
                left.assert_saved(&ended);
                left.assert_recorded(&ended);
            }
        }
    }
}

#[test]
fn one_signal_ends_a_busy_server_with_all_there_is() {
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        let stock = end(busy_server(&[("HOTSET", "off")]), &[signal]);
        let left = Left::new();
        let files = left.vars();
        let vars = [&borrowed(&files)[..], &[RAM]].concat();
        let ended = end(busy_server(&vars), &[signal]);
        assert_eq!(ended.status, stock.status, "{}", ended.stderr);
        left.assert_saved(&ended);
        left.assert_recorded(&ended);
    }
}

/// What the server starts can be ended by signals. No shell: some clear what they inherit.
#[test]
fn what_a_server_starts_takes_signals() {
    let left = Left::new();
    let files = left.vars();
    let vars = [&borrowed(&files)[..], &[RAM]].concat();
    let copy = left.path("status");
    let args = ["/proc/self/status", copy.to_str().unwrap()];
    let config = json!({ "mcpServers": { "copies": { "command": "cp", "args": args } } });
    let server = LlamaServer::start(
        &polyglot(),
        &vars,
        &["--mcp-servers-json", &config.to_string()],
    );
    let said = std::fs::read_to_string(&copy).unwrap();
    let set = |name: &str| {
        let line = said.lines().find_map(|line| line.strip_prefix(name));
        let digits = line.unwrap_or_else(|| panic!("{name} in {said}")).trim();
        u64::from_str_radix(digits, 16).unwrap()
    };
    assert_eq!(set("SigBlk:"), 0, "{said}");
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        assert_eq!(set("SigIgn:") >> (signal - 1) & 1, 0, "{said}");
    }
    server.stop();
}

/// While experts are uploaded to a device, the interrupted thread holds what the end would like to have.
#[cfg(feature = "rpc")]
#[test]
fn two_signals_end_a_server_that_uploads() {
    let slow = [
        ("HOTSET_DEVICE_CACHE", "on"),
        ("HOTSET_FAULT", "delay_ms=200"),
        RAM,
    ];
    for (signal, n_files) in [(libc::SIGINT, 0), (libc::SIGTERM, 1)] {
        let device = super::rpc::Server::start();
        let endpoint = device.endpoint();
        let left = Left::new();
        let files = left.vars();
        let vars = [&borrowed(&files)[..n_files], &slow].concat();
        #[rustfmt::skip]
        let args = [
            "--rpc", &endpoint, "--device", "RPC0", "-ngl", "99", "--cpu-moe", "--moe-cache-mib", "4", "-np", "1", "--no-warmup",
        ];
        let server = LlamaServer::start(&polyglot(), &vars, &args);
        server.keep_busy("Il sistema operativo".into());
        std::thread::sleep(Duration::from_secs(3));
        let begin = Instant::now();
        // Again and again: two become one where the first is taken late.
        let ended = end(server, &[signal; 20]);
        let took = begin.elapsed();
        assert!(took < Duration::from_secs(20), "{took:?}");
        assert_eq!(ended.status.signal(), None, "{}", ended.stderr);
        if n_files == 1 {
            left.assert_whole(&ended);
        }
    }
}
