//! Disk, memory and device as one.

use super::{budget, config, load, run, smallest};
use crate::child::{StatsFile, polyglot};
use crate::rpc::Server;
use crate::runner::{Options, take_hook, tokens};
use crate::tiny;
use hotset::config::{Config, Ram};
use hotset::policy::REGISTRY;
use hotset::stats::Stats;

fn streaming(policy: &str, percent: f64) -> Config {
    Config {
        ram: Some(Ram::Percent(percent)),
        ..config(policy)
    }
}

/// What was asked of one tier is what the one before did not have.
fn check(stats: &Stats) {
    let [device, memory, disk] = &stats.tiers[..] else {
        panic!("{:?}", stats.tiers);
    };
    let beside = stats.devices[0].n_uncached;
    assert_eq!(memory.asked, device.asked - device.hits + beside);
    assert_eq!(disk.asked, memory.asked - memory.hits);
    assert_eq!(disk.hits, disk.asked);
    assert_eq!(stats.bytes_read_uncounted, 0, "only misses are read");
    assert_eq!(memory.bytes_in, stats.bytes_read);
    assert_eq!(device.bytes_in > 0, device.asked > device.hits);
}

/// The least memory there is and the least that a device can have: with every policy upstream's logits, to the bit.
#[test]
pub fn smallest_budgets() {
    let dir = tempfile::tempdir().unwrap();
    for spec in tiny::all() {
        let path = tiny::write(&spec, dir.path());
        let n_bytes = smallest(&spec);
        let options = Options::default();
        let (stock, _) = run(&path, None, options, n_bytes);
        for policy in REGISTRY {
            for percent in [0.1, 20.0] {
                let config = streaming(policy.name, percent);
                let (output, stats) = run(&path, Some(&config), options, n_bytes);
                let what = format!("{} {} {percent}", spec.name, policy.name);
                assert!(output == stock, "{what}");
                let stats = stats.expect("it streams");
                assert!(stats.devices[0].generation.evictions > 0, "{what}");
                assert!(
                    stats.has_staged || percent > 1.0,
                    "{what}: there are no slots"
                );
                check(&stats);
            }
        }
    }
}

/// Prompts, which the CPU computes, and generation, which the device does, in turns; more than fits of both.
#[test]
pub fn prompts_and_generation() {
    let dir = tempfile::tempdir().unwrap();
    for spec in tiny::all() {
        let path = tiny::write(&spec, dir.path());
        let n_bytes = budget(&spec, 0.5);
        for (n_batch, n_tokens) in [(1, 24), (32, 96), (512, 512)] {
            let options = Options {
                n_batch,
                n_tokens,
                n_generated: 24,
                ..Options::default()
            };
            let (stock, _) = run(&path, None, options, n_bytes);
            let (output, stats) = run(&path, Some(&streaming("adaptive", 30.0)), options, n_bytes);
            assert!(output == stock, "{} {options:?}", spec.name);
            let stats = stats.expect("it streams");
            assert!(stats.tiers[0].hits > 0);
            check(&stats);
        }
    }
}

/// The bytes that are read in the second half of a run that computes the same tokens again and again.
fn bytes_read_late(percent: f64, part: f64) -> u64 {
    let mut config = streaming("adaptive", percent);
    config.prefetch = false;
    let _hook = take_hook(Some(&config));
    let path = polyglot();
    let all = 384.0 * 39168.0;
    let mut runner = load(&path, Options::default(), (part * all) as usize);
    let given = tokens(24, 256);
    let mut logits = Vec::new();
    let mut pass = || {
        for token in &given {
            runner.decode(&[*token], &mut logits);
        }
        hotset::llama::stats().remove(0).bytes_read
    };
    let early = (0..8).map(|_| pass()).last().unwrap();
    let late = (0..8).map(|_| pass()).last().unwrap();
    late - early
}

/// What neither memory nor device could hold alone is read from disk no more.
#[test]
pub fn capacities_add_up() {
    let both = bytes_read_late(40.0, 0.4);
    let memory = bytes_read_late(40.0, 0.0);
    assert!(both < memory / 10, "{both} of {memory}");
}

/// The table and the file have all three.
#[test]
fn the_counters_of_three_tiers() {
    let server = Server::start();
    let args = ["--moe-cache-mib", "4"];
    let always = super::programs::ALWAYS;
    let stock = super::programs::run(&server, &[("HOTSET", "off")], &args);
    let ram = [("HOTSET_RAM", "30%"), ("HOTSET_PREFETCH", "off"), always];
    let file = StatsFile::new();
    let path = file.path();
    let vars = [&ram[..], &[("HOTSET_STATS", &path)]].concat();
    let ended = super::programs::run(&server, &vars, &args);
    assert_eq!(ended.text(), stock.text());
    let stats = file.read();
    let tiers = stats["tiers"].as_array().unwrap();
    let names: Vec<_> = tiers.iter().map(|t| t["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["RPC0", "memory", "disk"]);
    let of = |tier: usize, field: &str| tiers[tier][field].as_u64().unwrap();
    let device = &stats["devices"][0];
    let misses = device["generation"]["misses"].as_u64().unwrap();
    assert_eq!(of(0, "bytes_in"), misses * 39168);
    assert_eq!(of(0, "asked") - of(0, "hits"), misses);
    assert_eq!(
        of(1, "asked"),
        misses + device["n_uncached"].as_u64().unwrap()
    );
    assert_eq!(of(2, "asked"), of(1, "asked") - of(1, "hits"));
    let least = of(2, "asked") * 39168;
    assert!((least..least * 2).contains(&of(1, "bytes_in")), "{stats:#}");
    assert_eq!(of(1, "bytes_in"), stats["bytes_read"].as_u64().unwrap());
    let rate = tiers[1]["hit_rate"].as_f64().unwrap();
    assert!((rate - of(1, "hits") as f64 / of(1, "asked") as f64).abs() < 1e-9);

    let ended = super::programs::run(&server, &ram, &args);
    for said in ["experts asked for", "from memory", "from disk"] {
        assert_eq!(ended.stderr.matches(said).count(), 1, "{}", ended.stderr);
    }
}
