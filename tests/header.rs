//! `include/hotset.h` is C99 and C++17, may be included twice, and needs no other header before it.

use std::fs;
use std::process::Command;

fn compiles(compiler: &str, default: &str, file: &str, standard: &str) {
    let compiler = std::env::var(compiler).unwrap_or(default.to_owned());
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join(file);
    // The function keeps -pedantic from objecting to an empty translation unit.
    let text = "#include <hotset.h>\n#include <hotset.h>\nint main(void) { return 0; }\n";
    fs::write(&source, text).unwrap();
    let output = Command::new(&compiler)
        .args([
            standard,
            "-Wall",
            "-Wextra",
            "-Werror",
            "-pedantic",
            "-fsyntax-only",
        ])
        .arg(concat!("-I", env!("CARGO_MANIFEST_DIR"), "/include"))
        .arg(&source)
        .output()
        .unwrap_or_else(|e| panic!("{compiler}: {e}"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{compiler} {standard}:\n{errors}");
}

#[test]
fn header_is_c99() {
    compiles("CC", "cc", "twice.c", "-std=c99");
}

#[test]
fn header_is_cpp17() {
    compiles("CXX", "c++", "twice.cpp", "-std=c++17");
}
