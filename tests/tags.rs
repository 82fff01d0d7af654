//! Which llama.cpp the build takes and which patches: the tags in `vendor/UPSTREAM`, checkouts of the user's, and what a
//! tree has by itself.

#![cfg(feature = "hooks")]

#[allow(dead_code)]
#[path = "../build/checkout.rs"]
mod checkout;
#[allow(dead_code)]
#[path = "../build/files.rs"]
mod files;
#[allow(dead_code)]
#[path = "../build/patches.rs"]
mod patches;
#[allow(dead_code)]
#[path = "../build/pins.rs"]
mod pins;
#[allow(dead_code)]
#[path = "../build/run.rs"]
mod run;

use pins::Pin;
use std::fs;
use std::path::Path;
use std::process::Command;
use tempfile::TempDir;

/// The pins of the package.
fn listed() -> Vec<Pin> {
    pins::read(Path::new("vendor/UPSTREAM")).unwrap()
}

/// Pins of these tags.
fn pinned(tags: &[&str]) -> Vec<Pin> {
    let section = |tag: &&str| format!("\n[{tag}]\nfrom = cargo\npackage = x\npath = y\n");
    pins::parse(&tags.iter().map(section).collect::<String>()).unwrap()
}

#[test]
fn every_listed_tag_can_be_asked_for() {
    let pins = listed();
    for pin in &pins {
        assert_eq!(pins::of(&pins, &pin.tag).unwrap().tag, pin.tag);
    }
    let error = pins::of(&pins, "b1").unwrap_err().to_string();
    assert!(error.starts_with("HOTSET_LLAMA_CPP_TAG=b1: "), "{error}");
    for pin in &pins {
        assert!(error.contains(&pin.tag), "{error}");
    }
}

#[test]
fn a_list_that_is_wrong_is_an_error_that_names_it() {
    let good = "\n[b7]\nfrom = pip\npackage = x\nversion = 1\nsha256 = ab\npath = y\n";
    assert_eq!(pins::parse(good).unwrap().len(), 1);
    for (from, to, named) in [
        ("[b7]", "[7]", "[7]"),
        ("= pip", "= git", "from = git"),
        ("sha256", "md5", "[b7] has no line `sha256 = ...`"),
        ("package", "#", "[b7] has no line `package = ...`"),
    ] {
        let error = pins::parse(&good.replace(from, to))
            .unwrap_err()
            .to_string();
        assert!(error.contains(named), "{error}");
    }
}

#[test]
fn the_nearest_tag_is_that_of_the_nearest_number() {
    let pins = pinned(&["b200", "b100", "b300"]);
    for (number, nearest) in [
        (0, "b100"),
        (149, "b100"),
        (150, "b200"),
        (250, "b200"),
        (251, "b300"),
        (9999, "b300"),
    ] {
        assert_eq!(pins::nearest(&pins, number).tag, nearest, "{number}");
    }
}

/// What is said of a checkout that says it is `tag`: the tag whose patches it gets, or why it gets none.
fn patches_of(tag: Option<&str>, any: bool) -> Result<String, String> {
    let pins = pinned(&["b100", "b200"]);
    let pin = checkout::pin(&pins, Path::new("/tree"), tag, any);
    pin.map(|pin| pin.tag.clone())
        .map_err(|error| error.to_string())
}

#[test]
fn checkouts_of_listed_tags_are_taken_and_others_only_if_that_is_asked_for() {
    for tag in ["b100", "b200"] {
        assert_eq!(patches_of(Some(tag), false).as_deref(), Ok(tag));
        assert_eq!(patches_of(Some(tag), true).as_deref(), Ok(tag));
    }
    for (tag, nearest) in [("b101", "b100"), ("b199", "b200"), ("b12345", "b200")] {
        let error = patches_of(Some(tag), false).unwrap_err();
        for part in [
            "HOTSET_LLAMA_CPP_DIR=/tree: ",
            tag,
            "b100 and b200",
            "HOTSET_LLAMA_CPP_ANY=1",
        ] {
            assert!(error.contains(part), "{error}");
        }
        assert!(
            error.contains(&format!("{nearest} is the nearest")),
            "{error}"
        );
        assert_eq!(patches_of(Some(tag), true).as_deref(), Ok(nearest));
    }
    let error = patches_of(None, false).unwrap_err();
    assert!(error.contains("HOTSET_LLAMA_CPP_TAG=b100"), "{error}");
    assert_eq!(patches_of(None, true).as_deref(), Ok("b100"));
}

#[test]
fn a_checkout_tells_its_tag_by_git_and_else_by_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let git = |root: &Path, line: &str| {
        let mut command = Command::new("git");
        command
            .current_dir(root)
            .args(["-c", "user.name=x", "-c", "user.email=x@localhost"]);
        command
            .args(line.split(' '))
            .output()
            .is_ok_and(|output| output.status.success())
    };
    // In a repository of something else, as a tree below ours is.
    if !git(dir.path(), "init -q") {
        assert!(std::env::var_os("CI").is_none(), "git is missing");
        println!("skipped: git is missing");
        return;
    }
    assert!(git(dir.path(), "commit -q --allow-empty -m outer") && git(dir.path(), "tag b1"));
    for (name, tag) in [
        ("llama.cpp-b12032", Some("b12032")),
        ("llama.cpp_b7", Some("b7")),
        ("llama.cpp", None),
        ("b12x", None),
    ] {
        let root = dir.path().join(name);
        fs::create_dir(&root).unwrap();
        assert_eq!(checkout::tag(&root).as_deref(), tag, "{name}");
    }
    let root = dir.path().join("llama.cpp-b12032");
    assert!(git(&root, "init -q"));
    for line in ["commit -q --allow-empty -m one", "tag v0.8.0", "tag b300"] {
        assert!(git(&root, line), "{line}");
    }
    assert_eq!(checkout::tag(&root).as_deref(), Some("b300"));
    assert!(git(&root, "commit -q --allow-empty -m two"));
    assert_eq!(
        checkout::tag(&root).as_deref(),
        Some("b2"),
        "the number of its commits"
    );
}

/// A tree with the files `src/a` and `src/b`, and a queue of one patch that brings both of them a line.
struct Shop(TempDir);

impl Shop {
    fn new(drop_when: &str) -> Self {
        let shop = Self(tempfile::tempdir().unwrap());
        let part = |name: &str, line: &str| {
            let path = format!("src/{name}");
            format!(
                "diff --git a/{path} b/{path}\n--- a/{path}\n+++ b/{path}\n@@ -1 +1,2 @@\n old\n+{line}\n"
            )
        };
        let patch = |line: &str| {
            let parts = part("a", line) + &part("b", line);
            format!("Subject: x\n\nDrop-when: {drop_when}\n\n{parts}")
        };
        shop.write("queue/0001-x.patch", &patch("ours"));
        shop.write("queue/b200/0001-x.patch", &patch("of b200"));
        shop.write("tree/src/a", "old\n");
        shop.write("tree/src/b", "old\n");
        shop
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.0.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// The two files when the build is done with a tree of this number that gets the patches for `tag`.
    fn patched(&self, tag: &str, number: u32) -> Result<[String; 2], String> {
        let [dir, pristine, src] = ["queue", "tree", "src"].map(|name| self.0.path().join(name));
        let (dir, pristine) = (dir.as_path(), pristine.as_path());
        let queue = patches::Queue {
            dir,
            tag,
            pristine,
            number,
        };
        let changes = patches::plan(&queue, &src).and_then(|changes| changes.apply());
        changes.map_err(|error| format!("{error:#}"))?;
        Ok(["a", "b"].map(|name| fs::read_to_string(src.join("src").join(name)).unwrap()))
    }
}

fn files(lines: [&str; 2]) -> Result<[String; 2], String> {
    Ok(lines.map(str::to_owned))
}

#[test]
fn a_tag_gets_its_own_variant_of_a_patch() {
    let shop = Shop::new("never");
    assert_eq!(
        shop.patched("b100", 100),
        files(["old\nours\n", "old\nours\n"])
    );
    assert_eq!(
        shop.patched("b200", 200),
        files(["old\nof b200\n", "old\nof b200\n"])
    );
    assert_eq!(
        shop.patched("b100", 100),
        files(["old\nours\n", "old\nours\n"])
    );
}

#[test]
fn what_a_tree_has_by_itself_is_left_out() {
    let shop = Shop::new("src/a has theirs, src/b since b150");
    assert_eq!(
        shop.patched("b100", 149),
        files(["old\nours\n", "old\nours\n"])
    );
    assert_eq!(shop.patched("b100", 150), files(["old\nours\n", "old\n"]));
    // Upstream's own fix is somewhere else, or the patch would not apply.
    shop.write("tree/src/a", "theirs\nolder\n");
    assert_eq!(
        shop.patched("b100", 150),
        files(["theirs\nolder\n", "old\n"])
    );
}

#[test]
fn a_patch_that_does_not_apply_is_an_error_that_names_it_and_the_file() {
    let shop = Shop::new("never");
    shop.write("tree/src/b", "something else\n");
    let error = shop.patched("b100", 100).unwrap_err();
    assert!(
        error.contains("0001-x.patch does not apply to src/b"),
        "{error}"
    );
}
