//! `--fit`: llama.cpp makes contexts that only measure, and leaves in host memory what does not fit.

use crate::child::{self, StatsFile, completion, polyglot};
use crate::rpc::Server;

/// Of this memory of the device the model may use.
const FITS_MIB: u64 = 24;

#[test]
fn what_does_not_fit_is_kept_as_far_as_there_is_room() {
    let server = Server::start();
    let endpoint = server.endpoint();
    // A server without a GPU says it has all memory of the machine.
    let total = sysinfo::System::new_with_specifics(
        sysinfo::RefreshKind::nothing().with_memory(sysinfo::MemoryRefreshKind::everything()),
    )
    .total_memory();
    let target = ((total >> 20) - FITS_MIB).to_string();
    let args = [
        "--rpc",
        &endpoint,
        "--n-gpu-layers",
        "auto",
        "--fit",
        "on",
        "--fit-target",
        &target,
        "--moe-cache-mib",
        "4",
    ];
    let run = |vars: &[(&str, &str)]| child::run(completion(&polyglot(), vars, &args));
    let stock = run(&[("HOTSET", "off")]);
    let file = StatsFile::new();
    let path = file.path();
    let ended = run(&[("HOTSET_DEVICE_CACHE", "on"), ("HOTSET_STATS", &path)]);
    assert_eq!(ended.text(), stock.text());
    assert!(
        !ended.stderr.contains("no experts are kept"),
        "{}",
        ended.stderr
    );
    let device = file.read()["devices"][0].take();
    assert!(device["n_layers"].as_u64() > Some(0), "{device:#}");
    assert!(
        device["generation"]["hits"].as_u64() > Some(0),
        "{device:#}"
    );
}
