//! What tests need of upstream's package and the build leaves out, by the build's own code.

#[allow(dead_code)]
#[path = "../../build/checkout.rs"]
mod checkout;
#[allow(dead_code)]
#[path = "../../build/files.rs"]
pub mod files;
#[allow(dead_code)]
#[path = "../../build/pins.rs"]
mod pins;
#[allow(dead_code)]
#[path = "../../build/registry.rs"]
mod registry;
#[allow(dead_code)]
#[path = "../../build/run.rs"]
mod run;
#[allow(dead_code)]
#[path = "../../build/settings.rs"]
mod settings;
#[allow(dead_code)]
#[path = "../../build/upstream.rs"]
mod upstream;

use std::fs;
use std::path::{Path, PathBuf};

/// What the build's files name.
#[allow(dead_code)]
pub struct Dirs {
    package: PathBuf,
    target: PathBuf,
}

/// Whether upstream's tree is that of the pinned tag, rather than somebody's checkout.
pub fn is_pinned() -> bool {
    let pristine = Path::new(env!("BUILD_LLAMA_PRISTINE"));
    pristine.join(upstream::STAMP).exists()
}

/// A tree that has this file or folder of upstream's: somebody's checkout, or what is taken out of the package into `work`.
pub fn tree_with(work: &Path, part: &str) -> PathBuf {
    if !is_pinned() {
        return env!("BUILD_LLAMA_PRISTINE").into();
    }
    let root = work.join(env!("BUILD_LLAMA_NAME"));
    if !root.join(part).exists() {
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
        let package = Path::new(env!("CARGO_MANIFEST_DIR"));
        let tree = upstream::fetch_parts(package, target, &[part]).unwrap();
        let draft = work.join("draft");
        let _ = fs::remove_dir_all(&draft);
        files::write_tree(&draft, &tree).unwrap();
        let _ = fs::remove_dir_all(&root);
        fs::rename(&draft, &root).unwrap();
    }
    root
}
