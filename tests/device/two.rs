//! Two devices, each of which keeps experts of the layers that it computes.

use super::{budget, config, counted, devices, load_on, smallest};
use crate::runner::{Options, Output, take_hook};
use crate::tiny;
use hotset::config::Config;
use hotset::device::DeviceStats;
use hotset::policy::REGISTRY;
use hotset::replay::Replay;
use hotset::trace::Trace;
use std::path::Path;

/// Shares of the layers, of which the output is one.
const SPLITS: [[f32; 2]; 2] = [[1.0, 1.0], [1.0, 3.0]];

/// Runs a model with the layers so split and a cache of `n_bytes` on both devices together.
fn run(
    split: [f32; 2],
    path: &Path,
    config: Option<&Config>,
    options: Options,
    n_bytes: usize,
) -> (Output, Vec<DeviceStats>) {
    let _hook = take_hook(config);
    let runner = load_on(&devices(), &split, path, options, n_bytes);
    let (output, stats) = counted(runner);
    (output, stats.map_or(Vec::new(), |stats| stats.devices))
}

/// Fails unless both devices keep experts, and all layers are on one of them.
fn check_devices(spec: &tiny::Spec, devices: &[DeviceStats]) {
    let what = format!("{} {devices:?}", spec.name);
    let [first, second] = devices else {
        panic!("one pool of counters for each device: {what}");
    };
    assert_ne!(first.device, second.device, "{what}");
    let n_layers = spec.n_layer - spec.arch.n_layer_dense();
    assert_eq!(first.n_layers + second.n_layers, n_layers, "{what}");
    for device in devices {
        assert_eq!(device.n_experts, device.n_layers * spec.n_expert, "{what}");
        assert!(device.generation.hits > 0, "{what}");
        assert!(device.bytes_uploaded > 0, "{what}");
        assert!(
            u64::from(device.n_resident) <= device.generation.misses,
            "{what}"
        );
    }
}

#[test]
pub fn two_devices_are_exact() {
    let dir = tempfile::tempdir().unwrap();
    for spec in tiny::all() {
        let path = tiny::write(&spec, dir.path());
        // The output is a third layer: an even split leaves a model of two on one device.
        let even = if spec.n_layer > 2 {
            SPLITS[0]
        } else {
            SPLITS[1]
        };
        for (split, n_batch) in [(even, 1), (even, 6), (SPLITS[1], 1), (SPLITS[1], 40)] {
            let options = Options {
                n_batch,
                n_tokens: 40,
                ..Options::default()
            };
            let n_bytes = budget(&spec, 1.1);
            let (stock, none) = run(split, &path, None, options, n_bytes);
            assert!(none.is_empty());
            let (output, devices) = run(split, &path, Some(&config("adaptive")), options, n_bytes);
            assert!(output == stock, "{} {split:?} {options:?}", spec.name);
            check_devices(&spec, &devices);
        }
    }
}

#[test]
pub fn policies_on_two_devices() {
    let dir = tempfile::tempdir().unwrap();
    // One pool on each device, and two on one of them.
    for spec in [&tiny::all()[1], &tiny::all()[0]] {
        let path = tiny::write(spec, dir.path());
        let options = Options {
            n_batch: 1,
            ..Options::default()
        };
        for split in SPLITS {
            let n_bytes = 2 * smallest(spec);
            let (stock, _) = run(split, &path, None, options, n_bytes);
            for policy in REGISTRY {
                let (output, devices) =
                    run(split, &path, Some(&config(policy.name)), options, n_bytes);
                assert!(output == stock, "{} {} {split:?}", spec.name, policy.name);
                check_devices(spec, &devices);
                let n_evictions: u64 = devices.iter().map(|d| d.generation.evictions).sum();
                assert!(n_evictions > 0, "{} {devices:?}", policy.name);
            }
        }
    }
}

/// A larger share of the layers is a larger share of the slots.
#[test]
pub fn an_uneven_split() {
    let dir = tempfile::tempdir().unwrap();
    let spec = tiny::all()[3];
    let path = tiny::write(&spec, dir.path());
    let options = Options::default();
    let sizes = |split| {
        let (_, devices) = run(
            split,
            &path,
            Some(&config("lru")),
            options,
            budget(&spec, 0.8),
        );
        [0, 1].map(|i: usize| (devices[i].n_layers, devices[i].n_slots))
    };
    let [even, uneven] = SPLITS.map(sizes);
    assert!(uneven[0].0 < even[0].0, "{even:?} {uneven:?}");
    assert!(uneven[0].1 < even[0].1, "{even:?} {uneven:?}");
    assert!(uneven[1].1 > uneven[0].1, "{even:?} {uneven:?}");
}

/// The trace of a run on two devices has the pools of both; replayed, it gives the hits of both together.
#[test]
pub fn replaying_a_run_on_two_devices() {
    let dir = tempfile::tempdir().unwrap();
    for spec in [&tiny::all()[1], &tiny::all()[7]] {
        let model = tiny::write(spec, dir.path());
        let path = dir.path().join("run.trace.gz");
        let mut config = config("adaptive");
        config.trace = Some(path.clone());
        let options = Options {
            n_threads: 1,
            n_batch: 1,
            n_tokens: 90,
            ..Options::default()
        };
        for split in SPLITS {
            let (_, devices) = run(split, &model, Some(&config), options, budget(spec, 1.1));
            check_devices(spec, &devices);
            let trace = Trace::open(&path, u32::MAX).unwrap();
            let header = trace.header();
            let shape = header.shape();
            let mut replay = Replay::new(&shape, &header.pools, "adaptive", None).unwrap();
            replay.run(trace.recorded()).unwrap();
            let total = |of: fn(&DeviceStats) -> u64| devices.iter().map(of).sum::<u64>();
            let decode = replay.counts().decode;
            assert_eq!(decode.hits, total(|d| d.generation.hits), "{}", spec.name);
            assert_eq!(
                decode.misses,
                total(|d| d.generation.misses),
                "{}",
                spec.name
            );
            assert_eq!(
                decode.evictions,
                total(|d| d.generation.evictions),
                "{}",
                spec.name
            );
        }
    }
}
