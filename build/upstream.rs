//! Finds the llama.cpp that `vendor/UPSTREAM` names, and fetches it if it is not there yet.

use super::Dirs;
use super::files::{self, Tree};
use super::run::{run, say};
use anyhow::{Context, Result, bail, ensure};
use flate2::read::GzDecoder;
use std::collections::HashMap;
use std::env;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;

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

/// A tree that nobody edits.
pub struct Upstream {
    /// Where it is.
    pub root: PathBuf,
    /// Its tag, or `checkout` for a tree of the user's.
    pub tag: String,
    /// The number in the pinned tag, which llama.cpp prints as its version.
    #[cfg_attr(not(feature = "llama"), allow(dead_code))]
    pub number: String,
}

/// What `vendor/UPSTREAM` says.
struct Pin {
    tag: String,
    package: String,
    version: String,
    path: PathBuf,
    sha256: String,
}

/// The tree to patch: the user's checkout if `HOTSET_LLAMA_CPP_DIR` is set, else the pinned one.
pub fn locate(dirs: &Dirs) -> Result<Upstream> {
    let pin = read_pin(&dirs.package.join("vendor/UPSTREAM"))?;
    let number = pin.tag.trim_start_matches(|c: char| !c.is_ascii_digit());
    let number = number.to_owned();

    println!("cargo:rerun-if-env-changed=HOTSET_LLAMA_CPP_DIR");
    if let Some(dir) = env::var_os("HOTSET_LLAMA_CPP_DIR").filter(|dir| !dir.is_empty()) {
        let root = PathBuf::from(dir);
        ensure!(
            root.is_absolute() && root.join("ggml/include/ggml.h").exists(),
            "HOTSET_LLAMA_CPP_DIR={}: not the absolute path of a llama.cpp checkout",
            root.display()
        );
        for part in PARTS {
            println!("cargo:rerun-if-changed={}", root.join(part).display());
        }
        let tag = "checkout".to_owned();
        return Ok(Upstream { root, tag, number });
    }

    let vendored = dirs.package.join("vendor/llama.cpp");
    let cached = dirs.target.join("llama/upstream");
    for root in [&vendored, &cached] {
        if files::has_stamp(&root.join(STAMP), &pin.sha256) {
            let (root, tag) = (root.clone(), pin.tag);
            return Ok(Upstream { root, tag, number });
        }
    }
    let sdist = fetch(&pin, &dirs.target.join("llama/sdist"))?;
    say(&format!("unpacking llama.cpp {}", pin.tag));
    let tree = unpack(&sdist, &pin.path)?;
    // The package may lie where it can't be written, as another user's or a registry's.
    let root = match install(&tree, &vendored, &pin.sha256) {
        Ok(()) => vendored,
        Err(_) => install(&tree, &cached, &pin.sha256).map(|()| cached)?,
    };
    let tag = pin.tag;
    Ok(Upstream { root, tag, number })
}

/// Holds the pin that the tree beside it was unpacked from.
const STAMP: &str = ".pin";

fn read_pin(path: &Path) -> Result<Pin> {
    let text = fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    let values: HashMap<_, _> = text
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_once('='))
        .map(|(key, value)| (key.trim(), value.trim()))
        .collect();
    let get = |key: &str| {
        let value = values.get(key).map(|value| (*value).to_owned());
        value.with_context(|| format!("{} has no line `{key} = ...`", path.display()))
    };
    Ok(Pin {
        tag: get("tag")?,
        package: get("package")?,
        version: get("version")?,
        path: get("path")?.into(),
        sha256: get("sha256")?,
    })
}

/// Downloads the package that carries the tree, once.
fn fetch(pin: &Pin, dir: &Path) -> Result<PathBuf> {
    let sdist = dir.join(format!("{}-{}.tar.gz", pin.package, pin.version));
    if !sdist.exists() {
        say(&format!("fetching llama.cpp {} (36 MiB)", pin.tag));
        let spec = format!("{}=={}", pin.package, pin.version);
        let pip = ["-m", "pip", "download", "--no-deps", "--no-binary"];
        run(
            "fetching llama.cpp with python3 -m pip (or set HOTSET_LLAMA_CPP_DIR to a checkout)",
            Command::new("python3")
                .args(pip)
                .args([&pin.package, "-d"])
                .arg(dir)
                .arg(spec),
        )?;
    }
    let found = files::sha256(&sdist)?;
    if found != pin.sha256 {
        fs::remove_file(&sdist).with_context(|| format!("removing {}", sdist.display()))?;
        bail!(
            "{} has SHA-256 {found}, vendor/UPSTREAM says {}: removed it",
            sdist.display(),
            pin.sha256
        );
    }
    Ok(sdist)
}

/// The files below `path` of the package that the build reads.
fn unpack(sdist: &Path, path: &Path) -> Result<Tree> {
    let context = || format!("unpacking {}", sdist.display());
    let mut tree = Tree::new();
    let file = File::open(sdist).with_context(context)?;
    let mut archive = tar::Archive::new(GzDecoder::new(file));
    for entry in archive.entries().with_context(context)? {
        let mut entry = entry.with_context(context)?;
        let name = entry.path().with_context(context)?.into_owned();
        // The first component is the package's own name.
        let below_top: PathBuf = name.components().skip(1).collect();
        let Ok(name) = below_top.strip_prefix(path) else {
            continue;
        };
        if entry.header().entry_type().is_file() && PARTS.iter().any(|p| name.starts_with(p)) {
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).with_context(context)?;
            tree.insert(name.to_owned(), bytes);
        }
    }
    Ok(tree)
}

/// Puts the tree at `root` in one step: another target directory may be doing the same.
fn install(tree: &Tree, root: &Path, pin: &str) -> Result<()> {
    let draft = root.with_extension(format!("cpp.{}", std::process::id()));
    files::write_tree(&draft, tree)?;
    files::write_stamp(&draft.join(STAMP), pin)?;
    if files::has_stamp(&root.join(STAMP), pin) {
        return fs::remove_dir_all(&draft).with_context(|| format!("removing {}", draft.display()));
    }
    if root.exists() {
        fs::remove_dir_all(root).with_context(|| format!("removing {}", root.display()))?;
    }
    fs::rename(&draft, root).with_context(|| format!("creating {}", root.display()))
}
