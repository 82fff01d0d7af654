//! Copying trees so that what did not change keeps its time stamp, which is what ninja looks at.

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// Relative paths and contents.
pub type Tree = BTreeMap<PathBuf, Vec<u8>>;

/// The SHA-256 of a file, in hex.
pub fn sha256(path: &Path) -> Result<String> {
    let mut hash = Sha256::new();
    let mut file = File::open(path).with_context(|| format!("opening {}", path.display()))?;
    io::copy(&mut file, &mut hash).with_context(|| format!("reading {}", path.display()))?;
    Ok(format!("{:x}", hash.finalize()))
}

/// What the build reads of llama.cpp.
pub const PARTS: &[&str] = &[
    "CMakeLists.txt",
    "LICENSE",
    "licenses",
    "cmake",
    "common",
    "ggml",
    "include",
    "scripts/ui-assets.cmake",
    "src",
    "tools",
    "vendor",
];

/// What is no source in a tree of llama.cpp: the page of its server, which `ui` puts there, and the packages that one
/// was built with in a checkout.
pub const BUILT: &[&str] = &["tools/ui/dist", "tools/ui/node_modules"];

/// The SHA-256 of names and contents, in hex.
#[cfg_attr(not(feature = "llama"), allow(dead_code))]
pub fn tree_sha256(tree: &Tree) -> String {
    let mut hash = Sha256::new();
    for (path, bytes) in tree {
        let name = path.display();
        hash.update(format!("{name}\n{}\n", bytes.len()));
        hash.update(bytes);
    }
    format!("{:x}", hash.finalize())
}

/// Reads `root/part` for each part, a file or a directory, without those in `skip`.
pub fn read_tree(root: &Path, parts: &[&str], skip: &[&str]) -> Result<Tree> {
    let mut tree = Tree::new();
    for part in parts {
        read_into(root, Path::new(part), skip, &mut tree)?;
    }
    Ok(tree)
}

fn read_into(root: &Path, part: &Path, skip: &[&str], tree: &mut Tree) -> Result<()> {
    if skip.iter().any(|skip| part == Path::new(skip)) {
        return Ok(());
    }
    let path = root.join(part);
    if path.is_dir() {
        for entry in fs::read_dir(&path).with_context(|| format!("reading {}", path.display()))? {
            read_into(root, &part.join(entry?.file_name()), skip, tree)?;
        }
    } else {
        let bytes = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
        tree.insert(part.to_owned(), bytes);
    }
    Ok(())
}

/// Writes `tree` below `root`, making directories on the way.
pub fn write_tree(root: &Path, tree: &Tree) -> Result<()> {
    for (path, bytes) in tree {
        let path = root.join(path);
        let Some(dir) = path.parent() else {
            bail!("{} has no parent", path.display())
        };
        fs::create_dir_all(dir)
            .and_then(|()| fs::write(&path, bytes))
            .with_context(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}

/// Says that the step which made `path`'s directory is done, and how.
///
/// Cargo reruns us when the stamp is gone. Its time is in the past because cargo would take a file
/// that is younger than the start of this run for a change, and run us once more.
pub fn write_stamp(path: &Path, text: &str) -> Result<()> {
    let past = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    fs::write(path, text)
        .and_then(|()| File::options().write(true).open(path)?.set_modified(past))
        .with_context(|| format!("writing {}", path.display()))
}

/// Whether the step that writes this stamp is done in the way `text` says.
pub fn has_stamp(path: &Path, text: &str) -> bool {
    println!("cargo:rerun-if-changed={}", path.display());
    fs::read_to_string(path).is_ok_and(|found| found == text)
}

/// Removes a file, or a directory with all that is in it, if it is there.
pub fn remove(path: &Path) -> Result<()> {
    let result = if path.is_dir() {
        fs::remove_dir_all(path)
    } else {
        fs::remove_file(path)
    };
    match result {
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            Err(e).with_context(|| format!("removing {}", path.display()))
        }
        _ => Ok(()),
    }
}
