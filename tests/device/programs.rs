//! Programs with a device.

use crate::child::{self, StatsFile, completion, polyglot};
use crate::rpc::{Server, slow_link};

pub const ALWAYS: (&str, &str) = ("HOTSET_DEVICE_CACHE", "on");

/// Hits of a cache as upstream reports them with `HOTSET=off` or as we do.
pub fn run(server: &Server, vars: &[(&str, &str)], args: &[&str]) -> child::Ended {
    run_at(&server.endpoint(), vars, args)
}

fn run_at(endpoint: &str, vars: &[(&str, &str)], args: &[&str]) -> child::Ended {
    let device = super::on_device(endpoint);
    let device: Vec<_> = device.iter().map(String::as_str).collect();
    child::run(completion(&polyglot(), vars, &[&device, args].concat()))
}

#[test]
pub fn the_counters_of_a_device() {
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
    assert!(device["hindsight"]["belady_hits"].as_u64().unwrap() >= hits);

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
    let said = "hotset: no experts are kept on a device: MoE cache requires a GPU backend";
    for without in [["--device", "none"], ["--split-mode", "tensor"]] {
        let args = [&["--moe-cache-mib", "1"][..], &without].concat();
        let ended = run(&server, &[], &args);
        assert_eq!(ended.stderr.matches(said).count(), 1, "{}", ended.stderr);
        assert_eq!(ended.text(), stock.text());
    }
}

/// Uploads over a slow link cost more than they save: after a few tokens there are none, and the text stays.
#[test]
fn a_slow_link_is_left_aside() {
    leaves_a_slow_link_aside(&[]);
}

/// Then memory has what the device would have.
#[test]
fn a_slow_link_is_left_aside_by_a_model_that_streams() {
    leaves_a_slow_link_aside(&[("HOTSET_RAM", "40%")]);
}

fn leaves_a_slow_link_aside(ram: &[(&str, &str)]) {
    let server = Server::start();
    let link = slow_link(&server, 8 << 20);
    let args = ["--moe-cache-mib", "4", "-n", "120"];
    let counters = |vars: &[(&str, &str)]| {
        let file = StatsFile::new();
        let path = file.path();
        let vars = [vars, ram, &[("HOTSET_STATS", &path)]].concat();
        let ended = run_at(&link, &vars, &args);
        (
            ended.text().into_owned(),
            ended.stderr,
            file.read()["devices"][0].take(),
        )
    };
    let (stock, said, always) = counters(&[ALWAYS]);
    assert!(!said.contains("left aside"), "{said}");
    assert_eq!(always["generation"]["tokens"], 119);
    assert_eq!(always["n_aside"], 0);
    let (text, said, device) = counters(&[]);
    assert_eq!(text, stock);
    assert_eq!(said.matches("it is left aside").count(), 1, "{said}");
    let n_tokens = device["generation"]["tokens"].as_u64().unwrap();
    assert!(n_tokens < 30, "{n_tokens} of 119: {said}");
    // What was computed without the device is counted too.
    let besides = |device: &serde_json::Value, name: &str| device[name].as_u64().unwrap();
    let picks = |device: &serde_json::Value| {
        let of = |name: &str| device["generation"][name].as_u64().unwrap();
        of("hits") + of("misses") + besides(device, "n_uncached")
    };
    assert_eq!(picks(&device), picks(&always));
    let n_prompt = besides(&always, "n_uncached");
    assert_eq!(
        besides(&device, "n_aside"),
        besides(&device, "n_uncached") - n_prompt
    );
}
