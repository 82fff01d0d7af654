//! Finds the llama.cpp that is to be built, and fetches it if it is not there yet.

use super::Dirs;
use super::checkout;
use super::files::{self, PARTS, Tree};
use super::pins::{self, Origin, Pin};
use super::registry;
use super::run::{run, say};
use super::settings;
use anyhow::{Context, Result, bail, ensure};
use flate2::read::GzDecoder;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A tree that nobody edits.
pub struct Upstream {
    /// Where it is.
    pub root: PathBuf,
    /// What its builds are called: its tag, with `checkout-` before it if it is the user's.
    pub name: String,
    /// The listed tag whose patches it gets.
    pub patches: String,
    /// The number in its tag, which llama.cpp prints as its version.
    pub number: u32,
}

impl Upstream {
    /// Whether it has what llama-server and llama-cli are made of, which some packages leave out.
    #[cfg_attr(not(feature = "llama"), allow(dead_code))]
    pub fn has_server(&self) -> bool {
        self.root.join("tools/server/server-context.cpp").exists()
    }
}

/// The tree to patch: the user's checkout if `HOTSET_LLAMA_CPP_DIR` is set, else that of a listed tag, which
/// `HOTSET_LLAMA_CPP_TAG` names if it is not the default.
pub fn locate(dirs: &Dirs) -> Result<Upstream> {
    let pins = pins::read(&dirs.package.join("vendor/UPSTREAM"))?;
    let asked = settings::text("HOTSET_LLAMA_CPP_TAG");
    let asked = asked.map(|tag| pins::of(&pins, &tag)).transpose()?;
    let any = settings::text("HOTSET_LLAMA_CPP_ANY").unwrap_or_default();
    let any = settings::switch("HOTSET_LLAMA_CPP_ANY", &any, ANY)?;
    if let Some(dir) = settings::get("HOTSET_LLAMA_CPP_DIR") {
        return checked_out(dir.into(), &pins, asked, any);
    }
    let pin = asked.unwrap_or(&pins[0]);
    let root = match &pin.origin {
        Origin::Pip { version, sha256 } => unpacked(dirs, pin, version, sha256)?,
        Origin::Cargo => registry::source(&dirs.package, &dirs.target, &pin.tag, &pin.package)
            .with_context(|| format!("fetching llama.cpp {} with cargo", pin.tag))?
            .join(&pin.path),
    };
    Ok(Upstream {
        root,
        name: pin.tag.clone(),
        patches: pin.tag.clone(),
        number: pins::number(&pin.tag).unwrap_or_default(),
    })
}

/// What the two values of `HOTSET_LLAMA_CPP_ANY` mean.
const ANY: [&str; 2] = [
    "to try the patches on a checkout of another tag than those they are for",
    "to refuse one",
];

/// The user's own tree. A tag that is asked for is what it is, whatever it looks like.
fn checked_out(root: PathBuf, pins: &[Pin], asked: Option<&Pin>, any: bool) -> Result<Upstream> {
    ensure!(
        root.is_absolute() && root.join("ggml/include/ggml.h").exists(),
        "HOTSET_LLAMA_CPP_DIR={}: not the absolute path of a llama.cpp checkout",
        root.display()
    );
    // What is not there would have cargo run this each time.
    let parts = PARTS
        .iter()
        .chain(&[".git/HEAD"])
        .map(|part| root.join(part));
    for part in parts.filter(|part| part.exists()) {
        println!("cargo:rerun-if-changed={}", part.display());
    }
    let tag = asked.map(|pin| pin.tag.clone());
    let tag = tag.or_else(|| checkout::tag(&root));
    let pin = checkout::pin(pins, &root, tag.as_deref(), any)?;
    let tag = tag.unwrap_or(pin.tag.clone());
    if tag != pin.tag {
        say(&format!("trying the patches for {} on {tag}", pin.tag));
    }
    Ok(Upstream {
        root,
        name: format!("checkout-{tag}"),
        patches: pin.tag.clone(),
        number: pins::number(&tag).unwrap_or_default(),
    })
}

/// The tree of a package that pip has, unpacked once.
fn unpacked(dirs: &Dirs, pin: &Pin, version: &str, sha256: &str) -> Result<PathBuf> {
    let vendored = dirs.package.join("vendor/llama.cpp");
    let cached = dirs.target.join("llama/upstream");
    for root in [&vendored, &cached] {
        if files::has_stamp(&root.join(STAMP), sha256) {
            return Ok(root.clone());
        }
    }
    let sdist = fetch(pin, version, sha256, &dirs.target.join("llama/sdist"))?;
    say(&format!("unpacking llama.cpp {}", pin.tag));
    let tree = unpack(&sdist, &pin.path, PARTS)?;
    // The package may lie where it can't be written, as another user's or a registry's.
    match install(&tree, &vendored, sha256) {
        Ok(()) => Ok(vendored),
        Err(_) => install(&tree, &cached, sha256).map(|()| cached),
    }
}

/// Holds the pin that the tree beside it was unpacked from.
pub const STAMP: &str = ".pin";

/// Downloads the package that carries the tree, once.
fn fetch(pin: &Pin, version: &str, sha256: &str, dir: &Path) -> Result<PathBuf> {
    let sdist = dir.join(format!("{}-{}.tar.gz", pin.package, version));
    if !sdist.exists() {
        say(&format!("fetching llama.cpp {} (36 MiB)", pin.tag));
        let spec = format!("{}=={}", pin.package, version);
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
    if found != sha256 {
        fs::remove_file(&sdist).with_context(|| format!("removing {}", sdist.display()))?;
        bail!(
            "{} has SHA-256 {found}, vendor/UPSTREAM says {}: removed it",
            sdist.display(),
            sha256
        );
    }
    Ok(sdist)
}

/// What the build itself does not read of the default tree, for the tests.
#[allow(dead_code)]
pub fn fetch_parts(package: &Path, target: &Path, parts: &[&str]) -> Result<Tree> {
    let pin = pins::read(&package.join("vendor/UPSTREAM"))?.swap_remove(0);
    let Origin::Pip { version, sha256 } = &pin.origin else {
        bail!("only packages of pip have more than the build reads");
    };
    let sdist = fetch(&pin, version, sha256, &target.join("llama/sdist"))?;
    unpack(&sdist, &pin.path, parts)
}

/// The files of `parts` below `path` of the package.
fn unpack(sdist: &Path, path: &Path, parts: &[&str]) -> Result<Tree> {
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
        if entry.header().entry_type().is_file() && parts.iter().any(|p| name.starts_with(p)) {
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
