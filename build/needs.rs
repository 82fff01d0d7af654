//! What the features for GPUs need of this machine, said in one line before cmake or a compiler fails over it.

use super::Dirs;
use anyhow::{Context, Result, ensure};
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Fails if a feature can't be built here.
pub fn check(dirs: &Dirs) -> Result<()> {
    ensure!(
        !cfg!(feature = "metal") || cfg!(target_os = "macos"),
        "the feature `metal` is for macOS"
    );
    // cmake takes the compiler that this names, wherever it is.
    let has_cuda = || env::var_os("CUDACXX").is_some() || runs("nvcc", "CUDA_PATH");
    ensure!(
        !cfg!(feature = "cuda") || has_cuda(),
        "the feature `cuda` needs the CUDA toolkit, whose compiler `nvcc` is not in PATH: \
         install it, add its `bin` to PATH or name nvcc in CUDACXX"
    );
    if cfg!(feature = "vulkan") {
        ensure!(
            runs("glslc", "VULKAN_SDK"),
            "the feature `vulkan` needs the shader compiler `glslc`, and the headers of Vulkan and SPIR-V: install \
             glslc, libvulkan-dev and spirv-headers (their names in Debian), or the Vulkan SDK with VULKAN_SDK set"
        );
        ensure!(
            !has_old_vulkan(dirs)?,
            "the feature `vulkan` needs headers of Vulkan 1.3.272 or later, and those of this system are older: \
             install the Vulkan SDK with VULKAN_SDK set, or newer headers with CPATH set"
        );
    }
    Ok(())
}

/// Whether a program is in `PATH`, or in `bin` of the directory that a variable names.
fn runs(name: &str, variable: &str) -> bool {
    let named = env::var_os(variable).map(|dir| Path::new(&dir).join("bin").join(name));
    named
        .into_iter()
        .chain([PathBuf::from(name)])
        .any(|program| {
            let mut command = Command::new(program);
            let command = command.arg("--version");
            let quiet = command.stdout(Stdio::null()).stderr(Stdio::null());
            quiet.status().is_ok_and(|status| status.success())
        })
}

/// Whether the compiler finds headers of Vulkan that are too old. If it finds none, cmake may still know where.
fn has_old_vulkan(dirs: &Dirs) -> Result<bool> {
    let test = dirs.out.join("vulkan.cpp");
    // llama.cpp uses this extension without asking.
    let text = "#if __has_include(<vulkan/vulkan.h>)\n#include <vulkan/vulkan.h>\n#ifndef VK_EXT_layer_settings\n\
                #error\n#endif\n#endif\n";
    fs::write(&test, text).with_context(|| format!("writing {}", test.display()))?;
    let mut build = cc::Build::new();
    if let Some(dir) = env::var_os("VULKAN_SDK") {
        build.include(Path::new(&dir).join("include"));
    }
    let build = build.cpp(true).std("c++17").file(&test);
    let build = build.cargo_warnings(false).cargo_metadata(false);
    Ok(build.try_expand().is_err())
}
