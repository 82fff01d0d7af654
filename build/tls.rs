//! HTTPS for llama.cpp's downloads: BoringSSL, which llama.cpp's own build would fetch with git, from a package that cargo
//! fetches. It is linked into the programs, whatever the machine has, unless `CMAKE_ARGS` says otherwise.

use super::registry;
use super::ui::is_on;
use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::{Path, PathBuf};

/// Whose sources these are. `vendor/boringssl.toml` has the version.
const PACKAGE: &str = "boring-sys";

/// Where in the package they are.
const PATH: &str = "deps/boringssl";

/// Options of BoringSSL's own build, which say nothing about where TLS comes from.
const OF_BORINGSSL: &[&str] = &["OPENSSL_NO_ASM", "OPENSSL_SMALL"];

/// Whether TLS is ours to bring: the user's options do not say where it comes from.
pub fn is_ours(users: &[(String, String)]) -> bool {
    const THEIRS: &[&str] = &[
        "LLAMA_OPENSSL",
        "LLAMA_BUILD_BORINGSSL",
        "LLAMA_BUILD_LIBRESSL",
    ];
    !users.iter().map(|(key, _)| name(key)).any(|name| {
        let is_about_openssl = name.starts_with("OPENSSL_") && !OF_BORINGSSL.contains(&name);
        THEIRS.contains(&name) || is_about_openssl
    })
}

/// The name of an option, which may have a type behind it.
fn name(key: &str) -> &str {
    key.split(':').next().unwrap_or(key)
}

/// The options that have llama.cpp's build compile the BoringSSL in `source`.
pub fn options(source: &Path) -> [(&'static str, String); 3] {
    [
        ("LLAMA_BUILD_BORINGSSL", "ON".to_owned()),
        // Instead of git.
        (
            "FETCHCONTENT_SOURCE_DIR_BORINGSSL",
            source.display().to_string(),
        ),
        // Without its assembly, which needs no other tool than the compiler, a fast network would wait for AES.
        ("OPENSSL_NO_ASM", "OFF".to_owned()),
    ]
}

/// The sources, which cargo fetches if it has not done so before.
pub fn source(package: &Path, target_dir: &Path) -> Result<PathBuf> {
    let root = registry::source(package, target_dir, "boringssl", PACKAGE).context(
        "fetching BoringSSL, which the programs download models with (CMAKE_ARGS=-DLLAMA_OPENSSL=ON builds with the \
         system's OpenSSL instead, OFF without HTTPS)",
    )?;
    let found = root.join(PATH);
    ensure!(
        found.join("CMakeLists.txt").is_file(),
        "{PACKAGE} has no BoringSSL in {}",
        found.display()
    );
    Ok(found)
}

/// One line if the options leave HTTPS to the OpenSSL of the system, and cmake, which has worked in `build`, found none.
pub fn missing(users: &[(String, String)], build: &Path) -> Result<Option<&'static str>> {
    let last = |wanted: &str| {
        let value = users.iter().rev().find(|(key, _)| name(key) == wanted);
        value.map(|(_, value)| is_on(value))
    };
    let brings_another = ["LLAMA_BUILD_BORINGSSL", "LLAMA_BUILD_LIBRESSL"]
        .map(last)
        .contains(&Some(true));
    if is_ours(users) || brings_another || last("LLAMA_OPENSSL") == Some(false) {
        return Ok(None);
    }
    let path = build.join("CMakeCache.txt");
    let cache = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let is_found = cache
        .lines()
        .any(|line| line == "OPENSSL_VERSION_SUPPORTED:INTERNAL=1");
    Ok((!is_found).then_some(
        "the programs can download nothing by https: CMAKE_ARGS has llama.cpp use the system's OpenSSL, and cmake found no \
         3.0 or later with its headers (libssl-dev in Debian). Without those options the build brings BoringSSL",
    ))
}
