//! The tree with the patches: computed in memory, compared with what is there, then written.
//!
//! A patch is applied by us rather than by git or patch(1): neither is there on every machine, and
//! git skips every hunk and succeeds when it finds our own repository above the tree.

use super::files::{self, Tree};
use super::upstream::PARTS;
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

/// What has to change below `src` to make it `pristine` with the queue applied.
pub fn plan(queue: &Path, pristine: &Path, src: &Path) -> Result<Changes> {
    let mut tree = files::read_tree(pristine, PARTS, files::BUILT)?;
    for patch in list(queue)? {
        apply(&patch, &mut tree)?;
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

/// The patches of a queue, in order.
fn list(queue: &Path) -> Result<Vec<PathBuf>> {
    let context = || format!("reading {}", queue.display());
    let mut patches = Vec::new();
    for entry in fs::read_dir(queue).with_context(context)? {
        let path = entry.with_context(context)?.path();
        if path.extension().is_some_and(|e| e == "patch") {
            patches.push(path);
        }
    }
    patches.sort();
    Ok(patches)
}

/// Applies one patch to `tree`: all of it, or none and an error.
fn apply(patch: &Path, tree: &mut Tree) -> Result<()> {
    let text = fs::read_to_string(patch).with_context(|| format!("reading {}", patch.display()))?;
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
        // The split took the last line's end; without it that line would not be the file's.
        let hunks = format!("{}\n", part[start..].trim_end_matches('\n'));
        let hunks = Patch::from_str(&hunks).with_context(context)?;
        let edited = diffy::apply(&base, &hunks).with_context(context)?;
        tree.insert(name.into(), edited.into_bytes());
    }
    Ok(())
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
