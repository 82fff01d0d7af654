//! What a feature needs that the build does not fetch, and one line for what is missing: cmake's own
//! answer is long, and comes after everything else was fetched.

use anyhow::{Context, Result, ensure};
use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Variables that cmake and nvcc read, beside those of every compiler.
pub const CUDA_VARIABLES: &[&str] = &[
    "CUDACXX",
    "CUDAHOSTCXX",
    "CUDAFLAGS",
    "CUDAARCHS",
    "CUDAToolkit_ROOT",
    "CUDA_PATH",
    "NVCC_PREPEND_FLAGS",
    "NVCC_APPEND_FLAGS",
];

/// Checks what the enabled features need.
pub fn check() -> Result<()> {
    ensure!(
        !cfg!(feature = "metal") || cfg!(target_os = "macos"),
        "--features metal: Metal is a part of macOS; other systems have cuda and vulkan"
    );
    if cfg!(feature = "cuda") {
        nvcc(|name| env::var_os(name))?;
    }
    Ok(())
}

/// The CUDA compiler as `CUDACXX` holds it, where it may have arguments.
///
/// cmake looks for the compiler in fewer places than for the rest of the toolkit, and stops where
/// `PATH` lacks `/usr/local/cuda/bin`. Given this it takes the toolkit that the compiler is from.
pub fn nvcc(var: impl Fn(&str) -> Option<OsString>) -> Result<OsString> {
    let set = |name: &str| var(name).filter(|value| !value.is_empty());
    let path = set("PATH").unwrap_or_default();
    let in_path = |name: &str| {
        let mut files = env::split_paths(&path).map(|dir| dir.join(name));
        files.find(|file| file.is_file())
    };
    if let Some(given) = set("CUDACXX") {
        let text = given.to_string_lossy();
        let program = text.split_whitespace().next().unwrap_or_default();
        ensure!(
            Path::new(program).is_file() || !program.contains('/') && in_path(program).is_some(),
            "CUDACXX={text}: no such file; it is the path of nvcc, CUDA's compiler"
        );
        return Ok(given);
    }
    let in_root = |root: OsString| Some(Path::new(&root).join("bin/nvcc")).filter(|f| f.is_file());
    let mut roots = ["CUDAToolkit_ROOT", "CUDA_PATH"]
        .into_iter()
        .filter_map(set);
    let found = roots
        .find_map(in_root)
        .or_else(|| in_path("nvcc"))
        .or_else(|| in_root("/usr/local/cuda".into()));
    found.map(PathBuf::into_os_string).context(
        "--features cuda: found no nvcc in CUDAToolkit_ROOT, CUDA_PATH, PATH or /usr/local/cuda: \
         install NVIDIA's CUDA toolkit, or name its compiler, as CUDACXX=/opt/cuda/bin/nvcc",
    )
}
