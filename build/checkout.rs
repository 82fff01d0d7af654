//! A llama.cpp of the user's own: which tag it is, and whose patches it gets.

use super::pins::{self, Pin};
use anyhow::{Result, bail};
use std::path::Path;
use std::process::Command;

/// The tag of the tree in `root`, as git tells it, else the last word of the folder's name, as archives of a tag have it.
///
/// A commit between tags is called as its own tag would be: by the number of commits up to it.
pub fn tag(root: &Path) -> Option<String> {
    git_tag(root).or_else(|| {
        let name = root.file_name()?.to_str()?;
        let tag = name.rsplit(['-', '_', '.']).next()?;
        pins::number(tag).map(|_| tag.to_owned())
    })
}

fn git_tag(root: &Path) -> Option<String> {
    let git = |args: &[&str]| {
        let mut command = Command::new("git");
        // Not the repository of something that the tree lies in.
        if let Some(above) = root.parent() {
            command.env("GIT_CEILING_DIRECTORIES", above);
        }
        let output = command.arg("-C").arg(root).args(args).output().ok()?;
        let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
        (output.status.success() && !text.is_empty()).then_some(text)
    };
    let of_head = git(&["tag", "--points-at", "HEAD", "--list", "b[0-9]*"]);
    let is_number = |tag: &&str| pins::number(tag).is_some();
    if let Some(tag) = of_head
        .as_deref()
        .and_then(|tags| tags.lines().find(is_number))
    {
        return Some(tag.to_owned());
    }
    let is_whole = git(&["rev-parse", "--is-shallow-repository"])? == "false";
    let count = git(&["rev-list", "--count", "HEAD"]).filter(|_| is_whole)?;
    Some(format!("b{count}"))
}

/// The pin whose patches a checkout of `tag` gets: its own, and with `any` the nearest one or the default.
pub fn pin<'a>(pins: &'a [Pin], root: &Path, tag: Option<&str>, any: bool) -> Result<&'a Pin> {
    let number = tag.and_then(pins::number);
    let nearest = number.map_or(&pins[0], |number| pins::nearest(pins, number));
    if any || tag == Some(nearest.tag.as_str()) {
        return Ok(nearest);
    }
    let (root, all) = (root.display(), pins::list(pins));
    let nearest = &nearest.tag;
    match tag {
        Some(tag) => bail!(
            "HOTSET_LLAMA_CPP_DIR={root}: this is {tag}, and the patches are for {all}, of which {nearest} is the nearest: \
             check that out, or set HOTSET_LLAMA_CPP_ANY=1 to try its patches all the same"
        ),
        None => bail!(
            "HOTSET_LLAMA_CPP_DIR={root}: neither git nor the folder's name says which tag this is, and the patches are for \
             {all}: name it as HOTSET_LLAMA_CPP_TAG={nearest}, or set HOTSET_LLAMA_CPP_ANY=1 to try the patches for {nearest}"
        ),
    }
}
