//! The logits of upstream's own cache, with the same budget on the same device, to the bit.

use super::{budget, config, run, smallest};
use crate::runner::{Options, Output};
use crate::tiny;
use hotset::config::{Config, Ram};
use hotset::device::DeviceStats;
use hotset::policy::REGISTRY;
use std::path::Path;

/// Batches of 1, 8, 32 and 512.
const SHAPES: [Options; 4] = {
    const fn shape(n_batch: usize, n_tokens: usize) -> Options {
        Options {
            n_threads: 2,
            n_batch,
            n_ubatch: 512,
            n_tokens,
            n_generated: 8,
            n_seq: 1,
            repacks: false,
        }
    }
    [shape(1, 24), shape(8, 48), shape(32, 96), shape(512, 512)]
};

/// Runs with `config` and compares with `stock`; the counters of the device.
fn same(
    path: &Path,
    config: &Config,
    options: Options,
    n_bytes: usize,
    stock: &Output,
) -> DeviceStats {
    let (output, stats) = run(path, Some(config), options, n_bytes);
    let what = format!("{} {} {options:?}", path.display(), config.policy);
    assert_eq!(output.tokens, stock.tokens, "tokens: {what}");
    let pairs = output.logits.iter().zip(&stock.logits);
    let differ = pairs.clone().position(|(a, b)| a != b);
    assert_eq!(differ, None, "first logit that differs: {what}");
    assert_eq!(output.logits.len(), stock.logits.len(), "{what}");
    let mut devices = stats.expect("a device keeps experts").devices;
    assert_eq!(devices.len(), 1, "{what}");
    let device = devices.remove(0);
    let uploads = device.generation.misses > 0;
    assert_eq!(uploads, device.bytes_uploaded > 0, "{what}");
    device
}

#[test]
pub fn batches_and_budgets() {
    let dir = tempfile::tempdir().unwrap();
    for spec in tiny::all() {
        let path = tiny::write(&spec, dir.path());
        for (n_bytes, is_smallest) in [(smallest(&spec), true), (budget(&spec, 0.66), false)] {
            for options in SHAPES {
                let (stock, none) = run(&path, None, options, n_bytes);
                assert!(none.is_none(), "without the hook nothing is counted");
                let device = same(&path, &config("adaptive"), options, n_bytes, &stock);
                let what = format!("{} {options:?} {device:?}", spec.name);
                assert!(
                    device.generation.hits + device.generation.misses > 0,
                    "{what}"
                );
                if is_smallest && options.n_batch == 1 {
                    assert!(device.generation.evictions > 50, "{what}");
                }
                if options.n_batch == 512 {
                    assert!(device.n_uncached > 0, "{what}");
                }
            }
        }
    }
}

#[test]
pub fn policies() {
    let dir = tempfile::tempdir().unwrap();
    for spec in tiny::all() {
        let path = tiny::write(&spec, dir.path());
        let n_bytes = smallest(&spec);
        let options = Options::default();
        let (stock, _) = run(&path, None, options, n_bytes);
        for policy in REGISTRY {
            let device = same(&path, &config(policy.name), options, n_bytes, &stock);
            assert!(device.generation.evictions > 0, "{} {device:?}", spec.name);
        }
    }
}

/// All experts fit: each is uploaded once.
#[test]
pub fn whatever_fits_stays() {
    let dir = tempfile::tempdir().unwrap();
    for spec in tiny::all() {
        let path = tiny::write(&spec, dir.path());
        let n_bytes = budget(&spec, 1.5);
        let options = SHAPES[2];
        let (stock, _) = run(&path, None, options, n_bytes);
        let device = same(&path, &config("adaptive"), options, n_bytes, &stock);
        assert_eq!(device.n_slots as usize, device.n_experts, "{device:?}");
        assert_eq!(device.generation.evictions, 0, "{device:?}");
        assert_eq!(
            device.generation.misses,
            u64::from(device.n_resident),
            "{device:?}"
        );
    }
}

/// Several sequences of one batch, as a server computes them.
#[test]
pub fn sequences_in_one_batch() {
    let dir = tempfile::tempdir().unwrap();
    for spec in tiny::all() {
        let path = tiny::write(&spec, dir.path());
        let options = Options {
            n_batch: 4,
            n_seq: 4,
            ..Options::default()
        };
        // Enough for what four tokens pick, in pools of one layer too.
        let n_bytes = budget(&spec, 1.1);
        let (stock, _) = run(&path, None, options, n_bytes);
        let device = same(&path, &config("adaptive"), options, n_bytes, &stock);
        assert!(device.generation.hits > 0, "{device:?}");
    }
}

/// A budget below one token's experts is no error, for a part of the layers or for all.
#[test]
fn layers_that_do_not_fit_are_computed_without() {
    let dir = tempfile::tempdir().unwrap();
    // Two layers of one layout and one of another, whose pool is half as large.
    let spec = tiny::all()[0];
    let path = tiny::write(&spec, dir.path());
    let options = SHAPES[0];
    let (stock, _) = run(&path, None, options, 0);
    let (output, stats) = run(&path, Some(&config("adaptive")), options, 1000);
    assert!(output == stock);
    assert!(stats.is_none(), "{stats:?}");
    let n_bytes = budget(&spec, 4.2 / 32.0);
    let device = same(&path, &config("adaptive"), options, n_bytes, &stock);
    assert_eq!(device.n_layers, 2, "{device:?}");
    assert!(device.generation.evictions > 0);
}

/// What the host does not hold either is read from the file.
#[test]
pub fn streamed_models() {
    let dir = tempfile::tempdir().unwrap();
    for spec in tiny::all() {
        let path = tiny::write(&spec, dir.path());
        let n_bytes = budget(&spec, 0.66);
        for options in [SHAPES[1], SHAPES[3]] {
            let (stock, _) = run(&path, None, options, n_bytes);
            let mut streaming = config("adaptive");
            streaming.ram = Some(Ram::Percent(30.0));
            let device = same(&path, &streaming, options, n_bytes, &stock);
            assert!(device.generation.hits > 0, "{device:?}");
        }
    }
}
