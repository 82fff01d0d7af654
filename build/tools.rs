//! cmake, ninja and libclang: the machine's own where they work, else pinned ones below `target/`.

use super::Dirs;
use super::run::{run, say};
use anyhow::{Context, Result, ensure};
use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The oldest cmake that the scripts of llama.cpp and BoringSSL run with.
const CMAKE_MIN: (u32, u32) = (3, 22);

/// Where the tools are.
pub struct Tools {
    /// Directories to search before the ones in `PATH`; empty if those have what we need.
    pub path: Vec<PathBuf>,
    /// The directory of libclang.
    pub libclang: PathBuf,
}

impl Tools {
    /// `PATH` for a command that runs the tools.
    pub fn search_path(&self) -> OsString {
        let path = env::var_os("PATH").unwrap_or_default();
        let dirs = self.path.iter().cloned().chain(env::split_paths(&path));
        env::join_paths(dirs).unwrap_or(path)
    }
}

/// Finds the tools, or installs them: no root and no system package is needed.
pub fn find(dirs: &Dirs) -> Result<Tools> {
    for name in ["LIBCLANG_PATH", "PATH"] {
        println!("cargo:rerun-if-env-changed={name}");
    }
    let needs_cmake = cfg!(feature = "llama");
    let of_system = Tools {
        path: Vec::new(),
        libclang: system_libclang().unwrap_or_default(),
    };
    if of_system.libclang.exists() && (!needs_cmake || runs(&of_system)) {
        return Ok(of_system);
    }

    let dir = dirs.target.join("tools");
    // The wheel's bin/cmake is a script that needs PYTHONPATH; the program itself does not.
    let ours = Tools {
        path: vec![dir.join("cmake/data/bin"), dir.join("bin")],
        libclang: dir.join("clang/native"),
    };
    if !(has_libclang(&ours.libclang) && (!needs_cmake || runs(&ours))) {
        install(&dirs.package.join("vendor/tools.txt"), &dir)?;
    }
    ensure!(
        has_libclang(&ours.libclang) && (!needs_cmake || runs(&ours)),
        "the tools installed in {} do not run on this machine: \
         install cmake, ninja and libclang, and set LIBCLANG_PATH",
        dir.display()
    );
    Ok(Tools {
        libclang: system_libclang().unwrap_or(ours.libclang),
        ..ours
    })
}

fn install(requirements: &Path, dir: &Path) -> Result<()> {
    say("fetching cmake, ninja and libclang (80 MiB)");
    let pip = Command::new("python3")
        .args(["-m", "pip", "--version"])
        .output();
    ensure!(
        pip.is_ok_and(|pip| pip.status.success()),
        "`python3 -m pip` does not run: install python3 with pip, \
         or cmake >= {}.{}, ninja and libclang, which pip would fetch",
        CMAKE_MIN.0,
        CMAKE_MIN.1
    );
    let options = [
        "--upgrade",
        "--no-deps",
        "--only-binary=:all:",
        "--require-hashes",
    ];
    run(
        "installing cmake, ninja and libclang with python3 -m pip",
        Command::new("python3")
            .args(["-m", "pip", "install"])
            .args(options)
            .arg("-r")
            .arg(requirements)
            .arg("--target")
            .arg(dir),
    )
}

/// Whether cmake and ninja run and are new enough.
fn runs(tools: &Tools) -> bool {
    let version = |name: &str| {
        let mut command = Command::new(name);
        let output = command
            .env("PATH", tools.search_path())
            .arg("--version")
            .output();
        let output = output.ok().filter(|output| output.status.success())?;
        String::from_utf8(output.stdout).ok()
    };
    let is_new = |text: String| {
        let number = text.split_whitespace().nth(2)?.to_owned();
        let mut parts = number.split('.').map(|part| part.parse().ok());
        Some((parts.next()??, parts.next()??) >= CMAKE_MIN)
    };
    version("cmake").and_then(is_new) == Some(true) && version("ninja").is_some()
}

/// A directory of the system that has libclang. A set `LIBCLANG_PATH` is the user's choice.
fn system_libclang() -> Option<PathBuf> {
    if let Some(path) = env::var_os("LIBCLANG_PATH").filter(|path| !path.is_empty()) {
        return Some(path.into());
    }
    let config = Command::new("llvm-config").arg("--libdir").output().ok();
    let of_config = config.and_then(|output| String::from_utf8(output.stdout).ok());
    let mut dirs: Vec<PathBuf> = of_config.iter().map(|dir| dir.trim().into()).collect();
    let fixed = [
        "/usr/lib/x86_64-linux-gnu",
        "/usr/lib/aarch64-linux-gnu",
        "/usr/lib64",
        "/usr/lib",
        "/usr/local/lib",
        "/opt/homebrew/opt/llvm/lib",
        "/Library/Developer/CommandLineTools/usr/lib",
    ];
    dirs.extend(fixed.map(PathBuf::from));
    dirs.into_iter().find(|dir| has_libclang(dir))
}

/// Whether `dir` has a library that the bindings' generator loads; libclang-cpp is another one.
fn has_libclang(dir: &Path) -> bool {
    dir.read_dir().into_iter().flatten().flatten().any(|entry| {
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_library = name.contains(".so") || name.ends_with(".dylib");
        let is_c_api = name.starts_with("libclang.") || name.starts_with("libclang-");
        is_library && is_c_api && !name.starts_with("libclang-cpp")
    })
}

/// The directories of `path`, joined as in `PATH`.
pub fn join(path: &[PathBuf]) -> Result<String> {
    let joined = env::join_paths(path).context("a directory has a `:` in its name")?;
    Ok(joined.to_string_lossy().into_owned())
}
