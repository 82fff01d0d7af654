//! LoRA adapters on attention and on experts change the output of streamed models as they change
//! that of stock llama.cpp: to the bit.

#![cfg(feature = "llama")]

mod runner;
mod tiny;

use hotset::config::{Config, Ram, StatsTo};
use hotset::llama;
use hotset::stats::Stats;
use runner::{Options, Output, Runner, take_hook};
use std::path::Path;

/// Runs the model with the adapter, if there is one.
fn run(path: &Path, adapter: Option<&Path>, config: Option<&Config>) -> (Output, Option<Stats>) {
    let _hook = take_hook(config);
    let mut runner = Runner::load(path, Options::default()).expect("the model loads");
    if let Some(adapter) = adapter {
        runner.adapt(adapter);
    }
    (runner.run(), llama::stats().pop())
}

#[test]
fn lora_on_attention_and_experts() {
    for spec in tiny::all() {
        let dir = tempfile::tempdir().unwrap();
        let path = tiny::write(&spec, dir.path());
        let adapter = tiny::lora::write(&spec, dir.path());
        let (plain, _) = run(&path, None, None);
        let (stock, _) = run(&path, Some(&adapter), None);
        let n_same = plain
            .logits
            .iter()
            .zip(&stock.logits)
            .filter(|(a, b)| a == b)
            .count();
        assert!(
            n_same * 2 < stock.logits.len(),
            "the adapter matters: {spec:?}"
        );
        assert!(
            stock.logits.iter().all(|x| f32::from_bits(*x).is_finite()),
            "{spec:?}"
        );

        // Below a token's experts, and so little that all experts pass through the staging ring.
        for ram in [Ram::Percent(30.0), Ram::Percent(8.0), Ram::Bytes(1)] {
            let config = Config {
                ram: Some(ram),
                stats: StatsTo::Off,
                ..Config::default()
            };
            let (output, stats) = run(&path, Some(&adapter), Some(&config));
            let what = format!("{ram:?} {spec:?}");
            assert_eq!(output.tokens, stock.tokens, "{what}");
            assert!(output.logits == stock.logits, "{what}");
            let stats = stats.expect("experts were streamed");
            assert!(stats.generation.misses > 0, "{what}");
            assert_eq!(
                stats.generation.evictions > 0,
                ram != Ram::Bytes(1),
                "{what}"
            );
        }
    }
}
