//! The same tests on a GPU of this machine. No test machine of ours has one, so they are ignored; where there is
//! one: `cargo test --release --features cuda --test device -- --ignored`, or `metal`, or `vulkan`. docs/testing.md
//! says how Vulkan takes the processor for a GPU.

use super::{budget, config, run};
use crate::runner::Options;
use crate::tiny;
use hotset::config::Ram;
use hotset::llama::sys::*;
use std::cell::Cell;
use std::ffi::CStr;

thread_local! {
    /// Whether this thread's test is to run on a GPU.
    static IS_MEANT: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread's test is to run on a GPU.
pub fn is_meant() -> bool {
    IS_MEANT.get()
}

/// A GPU of this machine.
pub fn find() -> ggml_backend_dev_t {
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

/// What llama.cpp calls it.
pub fn name() -> String {
    // SAFETY: a device's name lives as long as the process.
    let name = unsafe { CStr::from_ptr(ggml_backend_dev_name(find())) };
    name.to_string_lossy().into_owned()
}

macro_rules! on_a_gpu {
    ($($module:ident::$test:ident,)*) => { $(
        #[test]
        #[ignore = "needs a GPU, and --features cuda, metal or vulkan"]
        fn $test() {
            IS_MEANT.set(true);
            crate::$module::$test();
        }
    )* };
}

// All but those that compare with what the CPU computes, which rounds differently.
on_a_gpu! {
    exactness::batches_and_budgets,
    exactness::policies,
    exactness::whatever_fits_stays,
    exactness::sequences_in_one_batch,
    exactness::streamed_models,
    tiers::smallest_budgets,
    tiers::prompts_and_generation,
    tiers::capacities_add_up,
    replaying::replaying_gives_the_hits_of_the_run,
    learning::a_profile_warms_the_device,
    learning::warm_starts_are_exact,
    adapters::lora_on_attention_and_experts,
    programs::the_counters_of_a_device,
    server::four_requests_at_a_time,
    server::accepted_drafts,
    two::two_devices_are_exact,
    two::policies_on_two_devices,
    two::an_uneven_split,
    two::replaying_a_run_on_two_devices,
}

/// Prompts that the GPU computes, with experts that are copied there: from memory, or from disk through ours. All
/// of what they pick is recorded, and counted as a scan.
#[test]
#[ignore = "needs a GPU, and --features cuda, metal or vulkan"]
fn prompts() {
    IS_MEANT.set(true);
    let dir = tempfile::tempdir().unwrap();
    let options = Options {
        n_batch: 80,
        n_tokens: 160,
        ..Options::default()
    };
    for spec in tiny::all() {
        let path = tiny::write(&spec, dir.path());
        for n_bytes in [0, budget(&spec, 0.5)] {
            let (stock, _) = run(&path, None, options, n_bytes);
            let seen = |ram: Option<Ram>| {
                let trace = dir.path().join("run.trace.gz");
                let mut config = config("adaptive");
                config.trace = Some(trace.clone());
                config.ram = ram;
                let (output, stats) = run(&path, Some(&config), options, n_bytes);
                let what = format!("{} {n_bytes} {ram:?}", spec.name);
                assert!(output == stock, "{what}");
                if n_bytes > 0 {
                    let device = &stats.as_ref().expect("there is a cache").devices[0];
                    assert!(device.n_uncached > 0, "{what}: the cache hears of prompts");
                }
                (crate::learning::lines(&trace), stats)
            };
            let (loaded, _) = seen(None);
            let n_layers = spec.n_layer - spec.arch.n_layer_dense();
            let n_lines = loaded.lines().filter(|line| !line.is_empty()).count();
            assert_eq!(n_lines, n_layers * 168, "{}", spec.name);
            for percent in [0.1, 30.0, 100.0] {
                let (streamed, stats) = seen(Some(Ram::Percent(percent)));
                let what = format!("{} {n_bytes} {percent}", spec.name);
                assert!(streamed == loaded, "{what}");
                let stats = stats.expect("it streams");
                assert_eq!(stats.prompt.events, 2 * n_layers as u64, "{what}");
                assert_eq!(stats.prompt.tokens, 160, "{what}");
                assert_eq!(stats.prompt.evictions, 0, "{what}");
                assert_eq!(stats.prompt.misses > 0, percent < 99.0, "{what}");
            }
        }
    }
}
