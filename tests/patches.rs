//! Polices the patch queue: its form, its size, and that it means what git says it means.

use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const PATCHES_MAX: usize = 6;
const ADDED_LINES_MAX: usize = 260;

/// The sections of a message, in order; the last three are its trailers.
const SECTIONS: &[&str] = &[
    "Why: ",
    "What: ",
    "Cost when unset: ",
    "Not here: ",
    "Relies on: ",
    "Upstream: ",
    "Drop-when: ",
    "Verified-by: ",
];
const N_TRAILERS: usize = 3;

struct Patch {
    path: PathBuf,
    name: String,
    text: String,
}

impl Patch {
    /// Subject and body, without the mail header.
    fn message(&self) -> &str {
        self.text.split("\ndiff --git ").next().unwrap()
    }

    /// Lines that begin with `sign` and are no file header.
    fn n_lines(&self, sign: &str) -> usize {
        let header = sign.repeat(3);
        let diff = &self.text[self.message().len()..];
        let is_counted = |line: &&str| line.starts_with(sign) && !line.starts_with(&header);
        diff.lines().filter(is_counted).count()
    }

    fn files(&self) -> impl Iterator<Item = &str> {
        self.text
            .lines()
            .filter_map(|line| line.strip_prefix("+++ b/"))
    }

    fn is_new(&self, file: &str) -> bool {
        self.text
            .contains(&format!("--- /dev/null\n+++ b/{file}\n"))
    }
}

fn package() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The tags that `vendor/UPSTREAM` lists, the default first.
fn tags() -> Vec<String> {
    let text = fs::read_to_string(package().join("vendor/UPSTREAM")).unwrap();
    let tags = text
        .lines()
        .filter_map(|line| line.strip_prefix('[')?.strip_suffix(']'));
    tags.map(str::to_owned).collect()
}

/// The patches in a folder, in order.
fn patches_in(dir: &Path) -> Vec<Patch> {
    let entries = fs::read_dir(dir).unwrap();
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|e| e == "patch"));
    paths.sort();
    let read = |path: PathBuf| Patch {
        name: path.file_name().unwrap().to_str().unwrap().to_owned(),
        text: fs::read_to_string(&path).unwrap(),
        path,
    };
    paths.into_iter().map(read).collect()
}

/// What tag `tag` has its own of.
fn variants(tag: &str) -> Vec<Patch> {
    let dir = package().join("patches").join(tag);
    if dir.exists() {
        patches_in(&dir)
    } else {
        vec![]
    }
}

/// What the build applies to the tree of `tag`.
fn queue(tag: &str) -> Vec<Patch> {
    let mut queue = patches_in(&package().join("patches"));
    for variant in variants(tag) {
        let place = queue.iter_mut().find(|patch| patch.name == variant.name);
        let place = place.unwrap_or_else(|| panic!("{tag}/{} replaces no patch", variant.name));
        assert_ne!(place.text, variant.text, "{tag}/{}", variant.name);
        *place = variant;
    }
    queue
}

#[test]
fn numbers_have_no_gaps() {
    for (i, patch) in queue(&tags()[0]).iter().enumerate() {
        let number = format!("{:04}-", i + 1);
        assert!(
            patch.name.starts_with(&number),
            "{}: not {number}*",
            patch.name
        );
    }
}

#[test]
fn queues_are_within_their_budget() {
    for tag in tags() {
        let queue = queue(&tag);
        let n_added: usize = queue.iter().map(|patch| patch.n_lines("+")).sum();
        println!("{tag}: {} patches, +{n_added}", queue.len());
        assert!(
            (1..=PATCHES_MAX).contains(&queue.len()),
            "{tag}: {} patches, at most {PATCHES_MAX}",
            queue.len()
        );
        assert!(
            n_added <= ADDED_LINES_MAX,
            "{tag}: {n_added} added lines, at most {ADDED_LINES_MAX}"
        );
    }
}

/// A folder of a tag that is not listed is used by no build.
#[test]
fn only_listed_tags_have_patches_of_their_own() {
    let entries = fs::read_dir(package().join("patches")).unwrap();
    let dirs = entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_dir());
    for dir in dirs {
        let name = dir.file_name().unwrap().to_str().unwrap();
        assert!(tags()[1..].iter().any(|tag| tag == name), "patches/{name}");
    }
}

#[test]
fn messages_answer_the_questions() {
    for patch in tags().iter().flat_map(|tag| queue(tag)) {
        let name = &patch.name;
        let (header, body) = patch.message().split_once("\n\n").unwrap();
        let subject = header.split_once("Subject: [PATCH] ").expect(name).1;
        assert!(
            subject.contains(" : "),
            "{name}: the subject is not `area : what`"
        );

        let found: Vec<_> = body
            .lines()
            .filter_map(|line| SECTIONS.iter().find(|s| line.starts_with(**s)))
            .collect();
        assert_eq!(
            found,
            SECTIONS.iter().collect::<Vec<_>>(),
            "{name}: sections"
        );
        let trailers = body.trim_end().rsplit("\n\n").next().unwrap();
        let expected = &SECTIONS[SECTIONS.len() - N_TRAILERS..];
        assert_eq!(
            trailers.lines().count(),
            N_TRAILERS,
            "{name}: trailers\n{trailers}"
        );
        for (line, key) in trailers.lines().zip(expected) {
            assert!(
                line.starts_with(key),
                "{name}: `{line}` where `{key}` belongs"
            );
        }
        assert!(body.is_ascii(), "{name}: the message is not ASCII");
    }
}

#[test]
fn readme_lists_the_queue() {
    let readme = fs::read_to_string(package().join("patches/README.md")).unwrap();
    let rows: Vec<_> = readme
        .lines()
        .filter(|line| line.starts_with("| 0") || line.starts_with("| b"))
        .collect();
    let tags = tags();
    let shared = queue(&tags[0])
        .into_iter()
        .map(|patch| (String::new(), patch));
    let own = tags.iter().flat_map(|tag| {
        variants(tag)
            .into_iter()
            .map(move |p| (format!("{tag}/"), p))
    });
    let all: Vec<_> = shared.chain(own).collect();
    assert_eq!(
        rows.len(),
        all.len(),
        "rows of the table in patches/README.md"
    );
    for (row, (folder, patch)) in rows.iter().zip(&all) {
        let stem = format!("| {folder}{} |", patch.name.trim_end_matches(".patch"));
        let size = format!("| +{} -{} |", patch.n_lines("+"), patch.n_lines("-"));
        assert!(
            row.starts_with(&stem) && row.contains(&size),
            "{row}\nis not {stem} {size}"
        );
    }
}

/// What the build made.
struct Built {
    /// The tree that the patches are for.
    pristine: &'static Path,
    /// The same with the patches.
    src: &'static Path,
    /// The tag whose patches these are.
    tag: &'static str,
    /// What the tree is called.
    name: &'static str,
}

fn built() -> Option<Built> {
    let built = || {
        Some(Built {
            pristine: Path::new(option_env!("BUILD_LLAMA_PRISTINE")?),
            src: Path::new(option_env!("BUILD_LLAMA_SRC")?),
            tag: option_env!("BUILD_LLAMA_PATCHES")?,
            name: option_env!("BUILD_LLAMA_NAME")?,
        })
    };
    if built().is_none() {
        println!("skipped: built without the feature `hooks`, so there is no llama.cpp");
    }
    built()
}

/// Git with nobody's settings, below `dir` only.
fn git(dir: &Path, args: &[&str]) {
    let output = Command::new("git")
        .current_dir(dir)
        .env("GIT_CEILING_DIRECTORIES", dir)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .args([
            "-c",
            "user.name=hotset",
            "-c",
            "user.email=hotset@localhost",
        ])
        .args(["-c", "core.abbrev=10", "-c", "core.autocrlf=false"])
        .args(args)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "git {}: {text}", args.join(" "));
}

/// One round through git: what it applies is what our build made, and what it exports is our file. Files that several tags
/// share are exported from the default one.
#[test]
fn git_applies_and_exports_the_same_bytes() {
    let Some(Built {
        pristine, src, tag, ..
    }) = built()
    else {
        return;
    };
    if Command::new("git").arg("--version").output().is_err() {
        assert!(std::env::var_os("CI").is_none(), "git is missing");
        println!("skipped: git is missing");
        return;
    }
    let queue = queue(tag);
    let touched: BTreeSet<_> = queue.iter().flat_map(Patch::files).collect();
    let repository = tempfile::tempdir().unwrap();
    let dir = repository.path();
    for file in &touched {
        let path = dir.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        if !queue.iter().any(|patch| patch.is_new(file)) {
            fs::copy(pristine.join(file), path).unwrap();
        }
    }
    git(dir, &["init", "-q"]);
    git(dir, &["add", "."]);
    git(dir, &["commit", "-q", "-m", "base"]);
    for patch in &queue {
        let path = patch.path.to_str().unwrap();
        git(dir, &["am", "-q", "--committer-date-is-author-date", path]);
    }
    for file in &touched {
        let same = fs::read(dir.join(file)).unwrap() == fs::read(src.join(file)).unwrap();
        assert!(
            same,
            "{file}: git and our build apply the queue differently"
        );
    }

    let range = format!("-{}", queue.len());
    let form = [
        "--zero-commit",
        "--no-signature",
        "--no-numbered",
        "--no-stat",
    ];
    git(
        dir,
        &[&["format-patch", "-q", "-o", "out", &range], &form[..]].concat(),
    );
    assert_eq!(fs::read_dir(dir.join("out")).unwrap().count(), queue.len());
    let own = if tag == tags()[0] {
        queue
    } else {
        variants(tag)
    };
    for patch in &own {
        let exported = fs::read_to_string(dir.join("out").join(&patch.name)).expect(&patch.name);
        assert_eq!(
            exported, patch.text,
            "{}: not as git exports it",
            patch.name
        );
    }
}

/// `sha256sum` lines of every file, hashed once more.
fn tree_hash(root: &Path) -> String {
    let mut paths = Vec::new();
    let mut dirs = vec![root.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => dirs.push(path),
                false => paths.push(path),
            }
        }
    }
    // The build's own mark.
    paths.retain(|path| path != &root.join(".pin"));
    // Byte by byte, as `LC_ALL=C sort` does.
    paths.sort_by(|a, b| a.as_os_str().cmp(b.as_os_str()));
    let mut all = Sha256::new();
    for path in paths {
        let hash = Sha256::digest(fs::read(&path).unwrap());
        let name = path.strip_prefix(root).unwrap().display();
        all.update(format!("{hash:x}  {name}\n"));
    }
    format!("{:x}", all.finalize())
}

#[test]
fn tree_is_pristine() {
    let Some(Built {
        pristine,
        tag,
        name,
        ..
    }) = built()
    else {
        return;
    };
    if tag != name {
        println!("skipped: {} is a checkout of yours", pristine.display());
        return;
    }
    let pins = fs::read_to_string(package().join("vendor/UPSTREAM")).unwrap();
    let pin = pins
        .split("\n[")
        .find_map(|pin| pin.strip_prefix(tag)?.strip_prefix("]\n"));
    let found = format!("tree    = {}", tree_hash(pristine));
    assert!(
        pin.unwrap().lines().any(|line| line == found),
        "{} is not what vendor/UPSTREAM pins for {tag}: `{found}`",
        pristine.display()
    );
}
