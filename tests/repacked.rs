//! Experts that stock llama.cpp repacks for the processor: streamed ones are repacked as well, and then the logits are
//! those of stock as it is by default, to the bit.

#![cfg(all(feature = "llama", feature = "cli"))]

mod runner;
mod tiny;

use hotset::config::{Config, Repack};
use hotset::policy::REGISTRY;
use hotset::stats::Stats;
use runner::{Options, Output, run, streaming};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

fn models() -> (TempDir, Vec<PathBuf>) {
    let dir = tempfile::tempdir().unwrap();
    let paths = tiny::repacked()
        .iter()
        .map(|spec| tiny::write(spec, dir.path()))
        .collect();
    (dir, paths)
}

const OPTIONS: Options = Options::REPACKED;

/// Runs with `config` where llama.cpp repacks, and compares with `stock`.
fn same(path: &Path, config: &Config, options: Options, stock: &Output) -> Stats {
    let stats = runner::same(path, config, options, stock);
    assert!(stats.is_repacked);
    stats
}

/// From everything in memory to nothing, where each part passes through the ring.
#[test]
fn budgets() {
    let (_dir, paths) = models();
    let mut differ = std::collections::BTreeSet::new();
    for path in &paths {
        for options in OPTIONS.shapes() {
            let (stock, _) = run(path, None, options);
            let (plain, _) = run(
                path,
                None,
                Options {
                    repacks: false,
                    ..options
                },
            );
            if stock.logits != plain.logits {
                differ.insert(path.file_stem().unwrap().to_str().unwrap());
            }
            for percent in [100.0, 30.0, 15.0, 0.0001] {
                let stats = same(path, &streaming(percent, Repack::On), options, &stock);
                assert_eq!(stats.n_slots == 0, percent < 1.0);
                assert_eq!(
                    stats.generation.evictions > 0,
                    percent > 1.0 && percent < 100.0
                );
            }
            // The other weights of these models are Q8_0, which a processor with AVX2 has no other order for.
            let (off, _) = run(path, Some(&streaming(30.0, Repack::Off)), options);
            assert!(
                off == plain || cfg!(not(target_arch = "x86_64")),
                "{}",
                path.display()
            );
        }
    }
    // Or nothing would be known.
    assert_eq!(differ.len(), paths.len(), "{differ:?}");
}

/// Whatever is found to pay, it is one of the two.
#[test]
fn what_pays() {
    let (_dir, paths) = models();
    let options = OPTIONS;
    for path in &paths {
        let (stock, _) = run(path, None, options);
        let (off, _) = run(path, Some(&streaming(30.0, Repack::Off)), options);
        for percent in [100.0, 30.0] {
            let (auto, _) = run(path, Some(&streaming(percent, Repack::Auto)), options);
            assert!(
                [&stock, &off].contains(&&auto),
                "{} {percent}",
                path.display()
            );
        }
    }
}

#[test]
fn policies() {
    let (_dir, paths) = models();
    let options = OPTIONS;
    for path in &paths {
        let (stock, _) = run(path, None, options);
        for policy in REGISTRY {
            let mut config = streaming(30.0, Repack::On);
            config.policy = policy.name.to_string();
            let stats = same(path, &config, options, &stock);
            assert!(stats.generation.evictions > 0, "{}", policy.name);
        }
    }
}

/// One thread, as many as there are row groups of a part, and reads that come late and stop half way.
#[test]
fn threads_and_reads() {
    let (_dir, paths) = models();
    for path in &paths {
        for n_threads in [1, 2, 8] {
            let options = Options {
                n_threads,
                n_tokens: 64,
                n_batch: 32,
                ..OPTIONS
            };
            let (stock, _) = run(path, None, options);
            let mut config = streaming(15.0, Repack::On);
            config.set("HOTSET_FAULT", "short=3,delay_ms=1").unwrap();
            let stats = same(path, &config, options, &stock);
            assert!(stats.generation.misses > 0);
        }
    }
}
