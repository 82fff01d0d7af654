//! New files are like any other, and what is there keeps what it is.

use super::child::run;
use super::{Bench, SIDES, Side, forget_powers_of_root, is_root, mounted, names, warnings};
use rustix::fs::{XattrFlags, getxattr, setxattr};
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

#[test]
fn new_files_have_the_mode_of_any_other() {
    let bench = Bench::new();
    for (mask, mode) in [(0o022, 0o644), (0o077, 0o600), (0o000, 0o666)] {
        let mut command = bench.command(&bench.out());
        let set = move || {
            // SAFETY: a plain system call.
            unsafe { libc::umask(mask) };
            Ok(())
        };
        // SAFETY: only makes a system call.
        unsafe { command.pre_exec(set) };
        run(command).text();
        for side in &SIDES {
            let path = bench.path(side);
            assert!((side.is_whole)(&path), "{}", side.name);
            let is = fs::metadata(&path).unwrap().mode() & 0o7777;
            assert_eq!(is, mode, "{} {mask:o}", side.name);
            fs::remove_file(&path).unwrap();
        }
        assert!(names(&bench.out()).is_empty());
    }
}

/// A file of somebody else, behind a link, with another name.
#[test]
fn files_that_are_there_keep_what_they_are() {
    const MODE: u32 = 0o640;
    let bench = Bench::new();
    let real = bench.dir.path().join("real");
    fs::create_dir(&real).unwrap();
    for side in &SIDES {
        let target = real.join(side.file);
        // No profile is a profile that is begun.
        fs::write(
            &target,
            if side.file == "profile.json" {
                ""
            } else {
                "old"
            },
        )
        .unwrap();
        if is_root() {
            chown(&target, Some(1000), Some(1001)).unwrap();
        }
        fs::set_permissions(&target, Permissions::from_mode(MODE)).unwrap();
        // Where the file system keeps such.
        let _ = setxattr(&target, "user.note", b"kept", XattrFlags::empty());
        symlink(Path::new("../real").join(side.file), bench.path(side)).unwrap();
    }
    let note = |path: &Path| {
        let mut value = [0; 8];
        getxattr(path, "user.note", &mut value).map(|n| value[..n].to_vec())
    };
    let notes = SIDES.each_ref().map(|side| note(&real.join(side.file)));
    for has_names in [false, true] {
        let before: Vec<_> = SIDES
            .iter()
            .map(|s| fs::metadata(real.join(s.file)).unwrap())
            .collect();
        if has_names {
            for side in &SIDES {
                fs::hard_link(real.join(side.file), bench.dir.path().join(side.file)).unwrap();
            }
        }
        run(bench.command(&bench.out())).text();
        for (side, before) in SIDES.iter().zip(before) {
            let path = bench.path(side);
            assert!((side.is_whole)(&path), "{}", side.name);
            assert!(
                path.symlink_metadata().unwrap().is_symlink(),
                "{}",
                side.name
            );
            let after = fs::metadata(&path).unwrap();
            let kept = |m: &fs::Metadata| (m.mode(), m.uid(), m.gid());
            assert_eq!(kept(&after), kept(&before), "{}", side.name);
            assert!(notes.contains(&note(&path)), "{}", side.name);
            if has_names {
                assert_eq!(
                    (after.ino(), after.nlink()),
                    (before.ino(), 2),
                    "{}",
                    side.name
                );
            }
        }
    }
    assert_eq!(names(&real).len(), SIDES.len(), "no temporary file stays");
}

/// A file that is mounted by itself, as into a container; and one in a folder that takes no others.
#[test]
fn files_that_cannot_be_replaced_are_written_in_place() {
    let bench = Bench::new();
    let real = bench.dir.path().join("real");
    fs::create_dir(&real).unwrap();
    let all_whole = |folder: &Path| {
        SIDES
            .iter()
            .all(|side| (side.is_whole)(&folder.join(side.file)))
    };
    let inode = |path: &Path| fs::metadata(path).unwrap().ino();
    let fill = |folder: &Path| {
        for side in &SIDES {
            // Longer than what will be there.
            let old = match side.file {
                "profile.json" => String::new(),
                _ => "old".repeat(1 << 20),
            };
            fs::write(folder.join(side.file), old).unwrap();
        }
    };
    fill(&bench.out());
    let inodes = || SIDES.each_ref().map(|side| inode(&bench.path(side)));
    let before = inodes();
    fs::set_permissions(bench.out(), Permissions::from_mode(0o555)).unwrap();
    let mut command = bench.command(&bench.out());
    forget_powers_of_root(&mut command);
    run(command).text();
    assert_eq!(inodes(), before);
    assert!(all_whole(&bench.out()));

    fill(&real);
    let script = "for name in stats.json profile.json run.trace.gz timeline.json; do \
        mount --bind $OUT/../real/$name $OUT/$name; done; exec \"$@\"";
    let command = bench.command(&bench.out());
    if let Some(command) = mounted(&command, &bench.out(), script) {
        for _ in 0..2 {
            let ended = run(command_of(&command));
            ended.text();
            assert_eq!(warnings(&ended), [""; 0]);
            assert!(all_whole(&real));
        }
    }
    assert_eq!(names(&real).len(), SIDES.len());
}

/// The same command once more.
fn command_of(command: &Command) -> Command {
    let mut same = Command::new(command.get_program());
    same.args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => same.env(name, value),
            None => same.env_remove(name),
        };
    }
    same
}

/// The standard error of the program, nowhere, a pipe with a reader and one without.
#[test]
fn what_is_no_file_is_written_to() {
    let bench = Bench::new();
    let text = bench.stock_text();
    let runs_as_ever = || {
        let ended = run(bench.command(&bench.out()));
        assert_eq!(
            (ended.code(), &ended.stdout),
            (0, &text),
            "{}",
            ended.stderr
        );
        ended
    };
    let link = |target: &str| {
        for side in &SIDES {
            let path = bench.path(side);
            let _ = fs::remove_file(&path);
            symlink(target, path).unwrap();
        }
    };
    link("/dev/stderr");
    let ended = runs_as_ever();
    for part in ["\"n_slots\"", "\"created\"", "\u{1f}"] {
        assert!(ended.stderr.contains(part), "{}", ended.stderr);
    }
    link("/dev/null");
    let ended = runs_as_ever();
    assert_eq!(warnings(&ended), [""; 0]);

    let make = |side: &Side| {
        let path = bench.path(side);
        fs::remove_file(&path).unwrap();
        let made = Command::new("mkfifo").arg(&path).status().unwrap();
        assert!(made.success());
        path
    };
    let pipes = SIDES.each_ref().map(make);
    let ended = runs_as_ever();
    assert_eq!(warnings(&ended).len(), SIDES.len(), "{}", ended.stderr);
    assert!(ended.stderr.contains("nobody reads"), "{}", ended.stderr);

    let read = |path: PathBuf| std::thread::spawn(move || fs::read(path).unwrap());
    let readers = pipes.map(read);
    runs_as_ever();
    for (side, reader) in SIDES.iter().zip(readers) {
        let path = bench.dir.path().join(side.file);
        fs::write(&path, reader.join().unwrap()).unwrap();
        assert!((side.is_whole)(&path), "{}", side.name);
    }
}
