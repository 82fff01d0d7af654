//! Sources that cargo fetches, checks and unpacks as those of any package, though nothing of ours depends on them.

use super::files;
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Where `package` is, which `vendor/<name>.toml` asks for and whose hash `vendor/<name>.lock` has. Its build script does
/// not run.
pub fn source(root: &Path, target_dir: &Path, name: &str, package: &str) -> Result<PathBuf> {
    let project = target_dir.join("llama/cargo").join(name);
    for (from, to) in [("toml", "Cargo.toml"), ("lock", "Cargo.lock")] {
        let from = root.join("vendor").join(format!("{name}.{from}"));
        println!("cargo:rerun-if-changed={}", from.display());
        let text = fs::read(&from).with_context(|| format!("reading {}", from.display()))?;
        files::write_tree(&project, &[(to.into(), text)].into())?;
    }
    let target = env::var("TARGET").context("cargo did not set TARGET")?;
    // The settings that cargo reads are those of our own directory, as for the build that this is a part of.
    let output = Command::new(env::var_os("CARGO").unwrap_or("cargo".into()))
        .current_dir(root)
        .args(["metadata", "--locked", "--format-version=1"])
        .args(["--filter-platform", &target])
        .arg("--manifest-path")
        .arg(project.join("Cargo.toml"))
        .output()
        .context("starting cargo")?;
    if !output.status.success() {
        bail!("{}", String::from_utf8_lossy(&output.stderr).trim());
    }
    place(&output.stdout, package)
        .with_context(|| format!("cargo's metadata of vendor/{name}.toml name no {package}"))
}

/// The directory of a package, as `cargo metadata` tells it.
fn place(metadata: &[u8], package: &str) -> Option<PathBuf> {
    let metadata: Value = serde_json::from_slice(metadata).ok()?;
    let mut packages = metadata["packages"].as_array()?.iter();
    let package = packages.find(|found| found["name"] == package)?;
    let manifest = Path::new(package["manifest_path"].as_str()?);
    Some(manifest.parent()?.to_owned())
}
