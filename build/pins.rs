//! What `vendor/UPSTREAM` lists: the tags of llama.cpp that the patches are for, and where their trees come from.

use anyhow::{Context, Result, bail, ensure};
use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

/// A tag, and a package that carries its tree.
#[derive(Debug)]
pub struct Pin {
    /// The tag's name.
    pub tag: String,
    /// Who has the package.
    pub origin: Origin,
    /// What the package is called there.
    pub package: String,
    /// Where in the package the tree is.
    pub path: PathBuf,
}

/// Who has a package.
#[derive(Debug)]
pub enum Origin {
    /// pip, with this version and SHA-256.
    Pip { version: String, sha256: String },
    /// cargo, with the version and the hash that the lock named after the tag in `vendor` has.
    Cargo,
}

/// The pins in the order of the file; the first is the default.
pub fn read(path: &Path) -> Result<Vec<Pin>> {
    let text = fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    let pins = parse(&text).with_context(|| format!("reading {}", path.display()))?;
    ensure!(!pins.is_empty(), "{} lists no tag", path.display());
    Ok(pins)
}

/// The pins in `text`, where a line `[tag]` begins each.
pub fn parse(text: &str) -> Result<Vec<Pin>> {
    let sections = text.split("\n[").skip(1);
    sections.map(section).collect()
}

fn section(text: &str) -> Result<Pin> {
    let (tag, lines) = text.split_once("]\n").context("a `[` without a `]`")?;
    ensure!(number(tag).is_some(), "[{tag}]: not a tag as b11549");
    let values: HashMap<_, _> = lines
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_once('='))
        .map(|(key, value)| (key.trim(), value.trim()))
        .collect();
    let get = |key: &str| {
        let value = values.get(key).map(|value| (*value).to_owned());
        value.with_context(|| format!("[{tag}] has no line `{key} = ...`"))
    };
    Ok(Pin {
        tag: tag.to_owned(),
        origin: match get("from")?.as_str() {
            "pip" => Origin::Pip {
                version: get("version")?,
                sha256: get("sha256")?,
            },
            "cargo" => Origin::Cargo,
            from => bail!("[{tag}]: from = {from}: it is pip or cargo"),
        },
        package: get("package")?,
        path: get("path")?.into(),
    })
}

/// The number in a tag, which counts commits: llama.cpp prints it as its version.
pub fn number(tag: &str) -> Option<u32> {
    let digits = tag.strip_prefix('b')?;
    let is_number = digits.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| digits.parse().ok())?
}

/// The pin of a tag that somebody asks for.
pub fn of<'a>(pins: &'a [Pin], tag: &str) -> Result<&'a Pin> {
    let pin = pins.iter().find(|pin| pin.tag == tag);
    pin.with_context(|| {
        format!(
            "HOTSET_LLAMA_CPP_TAG={tag}: the patches are for {}",
            list(pins)
        )
    })
}

/// The pin whose number is the nearest; the earlier one of two.
pub fn nearest(pins: &[Pin], wanted: u32) -> &Pin {
    let distance = |pin: &&Pin| number(&pin.tag).map(|number| number.abs_diff(wanted));
    pins.iter().min_by_key(distance).unwrap_or(&pins[0])
}

/// The tags, in words.
pub fn list(pins: &[Pin]) -> String {
    let tags: Vec<_> = pins.iter().map(|pin| pin.tag.as_str()).collect();
    tags.join(" and ")
}
