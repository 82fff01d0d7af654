//! The tree with the patches: computed in memory, compared with what is there, then written.
//!
//! A patch is applied by us rather than by git or patch(1): neither is there on every machine, and
//! git skips every hunk and succeeds when it finds our own repository above the tree.

use super::files::{self, PARTS, Tree};
use super::pins;
use super::run::say;
use anyhow::{Context, Result, bail, ensure};
use diffy::Patch;
use std::fs;
use std::path::{Path, PathBuf};

/// What has to change below `root`.
pub struct Changes {
    root: PathBuf,
    write: Tree,
    remove: Vec<PathBuf>,
}

impl Changes {
    /// Whether the tree is as it should be.
    pub fn is_empty(&self) -> bool {
        self.write.is_empty() && self.remove.is_empty()
    }

    /// Makes the tree as it should be.
    pub fn apply(&self) -> Result<()> {
        for path in &self.remove {
            let path = self.root.join(path);
            fs::remove_file(&path).with_context(|| format!("removing {}", path.display()))?;
        }
        files::write_tree(&self.root, &self.write)
    }
}

/// The patches, and a tree that they are to be applied to.
pub struct Queue<'a> {
    /// Where they are.
    pub dir: &'a Path,
    /// The listed tag whose variants are taken.
    pub tag: &'a str,
    /// The tree, which is left as it is.
    pub pristine: &'a Path,
    /// The number in its own tag.
    pub number: u32,
}

/// What has to change below `src` to make it the tree with the queue applied.
pub fn plan(queue: &Queue, src: &Path) -> Result<Changes> {
    let mut parts = PARTS.to_vec();
    parts.retain(|part| queue.pristine.join(part).exists());
    let mut tree = files::read_tree(queue.pristine, &parts, files::BUILT)?;
    for patch in list(queue.dir, queue.tag)? {
        apply(&patch, &mut tree, queue.number)?;
    }
    let mut remove = Vec::new();
    if src.exists() {
        for (path, found) in files::read_tree(src, &[""], files::BUILT)? {
            match tree.get(&path) {
                Some(wanted) if *wanted == found => drop(tree.remove(&path)),
                Some(_) => (),
                None => remove.push(path),
            }
        }
    }
    Ok(Changes {
        root: src.to_owned(),
        write: tree,
        remove,
    })
}

/// The patches for a tag, in order: those of the queue, but for those that the tag has another one of the same name of.
fn list(queue: &Path, tag: &str) -> Result<Vec<PathBuf>> {
    let context = || format!("reading {}", queue.display());
    let mut patches = Vec::new();
    for entry in fs::read_dir(queue).with_context(context)? {
        let entry = entry.with_context(context)?;
        if entry.path().extension().is_some_and(|e| e == "patch") {
            let of_tag = queue.join(tag).join(entry.file_name());
            let is_there = of_tag.exists();
            patches.push(if is_there { of_tag } else { entry.path() });
        }
    }
    patches.sort_by(|a, b| a.file_name().cmp(&b.file_name()));
    Ok(patches)
}

/// Applies one patch to `tree`, whose tag has this number: all of it, or none and an error.
fn apply(patch: &Path, tree: &mut Tree, number: u32) -> Result<()> {
    let text = fs::read_to_string(patch).with_context(|| format!("reading {}", patch.display()))?;
    let mut edited = Tree::new();
    // Each file's part begins with a line that git writes; before the first one is the message.
    for part in text.split("\ndiff --git ").skip(1) {
        let name = part.lines().find_map(|line| line.strip_prefix("+++ b/"));
        let Some(name) = name else {
            bail!(
                "{}: only edited and new files are supported",
                patch.display()
            )
        };
        let context = || format!("{} does not apply to {name}", patch.display());
        let start = part.find("\n--- ").with_context(context)? + 1;
        let base = if part[start..].starts_with("--- /dev/null") {
            ensure!(
                !tree.contains_key(Path::new(name)),
                context() + ": it exists"
            );
            String::new()
        } else {
            let bytes = tree.get(Path::new(name)).cloned();
            let bytes = bytes.with_context(|| context() + ": there is no such file")?;
            String::from_utf8(bytes).with_context(context)?
        };
        if has(&text, name, &base, number) {
            say(&format!("{}: {name} has that by itself", patch.display()));
            continue;
        }
        // The split took the last line's end; without it that line would not be the file's.
        let hunks = format!("{}\n", part[start..].trim_end_matches('\n'));
        let hunks = Patch::from_str(&hunks).with_context(context)?;
        let text = diffy::apply(&base, &hunks).with_context(context)?;
        edited.insert(name.into(), text.into_bytes());
    }
    tree.extend(edited);
    Ok(())
}

/// Whether a tree has what a patch brings for one of its files, which is `base` there. The patch's trailer tells:
/// `Drop-when: FILE since bNUMBER`, or `FILE has TEXT`, with commas between files; anything else is for people.
fn has(patch: &str, file: &str, base: &str, number: u32) -> bool {
    let mut lines = patch.lines();
    let drop_when = lines.find_map(|line| line.strip_prefix("Drop-when: "));
    let mut conditions = drop_when.unwrap_or_default().split(", ");
    conditions.any(|condition| {
        let Some((subject, rest)) = condition.split_once(' ') else {
            return false;
        };
        let since = rest.strip_prefix("since ").and_then(pins::number);
        let text = rest.strip_prefix("has ");
        subject == file
            && (since.is_some_and(|since| number >= since)
                || text.is_some_and(|text| base.contains(text)))
    })
}

/// Looks whether the hook really is in the tree.
pub fn check(src: &Path) -> Result<()> {
    let path = src.join("ggml/src/ggml.c");
    let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    ensure!(
        text.contains("void ggml_set_expert_hook("),
        "{} has no ggml_set_expert_hook: the patches were not applied",
        path.display()
    );
    Ok(())
}
