//! Graphs of many thin layers: the cache of experts and the rotation of a quantised KV cache add nodes to each.

use crate::child::{self, Ended, completion};
use crate::rpc::Server;
use crate::tiny::{self, Arch, Spec, Type};
use std::path::Path;

/// As few bytes as a layer can have; its tokens use many experts.
fn thin(arch: Arch, n_layer: usize, top_k: usize) -> Spec {
    Spec {
        name: "thin",
        arch,
        n_layer,
        n_embd: 128,
        n_expert: top_k + 2,
        top_k,
        n_ff: 32,
        types: &[[Type::Q8_0; 3]],
        seed: 11,
        splits: 1,
    }
}

fn run(device: &Server, model: &Path, vars: &[(&str, &str)], kv: &[&str]) -> Ended {
    let on_device = super::on_device(&device.endpoint());
    let on_device: Vec<_> = on_device.iter().map(String::as_str).collect();
    let few = ["-p", "abc", "-n", "3", "--moe-cache-mib", "64"];
    let args = [&on_device, &few[..], kv].concat();
    child::run(completion(model, vars, &args))
}

#[test]
fn many_thin_layers_with_any_kv_cache() {
    const QUANTISED: &[&str] = &["-fa", "on", "-ctk", "q8_0", "-ctv", "q4_0"];
    const NO_FLASH: &[&str] = &["-fa", "off", "-ctk", "q5_1"];
    let dir = tempfile::tempdir().unwrap();
    let device = Server::start();
    let cases = [
        (thin(Arch::Llama, 60, 16), &[][..]),
        (thin(Arch::Llama, 92, 24), QUANTISED),
        (thin(Arch::Llama, 60, 16), NO_FLASH),
        (thin(Arch::Qwen3Moe, 92, 16), QUANTISED),
    ];
    for (spec, kv) in cases {
        let model = tiny::write(&spec, dir.path());
        let stock = run(&device, &model, &[("HOTSET", "off")], kv);
        assert_eq!(stock.code(), 0, "{spec:?} {kv:?}: {}", stock.stderr);
        let ended = run(&device, &model, &[("HOTSET_DEVICE_CACHE", "on")], kv);
        assert_eq!(ended.text(), stock.text(), "{spec:?} {kv:?}");
    }
}
