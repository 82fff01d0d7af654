//! LoRA adapters, those on experts too: what they add is computed beside the experts that a device keeps.

use super::{budget, config, counted, load, smallest};
use crate::runner::{Options, Output, take_hook};
use crate::tiny;
use hotset::config::Config;
use hotset::device::DeviceStats;
use std::path::Path;

fn run(
    path: &Path,
    adapter: Option<&Path>,
    config: Option<&Config>,
    options: Options,
    n_bytes: usize,
) -> (Output, Option<DeviceStats>) {
    let _hook = take_hook(config);
    let mut runner = load(path, options, n_bytes);
    if let Some(adapter) = adapter {
        runner.adapt(adapter);
    }
    let (output, stats) = counted(runner);
    (output, stats.map(|mut stats| stats.devices.remove(0)))
}

#[test]
pub fn lora_on_attention_and_experts() {
    let dir = tempfile::tempdir().unwrap();
    for spec in tiny::all() {
        let path = tiny::write(&spec, dir.path());
        let adapter = tiny::lora::write(&spec, dir.path());
        for n_batch in [1, 8] {
            let options = Options {
                n_batch,
                n_tokens: 32,
                ..Options::default()
            };
            for n_bytes in [smallest(&spec), budget(&spec, 1.1)] {
                let what = format!("{} {options:?} {n_bytes}", spec.name);
                let (plain, _) = run(&path, None, None, options, n_bytes);
                let (stock, _) = run(&path, Some(&adapter), None, options, n_bytes);
                let pairs = plain.logits.iter().zip(&stock.logits);
                let n_same = pairs.filter(|(a, b)| a == b).count();
                assert!(
                    n_same * 2 < stock.logits.len(),
                    "the adapter matters: {what}"
                );
                let config = config("adaptive");
                let (output, device) = run(&path, Some(&adapter), Some(&config), options, n_bytes);
                assert!(output == stock, "{what}");
                let device = device.expect("layers with an adapter are kept on the device too");
                assert_eq!(
                    device.n_layers,
                    spec.n_layer - spec.arch.n_layer_dense(),
                    "{what}"
                );
                if n_batch == 1 {
                    assert!(device.generation.hits > 0, "{what} {device:?}");
                    assert!(device.generation.misses > 0, "{what} {device:?}");
                }
            }
        }
    }
}
