//! The same on a real GPU. No test machine of ours has one: run these where there is, with
//! `cargo test --release --features cuda --test device -- --ignored gpu`; `benches/gpu.sh` does so.

use super::{budget, config, counted, load_on, smallest};
use crate::runner::{Options, Output, take_hook};
use crate::tiny;
use hotset::config::Config;
use hotset::llama::sys::*;
use hotset::stats::Stats;
use std::ffi::CStr;
use std::path::Path;

/// A GPU of this machine. Call it after the hook was taken.
fn gpu() -> ggml_backend_dev_t {
    // SAFETY: plain getters; a device and its registry live as long as the process.
    let is_local_gpu = |device: &ggml_backend_dev_t| unsafe {
        let registry = ggml_backend_reg_name(ggml_backend_dev_backend_reg(*device));
        let kind = ggml_backend_dev_type(*device);
        let is_gpu = [GGML_BACKEND_DEVICE_TYPE_GPU, GGML_BACKEND_DEVICE_TYPE_IGPU].contains(&kind);
        is_gpu && CStr::from_ptr(registry) != c"RPC"
    };
    // SAFETY: a plain getter.
    let n_devices = unsafe { ggml_backend_dev_count() };
    // SAFETY: the numbers are below the count.
    let mut devices = (0..n_devices).map(|i| unsafe { ggml_backend_dev_get(i) });
    let found = devices.find(is_local_gpu);
    found.expect("a GPU, and --features cuda, metal or vulkan")
}

fn run(
    path: &Path,
    config: Option<&Config>,
    options: Options,
    n_bytes: usize,
) -> (Output, Option<Stats>) {
    let _hook = take_hook(config);
    counted(load_on(&[gpu()], &[1.0], path, options, n_bytes))
}

#[test]
#[ignore = "needs a GPU that llama.cpp is built for, as CUDA: benches/gpu.sh"]
fn a_gpu_computes_what_it_computes_with_upstreams_cache() {
    let dir = tempfile::tempdir().unwrap();
    for spec in tiny::all() {
        let path = tiny::write(&spec, dir.path());
        for n_bytes in [smallest(&spec), budget(&spec, 0.66)] {
            for n_batch in [1, 8, 32, 512] {
                let options = Options {
                    n_batch,
                    n_tokens: n_batch.max(48),
                    ..Options::default()
                };
                let (stock, _) = run(&path, None, options, n_bytes);
                for policy in ["adaptive", "lru"] {
                    let (output, stats) = run(&path, Some(&config(policy)), options, n_bytes);
                    let what = format!("{} {policy} {options:?} {n_bytes}", spec.name);
                    assert!(output == stock, "{what}");
                    let device = stats.expect("the GPU keeps experts").devices.remove(0);
                    assert!(device.generation.picks() > 0, "{what}");
                }
            }
        }
    }
}
