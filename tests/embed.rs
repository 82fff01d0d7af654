//! The way of people who build llama.cpp themselves: libhotset.a without llama.cpp in it, the
//! patched tree, their own cmake project. The first run compiles libllama; later ones reuse it.

#![cfg(all(feature = "llama", feature = "cli"))]

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Tokens to generate: enough for evictions at the budget below.
const N_TOKENS: usize = 16;
const RAM: &str = "30%";

fn package() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Cargo's target directory, which holds the directory that cargo makes for tests.
fn target() -> &'static Path {
    Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap()
}

/// `PATH` with the tools that our build used.
fn search_path() -> OsString {
    let ours = env!("BUILD_TOOLS_PATH");
    let path = env::var_os("PATH").unwrap_or_default();
    let dirs = env::split_paths(ours).filter(|dir| !dir.as_os_str().is_empty());
    env::join_paths(dirs.chain(env::split_paths(&path))).unwrap()
}

fn succeed(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(
        output.status.success(),
        "{command:?}: {}\n{out}\n{err}",
        output.status
    );
    output
}

/// Builds libhotset.a in a target directory of its own: ours is locked by the cargo that runs us.
fn build_library() -> PathBuf {
    let dir = target().join("embed-lib");
    succeed(
        Command::new(env!("CARGO"))
            .current_dir(package())
            .args([
                "build",
                "--release",
                "--lib",
                "--no-default-features",
                "--features",
                "hooks",
            ])
            .env("CARGO_TARGET_DIR", &dir)
            .env("LIBCLANG_PATH", env!("BUILD_LIBCLANG")),
    );
    dir.join("release/libhotset.a")
}

fn build_program(library: &Path) -> PathBuf {
    let dir = target().join("embed");
    let jobs = std::thread::available_parallelism().map_or(1, |n| n.get());
    succeed(
        Command::new("cmake")
            .env("PATH", search_path())
            .env("GIT_CEILING_DIRECTORIES", target())
            .arg("-S")
            .arg(package().join("tests/embed"))
            .arg("-B")
            .arg(&dir)
            .args(["-G", "Ninja", "-DCMAKE_BUILD_TYPE=Release"])
            // Compiled once and run for a second.
            .args([
                "-DCMAKE_C_FLAGS_RELEASE=-O1",
                "-DCMAKE_CXX_FLAGS_RELEASE=-O1",
            ])
            .arg(concat!("-DLLAMA_CPP_DIR=", env!("BUILD_LLAMA_SRC")))
            .arg(format!("-DLLAMA_HOTSET_LIB={}", library.display())),
    );
    succeed(
        Command::new("ninja")
            .env("PATH", search_path())
            .env("GIT_CEILING_DIRECTORIES", target())
            .arg("-C")
            .arg(&dir)
            .args(["-j", &jobs.to_string(), "embed"]),
    );
    dir.join("embed")
}

/// Runs the program with these settings and no others; returns stdout and stderr.
fn generate(program: &Path, settings: &[(&str, &str)]) -> (String, String) {
    let mut command = Command::new(program);
    for (name, _) in env::vars_os() {
        if name.to_string_lossy().starts_with("HOTSET") {
            command.env_remove(name);
        }
    }
    let output = succeed(
        command
            .arg(package().join("models/polyglot-moe.gguf"))
            .arg(N_TOKENS.to_string())
            .envs(settings.iter().copied()),
    );
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (text(output.stdout), text(output.stderr))
}

#[test]
fn a_program_that_links_libllama_streams_experts() {
    let program = build_program(&build_library());
    let (stock_tokens, stock_log) = generate(&program, &[("HOTSET", "off")]);
    let (tokens, log) = generate(&program, &[("HOTSET_RAM", RAM)]);

    assert_eq!(
        stock_tokens.split_whitespace().count(),
        N_TOKENS,
        "{stock_tokens}"
    );
    assert_eq!(tokens, stock_tokens, "\n{log}");
    assert!(
        !stock_log.contains("hotset"),
        "HOTSET=off is not stock:\n{stock_log}"
    );
    for line in [
        "hotset: 6 layers stream 384 experts",
        "best possible (Belady)",
    ] {
        assert!(log.contains(line), "no `{line}` in:\n{log}");
    }

    let mut wrong = Command::new(&program);
    wrong
        .args(["no-model.gguf", "1"])
        .env("HOTSET_NO_SUCH", "1");
    let output = wrong.output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{errors}");
    assert!(
        errors.starts_with("hotset: error: HOTSET_NO_SUCH=1: "),
        "{errors}"
    );
    assert_eq!(errors.lines().count(), 1, "{errors}");
}
