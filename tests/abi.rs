//! The policy ABI, driven from C through the static library.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The static library that cargo built beside this test, in the same profile.
fn library() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let deps = test.parent().unwrap();
    let newest = std::fs::read_dir(deps)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            let name = path.file_name().unwrap().to_str().unwrap();
            name.starts_with("libhotset") && name.ends_with(".a")
        })
        .max_by_key(|path| path.metadata().unwrap().modified().unwrap());
    newest.expect("the library is built as a staticlib")
}

/// Builds `tests/c/NAME.c` and runs it.
fn passes(name: &str, argument: Option<&Path>) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join(name);
    // With the feature `llama` the library also holds glue that calls llama.cpp. The program does not
    // use it, so the linker drops it together with what it needs.
    let built = Command::new("cc")
        .args([
            "-std=c99",
            "-Wall",
            "-Wextra",
            "-Werror",
            "-ffunction-sections",
            "-I",
        ])
        .arg(root.join("include"))
        .arg(root.join(format!("tests/c/{name}.c")))
        .arg(library())
        .args(["-Wl,--gc-sections", "-lpthread", "-ldl", "-lm", "-o"])
        .arg(&program)
        .output()
        .expect("a C compiler");
    let errors = String::from_utf8_lossy(&built.stderr);
    assert!(built.status.success(), "{errors}");
    let ran = Command::new(&program).args(argument).output().unwrap();
    let errors = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{errors}");
}

#[test]
fn another_engine_can_use_the_cache() {
    let trace = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/it.trace.gz");
    passes("abi", Some(&trace));
}

#[test]
fn another_engine_can_keep_profiles() {
    passes("profile", Some(tempfile::tempdir().unwrap().path()));
}

#[test]
fn another_engine_can_start_warm() {
    passes("warm", None);
}
