//! Programs with a device.

use crate::child::{self, StatsFile, completion, polyglot};
use crate::rpc::Server;

const ALWAYS: (&str, &str) = ("HOTSET_DEVICE_CACHE", "on");

/// Hits of a cache as upstream reports them with `HOTSET=off` or as we do.
fn run(server: &Server, vars: &[(&str, &str)], args: &[&str]) -> child::Ended {
    let endpoint = server.endpoint();
    let device = ["--rpc", &endpoint, "--n-gpu-layers", "99", "--cpu-moe"];
    child::run(completion(&polyglot(), vars, &[&device, args].concat()))
}

#[test]
fn the_counters_of_a_device() {
    let server = Server::start();
    let cache = ["--moe-cache-mib", "4"];
    let stock = run(&server, &[("HOTSET", "off")], &cache);
    let file = StatsFile::new();
    let path = file.path();
    let ended = run(&server, &[("HOTSET_STATS", &path), ALWAYS], &cache);
    assert_eq!(ended.text(), stock.text());
    let stats = file.read();
    let device = &stats["devices"][0];
    assert_eq!(device["n_experts"], 384, "{device:#}");
    assert_eq!(device["n_layers"], 6);
    let hits = device["generation"]["hits"].as_u64().unwrap();
    let misses = device["generation"]["misses"].as_u64().unwrap();
    let rate = device["hit_rate"].as_f64().unwrap();
    assert!((rate - hits as f64 / (hits + misses) as f64).abs() < 1e-9);
    assert_eq!(device["bytes_uploaded"].as_u64().unwrap(), misses * 39168);
    assert!(device["regret"]["belady_hits"].as_u64().unwrap() >= hits);

    let ended = run(&server, &[ALWAYS], &cache);
    for said in ["keeps", "experts routed", "uploaded", "Belady"] {
        assert!(ended.stderr.contains(said), "{said}: {}", ended.stderr);
    }
}

/// What upstream stops for is one line, and the same text.
#[test]
fn a_cache_that_cannot_be_made_stops_nothing() {
    let server = Server::start();
    let stock = run(&server, &[("HOTSET", "off")], &[]);
    for (args, why) in [
        (&["--moe-cache-mib", "1", "--device", "none"][..], "GPU"),
        (
            &["--moe-cache-mib", "1", "--split-mode", "tensor"],
            "tensor",
        ),
    ] {
        let ended = run(&server, &[], args);
        let said = "hotset: no experts are kept on a device: ";
        let line = ended.stderr.lines().find(|l| l.starts_with(said));
        assert!(line.is_some_and(|l| l.contains(why)), "{}", ended.stderr);
        assert_eq!(ended.text(), stock.text());
    }
}
