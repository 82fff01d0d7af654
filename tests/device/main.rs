//! Experts on a device: which ones, is our policies' choice, and what is computed is what upstream's cache
//! computes, to the bit. The devices are `ggml-rpc-server`s on loopback; `gpu.rs` has the tests that need a GPU.

#![cfg(all(feature = "llama", feature = "cli", feature = "rpc"))]
#![allow(unsafe_code)]

mod adapters;
#[path = "../child/mod.rs"]
mod child;
mod exactness;
mod fit;
mod gpu;
mod learning;
mod machines;
mod nodes;
mod placed;
mod programs;
mod replaying;
#[path = "../rpc/mod.rs"]
mod rpc;
#[path = "../runner/mod.rs"]
mod runner;
mod server;
#[path = "../serving/mod.rs"]
mod serving;
mod tiers;
#[path = "../tiny/mod.rs"]
mod tiny;
mod two;

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

/// Two devices: servers, or a GPU and a server. Call it after the hook was taken.
fn devices() -> [ggml_backend_dev_t; 2] {
    let servers = rpc_devices();
    match gpu::is_meant() {
        true => [gpu::find(), servers[0]],
        false => servers,
    }
}

/// Two servers that llama.cpp knows as GPUs.
fn rpc_devices() -> [ggml_backend_dev_t; 2] {
    static DEVICES: OnceLock<[usize; 2]> = OnceLock::new();
    let addresses = DEVICES.get_or_init(|| {
        let (sender, receiver) = std::sync::mpsc::channel();
        // A server ends with the thread that started it: one that stays.
        std::thread::spawn(move || {
            let servers = [Server::start(), Server::start()];
            sender
                .send(servers.each_ref().map(Server::endpoint))
                .unwrap();
            loop {
                std::thread::park();
            }
        });
        receiver.recv().unwrap().map(register)
    });
    addresses.map(|address| address as ggml_backend_dev_t)
}

/// The address of the device that a server is.
fn register(endpoint: String) -> usize {
    type AddServer = unsafe extern "C" fn(*const c_char) -> ggml_backend_reg_t;
    let endpoint = CString::new(endpoint).unwrap();
    // SAFETY: the function has this type, and takes a C string; a server has a device, which stays.
    unsafe {
        let rpc = ggml_backend_reg_by_name(c"RPC".as_ptr());
        assert!(!rpc.is_null(), "llama.cpp is built with RPC");
        let name = c"ggml_backend_rpc_add_server".as_ptr();
        let add = ggml_backend_reg_get_proc_address(rpc, name);
        let add: AddServer = std::mem::transmute(add);
        let server = add(endpoint.as_ptr());
        ggml_backend_register(server);
        ggml_backend_reg_dev_get(server, 0) as usize
    }
}

/// Loads a model whose experts are in host memory, with a cache of `n_bytes` on the first device.
fn load(path: &Path, options: Options, n_bytes: usize) -> Runner {
    load_on(&devices()[..1], &[1.0], path, options, n_bytes)
}

/// The same with layers on several devices, in proportion to `split`.
fn load_on(
    devices: &[ggml_backend_dev_t],
    split: &[f32],
    path: &Path,
    options: Options,
    n_bytes: usize,
) -> Runner {
    let mut devices = devices.to_vec();
    devices.push(std::ptr::null_mut());
    let mut split = split.to_vec();
    // SAFETY: a plain getter.
    split.resize(unsafe { llama_max_devices() }, 0.0);
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
            params.devices = devices.as_mut_ptr();
            params.tensor_split = split.as_ptr();
            params.n_gpu_layers = 99;
            params.tensor_buft_overrides = overrides.as_ptr();
        },
        |params| params.moe_cache_size = n_bytes,
    )
    .expect("the model loads")
}

/// Options of programs that put all layers on a device, the server there or a GPU, and leave the experts in host memory.
fn on_device(endpoint: &str) -> Vec<String> {
    let device = match gpu::is_meant() {
        true => vec!["--device".to_string(), gpu::name()],
        // Not on a GPU that the server's machine has, too.
        false => ["--rpc", endpoint, "--device", "RPC0"]
            .map(String::from)
            .into(),
    };
    let rest = ["--n-gpu-layers", "99", "--cpu-moe"].map(String::from);
    [device, rest.into()].concat()
}

/// Runs a model once with a cache of `n_bytes`.
fn run(
    path: &Path,
    config: Option<&Config>,
    options: Options,
    n_bytes: usize,
) -> (Output, Option<Stats>) {
    let _hook = take_hook(config);
    counted(load(path, options, n_bytes))
}

/// Runs a loaded model.
fn counted(mut runner: Runner) -> (Output, Option<Stats>) {
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
    budget(spec, (spec.top_k as f64 + 1.6) / spec.n_expert as f64)
}
