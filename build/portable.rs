//! `HOTSET_PORTABLE=1`: programs for other machines than the one that compiles them.
//!
//! llama.cpp's code for the processor is compiled several times, for instruction sets from plain x86-64 to AVX-512 with
//! AMX, each into a library of its own; a program loads the best one that its processor has, from the directory that it
//! is in. All else of llama.cpp is linked into the programs as ever, but for the two libraries of ggml that those share.
//! An exception that leaves a C++ library for another one is caught only where both have the same C++ runtime, which a
//! package that brings its own in each cannot promise; so there are no more libraries than that.

use anyhow::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};

/// Where the loader looks for libraries: where the program is.
pub const RPATH: &str = "$ORIGIN";

/// Options of cmake.
pub fn options() -> Vec<(&'static str, String)> {
    let scope = Path::new(env!("CARGO_MANIFEST_DIR")).join("build/shared-ggml.cmake");
    vec![
        ("GGML_BACKEND_DL", "ON".to_owned()),
        ("GGML_CPU_ALL_VARIANTS", "ON".to_owned()),
        ("CMAKE_PROJECT_ggml_INCLUDE", scope.display().to_string()),
        ("CMAKE_BUILD_WITH_INSTALL_RPATH", "ON".to_owned()),
        ("CMAKE_INSTALL_RPATH", RPATH.to_owned()),
    ]
}

/// Puts the libraries of `build` where cargo puts programs, tests and examples, each under the name that it is loaded by.
pub fn place(build: &Path, out: &Path) -> Result<()> {
    let profile = out.ancestors().nth(3);
    let profile = profile.with_context(|| format!("{} is in no profile", out.display()))?;
    let libraries = libraries(&build.join("bin"))?;
    for dir in ["", "deps", "examples"].map(|dir| profile.join(dir)) {
        fs::create_dir_all(&dir).with_context(|| format!("creating {}", dir.display()))?;
        for (from, name) in &libraries {
            let to = dir.join(name);
            // Not over the old one, which a running program may have mapped.
            let draft = dir.join(format!("{name}.new"));
            fs::copy(from, &draft)
                .and_then(|_| fs::rename(&draft, &to))
                .with_context(|| format!("creating {}", to.display()))?;
        }
    }
    Ok(())
}

/// Libraries that are loaded by name when a program runs, and those that programs are linked with.
fn libraries(dir: &Path) -> Result<Vec<(PathBuf, String)>> {
    let context = || format!("reading {}", dir.display());
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).with_context(context)? {
        let path = entry.with_context(context)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let Some((stem, version)) = name.split_once(".so") else {
            continue;
        };
        let is_linked = ["libggml", "libggml-base"].contains(&stem);
        let n_numbers = version.split('.').skip(1).count();
        if is_linked && n_numbers == 1 || !is_linked && n_numbers == 0 {
            let name = name.into_owned();
            found.push((path, name));
        }
    }
    Ok(found)
}
