//! LoRA adapters on attention and on experts change the output of streamed models as they change
//! that of stock llama.cpp: to the bit.

#![cfg(all(feature = "llama", feature = "cli"))]

mod child;
mod runner;
mod tiny;

use child::completion;
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
        for ram in [Ram::Percent(30.0), Ram::Percent(8.0), Ram::Percent(0.0001)] {
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
                ram != Ram::Percent(0.0001),
                "{what}"
            );
        }
    }
}

/// An adapter that was made for another model ends the program with the tensor's name, whatever dimension is wrong.
#[test]
fn lora_of_another_shape_is_refused() {
    let spec = tiny::all()[0];
    let dir = tempfile::tempdir().unwrap();
    let path = tiny::write(&spec, dir.path());
    let other = |n_expert| tiny::Spec { n_expert, ..spec };
    let fitting = tiny::lora::write(&spec, dir.path());
    let run = |vars: (&str, &str), adapter: &Path| {
        let args = ["-n", "2", "--lora", adapter.to_str().unwrap()];
        let ended = child::run(completion(&path, &[vars], &args));
        (ended.code(), ended.stderr)
    };
    for vars in [("HOTSET", "off"), ("HOTSET_RAM", "30%")] {
        let (code, stderr) = run(vars, &fitting);
        assert_eq!(code, 0, "{stderr}");
        // What the file of an adapter has is looked at in the order of the names.
        let experts = "blk.0.ffn_down_exps.weight";
        let (embedding, attention) = ("token_embd.weight", "blk.0.attn_output.weight");
        let wrong = [
            (tiny::lora::write(&other(31), dir.path()), experts),
            (tiny::lora::write(&other(16), dir.path()), experts),
            (tiny::lora::write(&other(33), dir.path()), experts),
            (tiny::lora::write(&other(64), dir.path()), experts),
        ];
        let stray = [
            // One of the two, or both, have a dimension too many; and different ranks.
            (attention, [&[256, 8, 2][..], &[8, 256]]),
            (attention, [&[256, 8], &[8, 256, 2]]),
            (attention, [&[256, 8, 1, 3], &[8, 256, 1, 3]]),
            (experts, [&[256, 8, 32], &[8, 256]]),
            (experts, [&[256, 8], &[8, 256, 32]]),
            (experts, [&[256, 8, 32], &[8, 256, 31]]),
            (embedding, [&[8, tiny::N_VOCAB, 2], &[8, 256]]),
            (embedding, [&[8, tiny::N_VOCAB], &[8, 256, 2]]),
            (embedding, [&[8, tiny::N_VOCAB], &[4, 256]]),
        ];
        let stray = stray.map(|(name, shapes)| {
            let adapter = tiny::lora::write_pair(&spec, dir.path(), name, shapes);
            (adapter, name)
        });
        for (adapter, name) in wrong.into_iter().chain(stray) {
            let (code, stderr) = run(vars, &adapter);
            assert_eq!(code, 1, "{name} {stderr}");
            assert!(stderr.contains(&format!("tensor '{name}' ")), "{stderr}");
        }
    }
}
