//! Upstream's own tests of llama-server see the same with experts that stream as without hotset: each outcome, each
//! assertion, each answer.

#![cfg(all(feature = "llama", feature = "cli"))]

#[path = "../parts/mod.rs"]
mod parts;

use parts::tree_with;
use std::path::Path;
use std::process::Command;

/// Runs these of upstream's tests both ways; all, if none are named.
fn same(tests: &[&str]) {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let work = Path::new(env!("CARGO_TARGET_TMPDIR")).join("upstream-server");
    let mut command = Command::new("python3");
    command.arg(package.join("tests/upstream_server/run.py"));
    command.args(["--server", env!("CARGO_BIN_EXE_llama-server")]);
    let suite = Path::new(env!("BUILD_LLAMA_PRISTINE")).join("tools/server/tests");
    command.arg("--suite").arg(suite);
    let templates = tree_with(&work.join("tree"), "models/templates").join("models/templates");
    command.arg("--templates").arg(templates);
    command
        .arg("--model")
        .arg(package.join("models/polyglot-moe.gguf"));
    command.arg("--work").arg(&work);
    if tests.is_empty() {
        command.arg("--report").arg(work.with_extension("md"));
    }
    let status = command.args(tests).status().unwrap();
    assert!(status.success(), "{command:?}: {status}");
}

/// Plain, parallel, cut and drafted completions, embeddings, adapters, metrics, sleep, downloads and presets.
#[test]
fn some() {
    same(&[
        "unit/test_basic.py",
        "unit/test_compat_oai_responses.py",
        "unit/test_completion.py",
        "unit/test_embedding.py",
        "unit/test_lora.py",
        "unit/test_metrics.py",
        "unit/test_sleep.py",
        "unit/test_speculative.py",
        "unit/test_router.py::test_router_download_model",
        "unit/test_router.py::test_router_remote_preset",
    ]);
}

#[test]
#[ignore = "takes five minutes"]
fn all() {
    same(&[]);
}
