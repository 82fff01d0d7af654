//! Experts on a device: which ones, is our policies' choice, and what is computed is what upstream's cache
//! computes, to the bit. The device is a `ggml-rpc-server` on loopback; these tests need no GPU.

#![cfg(all(feature = "llama", feature = "rpc"))]
#![allow(unsafe_code)]

#[path = "../child/mod.rs"]
mod child;
mod exactness;
mod learning;
mod programs;
mod replaying;
#[path = "../rpc/mod.rs"]
mod rpc;
#[path = "../runner/mod.rs"]
mod runner;
mod tiers;
#[path = "../tiny/mod.rs"]
mod tiny;

use hotset::config::{Config, StatsTo};
use hotset::llama::sys::*;
use hotset::stats::Stats;
use rpc::Server;
use runner::{Options, Output, Runner, take_hook};
use std::ffi::{CStr, CString, c_char};
use std::path::Path;
use std::sync::OnceLock;

/// Layers whose experts stay in host memory: as `--cpu-moe`.
const CPU_MOE: &CStr = c"\\.ffn_(up|down|gate|gate_up)_(ch|)exps";

/// Makes llama.cpp know a server as a GPU, once. Call it after the hook was taken.
fn register_device() {
    static ENDPOINT: OnceLock<CString> = OnceLock::new();
    ENDPOINT.get_or_init(|| {
        let (sender, receiver) = std::sync::mpsc::channel();
        // The server ends with the thread that started it: one that stays.
        std::thread::spawn(move || {
            let server = Server::start();
            sender.send(server.endpoint()).unwrap();
            loop {
                std::thread::park();
            }
        });
        let endpoint = CString::new(receiver.recv().unwrap()).unwrap();
        type AddServer = unsafe extern "C" fn(*const c_char) -> ggml_backend_reg_t;
        // SAFETY: the function has this type, and takes a C string.
        unsafe {
            let rpc = ggml_backend_reg_by_name(c"RPC".as_ptr());
            assert!(!rpc.is_null(), "llama.cpp is built with RPC");
            let name = c"ggml_backend_rpc_add_server".as_ptr();
            let add = ggml_backend_reg_get_proc_address(rpc, name);
            let add: AddServer = std::mem::transmute(add);
            ggml_backend_register(add(endpoint.as_ptr()));
        }
        endpoint
    });
}

/// Loads a model whose experts are in host memory, with a cache of `n_bytes` on the device.
fn load(path: &Path, options: Options, n_bytes: usize) -> Runner {
    register_device();
    let overrides = [
        llama_model_tensor_buft_override {
            pattern: CPU_MOE.as_ptr(),
            // SAFETY: a plain getter.
            buft: unsafe { ggml_backend_cpu_buffer_type() },
        },
        llama_model_tensor_buft_override {
            pattern: std::ptr::null(),
            buft: std::ptr::null_mut(),
        },
    ];
    Runner::load_with(
        path,
        options,
        |params| {
            params.n_gpu_layers = 99;
            params.tensor_buft_overrides = overrides.as_ptr();
        },
        |params| params.moe_cache_size = n_bytes,
    )
    .expect("the model loads")
}

/// Runs a model once with a cache of `n_bytes`.
fn run(
    path: &Path,
    config: Option<&Config>,
    options: Options,
    n_bytes: usize,
) -> (Output, Option<Stats>) {
    let _hook = take_hook(config);
    let mut runner = load(path, options, n_bytes);
    let output = runner.run();
    (output, hotset::llama::stats().pop())
}

fn config(policy: &str) -> Config {
    Config {
        policy: policy.to_string(),
        stats: StatsTo::Off,
        guards_device: false,
        ..Config::default()
    }
}

/// A budget of this part of the bytes of all experts, and room for the one more that upstream adds.
fn budget(spec: &tiny::Spec, part: f64) -> usize {
    let layers = spec.arch.n_layer_dense()..spec.n_layer;
    let shape = [spec.n_embd, spec.n_ff, spec.n_expert];
    let types = layers.flat_map(|i| spec.types[i % spec.types.len()]);
    let all: usize = types.map(|t| t.n_bytes(&shape)).sum();
    (all as f64 * part) as usize
}

/// A budget for hardly more than one token's experts of a layer: every pool evicts all the time.
fn smallest(spec: &tiny::Spec) -> usize {
    budget(spec, (spec.n_used as f64 + 1.6) / spec.n_expert as f64)
}
