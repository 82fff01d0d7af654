//! What is in the way is said before a model is loaded, and looking for it changes nothing.

use super::child::{Ended, completion, run};
use super::{Bench, SIDES, Side, forget_powers_of_root, mounted, names};
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;

/// Fails unless the program has refused `side` at `path` before it looked for its model.
#[track_caller]
fn assert_refused(ended: &Ended, side: &Side, path: &Path, why: &str) {
    assert_eq!(ended.code(), 2, "{} {}: {}", side.name, why, ended.stderr);
    assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
    let line = ended.error_line();
    let said = format!("{}={}: ", side.name, path.display());
    for part in [&said, why] {
        assert!(line.contains(part), "no `{part}` in: {line}");
    }
}

/// A run of a model that is not there, with one of the files.
fn refusing(side: &Side, path: &Path) -> Command {
    let mut command = completion(Path::new("no.gguf"), &[], &[]);
    command.env(side.name, path);
    command
}

#[test]
fn what_is_in_the_way_is_said_before_a_model_is_loaded() {
    for side in &SIDES {
        let bench = Bench::new();
        let at = |name: &str| bench.out().join(name);
        fs::write(at("file"), "a file").unwrap();
        fs::create_dir_all(at("folder").join(side.file)).unwrap();
        fs::create_dir(at("links")).unwrap();
        symlink("../none/x", at("links").join(side.file)).unwrap();
        fs::create_dir(at("round")).unwrap();
        symlink(side.file, at("round").join(side.file)).unwrap();
        fs::create_dir(at("socket")).unwrap();
        let _listener = UnixListener::bind(at("socket").join(side.file)).unwrap();
        for folder in ["locked", "sealed"] {
            fs::create_dir(at(folder)).unwrap();
        }
        let locked = at("locked").join(side.file);
        fs::write(&locked, "old").unwrap();
        fs::set_permissions(&locked, Permissions::from_mode(0o444)).unwrap();
        fs::set_permissions(at("sealed"), Permissions::from_mode(0o555)).unwrap();
        for (folder, why) in [
            ("none", "its folder does not exist"),
            ("file", "its folder is not a folder"),
            ("folder", "it is a folder"),
            ("links", "whose folder does not exist"),
            ("round", "symbolic links"),
            ("socket", "it is a socket"),
            ("locked", "Permission denied"),
            ("sealed", "its folder takes no files: Permission denied"),
        ] {
            let path = at(folder).join(side.file);
            let mut command = refusing(side, &path);
            forget_powers_of_root(&mut command);
            assert_refused(&run(command), side, &path, why);
        }
        assert_eq!(fs::read(&locked).unwrap(), b"old");
        assert!(names(&at("sealed")).is_empty());

        // A disk that takes nothing from anybody, root or not.
        let script = "mount -t tmpfs none $OUT; echo old > $OUT/$NAME; mount -o remount,ro $OUT; exec \"$@\"";
        for name in ["other", side.file] {
            let path = bench.path(side);
            let command = mounted(&refusing(side, &path), &bench.out(), script);
            if let Some(mut command) = command {
                command.env("NAME", name);
                assert_refused(&run(command), side, &path, "Read-only file system");
            }
        }
    }
}

/// What is well is only looked at: the model is what is missed, and nothing is there that was not.
#[test]
fn checking_leaves_no_trace() {
    for side in &SIDES {
        let bench = Bench::new();
        let path = bench.path(side);
        let missed = |path: &Path| {
            let ended = run(refusing(side, path));
            assert_eq!(ended.code(), 1, "{}", ended.stderr);
            assert!(ended.stderr.contains("no.gguf"), "{}", ended.stderr);
        };
        missed(&path);
        assert!(names(&bench.out()).is_empty());
        fs::write(&path, "old").unwrap();
        let before = fs::metadata(&path).unwrap();
        missed(&path);
        let after = fs::metadata(&path).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(
            [before.ino(), before.mtime_nsec() as u64],
            [after.ino(), after.mtime_nsec() as u64]
        );
        assert_eq!(names(&bench.out()), [side.file]);
    }
}

#[test]
fn two_files_are_not_one() {
    for (i, side) in SIDES.iter().enumerate() {
        for other in &SIDES[..i] {
            let bench = Bench::new();
            let [a, b] = [bench.path(other), bench.path(side)];
            // A link to what is not there, a link, another name of it.
            symlink(&a, &b).unwrap();
            let both = || {
                let mut command = refusing(side, &b);
                command.env(other.name, &a);
                command
            };
            let why = format!("{} names the same file", other.name);
            assert_refused(&run(both()), side, &b, &why);
            fs::write(&a, "").unwrap();
            assert_refused(&run(both()), side, &b, &why);
            fs::remove_file(&b).unwrap();
            fs::hard_link(&a, &b).unwrap();
            assert_refused(&run(both()), side, &b, &why);
        }
    }
}

/// What a run leaves in a folder of profiles is one of them the next time.
#[test]
fn a_folder_of_profiles_is_for_profiles() {
    let bench = Bench::new();
    let [stats, profile, ..] = &SIDES;
    let with_folder = |side: &Side, path: &Path| {
        let mut command = refusing(side, path);
        command.env("HOTSET_PROFILE", bench.out());
        run(command)
    };
    let path = bench.path(stats);
    let ended = with_folder(stats, &path);
    assert_refused(&ended, stats, &path, "HOTSET_PROFILE takes each .json file");
    // An empty file, or half of one, is begun anew or left alone when the model is known.
    for old in ["", "{\"version\":1,"] {
        let path = bench.path(profile);
        fs::write(&path, old).unwrap();
        let ended = with_folder(profile, &path);
        assert_eq!(ended.code(), 1, "{}", ended.stderr);
        assert!(ended.stderr.contains("no.gguf"), "{}", ended.stderr);
    }
}
