//! What the feature for Vulkan needs of this machine, said in one line before cmake or a compiler fails over it.

use super::Dirs;
use anyhow::{Context, Result, ensure};
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Variables that say where its headers and programs are.
pub const VARIABLES: &[&str] = &["VULKAN_SDK", "CPATH"];

/// Checks what the feature needs.
pub fn check(dirs: &Dirs) -> Result<()> {
    ensure!(
        runs_glslc(),
        "--features vulkan: found no shader compiler `glslc` in PATH or VULKAN_SDK: install glslc, libvulkan-dev and \
         spirv-headers (their names in Debian), or the Vulkan SDK with VULKAN_SDK set"
    );
    ensure!(
        !has_old_headers(dirs)?,
        "--features vulkan: the headers of Vulkan are older than 1.3.272: install the Vulkan SDK with VULKAN_SDK set, or \
         newer headers with CPATH set"
    );
    Ok(())
}

fn runs_glslc() -> bool {
    let named = env::var_os("VULKAN_SDK").map(|dir| Path::new(&dir).join("bin/glslc"));
    named
        .into_iter()
        .chain([PathBuf::from("glslc")])
        .any(|program| {
            let mut command = Command::new(program);
            let command = command.arg("--version");
            let quiet = command.stdout(Stdio::null()).stderr(Stdio::null());
            quiet.status().is_ok_and(|status| status.success())
        })
}

/// Whether the compiler finds headers of Vulkan that are too old. If it finds none, cmake may still know where.
fn has_old_headers(dirs: &Dirs) -> Result<bool> {
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
