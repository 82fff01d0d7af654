//! Counters, profile and trace obey one rule: what is in the way is said before a model is loaded, what is there keeps
//! what it is, and nothing about them costs a run.

#![cfg(feature = "llama")]
#![allow(unsafe_code)]

mod child;
mod runner;
mod tiny;

use child::{Ended, Running, completion, run};
use hotset::profile::Profile;
use hotset::trace::Trace;
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// A file that a run leaves behind.
struct Side {
    name: &'static str,
    file: &'static str,
    /// Whether the file is what it should be.
    is_whole: fn(&Path) -> bool,
}

const SIDES: [Side; 3] = [
    Side {
        name: "HOTSET_STATS",
        file: "stats.json",
        is_whole: |path| {
            let text = fs::read(path).unwrap();
            serde_json::from_slice::<serde_json::Value>(&text)
                .is_ok_and(|v| v[0]["n_slots"].is_u64())
        },
    },
    Side {
        name: "HOTSET_PROFILE_SAVE",
        file: "profile.json",
        is_whole: |path| Profile::read(path).is_ok_and(|p| p.tokens.generation > 0),
    },
    Side {
        name: "HOTSET_TRACE",
        file: "run.trace.gz",
        is_whole: |path| Trace::open(path, u32::MAX).is_ok_and(|t| t.n_tokens() > 0),
    },
];

/// A folder with a model, and another one for what runs of it leave behind.
struct Bench {
    dir: TempDir,
    model: PathBuf,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let model = tiny::write(&tiny::all()[0], dir.path());
        fs::create_dir(dir.path().join("out")).unwrap();
        Self { dir, model }
    }

    fn out(&self) -> PathBuf {
        self.dir.path().join("out")
    }

    fn path(&self, side: &Side) -> PathBuf {
        self.out().join(side.file)
    }

    /// A short run that writes all three files to `folder`.
    fn command(&self, folder: &Path) -> Command {
        let mut command = completion(&self.model, &[("HOTSET_RAM", "30%")], &["-n", "6"]);
        for side in &SIDES {
            command.env(side.name, folder.join(side.file));
        }
        command
    }

    /// What such a run prints without hotset.
    fn stock_text(&self) -> Vec<u8> {
        run(completion(&self.model, &[("HOTSET", "off")], &["-n", "6"])).stdout
    }
}

/// Names of the files in a folder, sorted.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<String> = entries
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn warnings(stderr: &str) -> Vec<&str> {
    let lines = stderr.lines();
    // Upstream's text may stand before it on the line.
    lines
        .filter(|l| l.contains("hotset: warning: HOTSET_"))
        .collect()
}

fn is_root() -> bool {
    // SAFETY: a plain system call.
    unsafe { libc::geteuid() == 0 }
}

/// Makes file permissions count for `command` even if root runs it.
fn forget_powers_of_root(command: &mut Command) {
    const POWERS: [libc::c_ulong; 3] = [0, 1, 2];
    let forget = || {
        for power in POWERS {
            // SAFETY: a plain system call. Who is not root has no such power and may not drop it.
            unsafe { libc::prctl(libc::PR_CAPBSET_DROP, power, 0, 0, 0) };
        }
        Ok(())
    };
    // SAFETY: only makes system calls.
    unsafe { command.pre_exec(forget) };
}

/// `command` after a script that mounts things for it alone, in which `$OUT` is `folder`. `None` where the system lets
/// nobody mount.
fn mounted(command: &Command, folder: &Path, script: &str) -> Option<Command> {
    let ways: [&[&str]; 2] = [&["-m"], &["-rm"]];
    let can = |way: &&&[&str]| {
        let tried = Command::new("unshare")
            .args(**way)
            .args(["sh", "-c", "mount -t tmpfs none /tmp"])
            .output();
        tried.is_ok_and(|tried| tried.status.success())
    };
    let Some(way) = ways.iter().find(can) else {
        eprintln!("nothing can be mounted here: not tested");
        return None;
    };
    let mut shell = Command::new("unshare");
    shell.args(*way).args(["sh", "-ec", script, "sh"]);
    shell.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    shell.env("OUT", folder);
    Some(shell)
}

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
        symlink(Path::new("../real").join(side.file), bench.path(side)).unwrap();
    }
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
    assert_eq!(names(&real).len(), 3, "no temporary file stays");
}

/// A file that is mounted by itself, as into a container; and one in a folder that takes no others.
#[test]
fn files_that_cannot_be_replaced_are_written_in_place() {
    let bench = Bench::new();
    let real = bench.dir.path().join("real");
    fs::create_dir(&real).unwrap();
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
    let before = SIDES.each_ref().map(|side| inode(&bench.path(side)));
    fs::set_permissions(bench.out(), Permissions::from_mode(0o555)).unwrap();
    let mut command = bench.command(&bench.out());
    forget_powers_of_root(&mut command);
    run(command).text();
    assert_eq!(
        SIDES.each_ref().map(|side| inode(&bench.path(side))),
        before
    );
    assert!(SIDES.iter().all(|side| (side.is_whole)(&bench.path(side))));

    fill(&real);
    let script = "for name in stats.json profile.json run.trace.gz; do \
        mount --bind $OUT/../real/$name $OUT/$name; done; exec \"$@\"";
    let command = bench.command(&bench.out());
    if let Some(command) = mounted(&command, &bench.out(), script) {
        for _ in 0..2 {
            let ended = run(command_of(&command));
            ended.text();
            assert_eq!(warnings(&ended.stderr), [""; 0]);
            assert!(
                SIDES
                    .iter()
                    .all(|side| (side.is_whole)(&real.join(side.file)))
            );
        }
    }
    assert_eq!(names(&real).len(), 3);
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
    let link = |target: &str| {
        for side in &SIDES {
            let path = bench.path(side);
            let _ = fs::remove_file(&path);
            symlink(target, path).unwrap();
        }
    };
    link("/dev/stderr");
    let ended = run(bench.command(&bench.out()));
    assert_eq!(
        (ended.code(), &ended.stdout),
        (0, &text),
        "{}",
        ended.stderr
    );
    for part in ["\"n_slots\"", "\"created\"", "\u{1f}"] {
        assert!(ended.stderr.contains(part), "{}", ended.stderr);
    }
    link("/dev/null");
    let ended = run(bench.command(&bench.out()));
    assert_eq!(
        (ended.code(), &ended.stdout),
        (0, &text),
        "{}",
        ended.stderr
    );
    assert_eq!(warnings(&ended.stderr), [""; 0]);

    let make = |side: &Side| {
        let path = bench.path(side);
        fs::remove_file(&path).unwrap();
        let made = Command::new("mkfifo").arg(&path).status().unwrap();
        assert!(made.success());
        path
    };
    let pipes = SIDES.each_ref().map(make);
    let ended = run(bench.command(&bench.out()));
    assert_eq!(
        (ended.code(), &ended.stdout),
        (0, &text),
        "{}",
        ended.stderr
    );
    assert_eq!(warnings(&ended.stderr).len(), 3, "{}", ended.stderr);
    assert!(ended.stderr.contains("nobody reads"), "{}", ended.stderr);

    let read = |path: PathBuf| std::thread::spawn(move || fs::read(path).unwrap());
    let readers = pipes.map(read);
    let ended = run(bench.command(&bench.out()));
    assert_eq!(
        (ended.code(), &ended.stdout),
        (0, &text),
        "{}",
        ended.stderr
    );
    for (side, reader) in SIDES.iter().zip(readers) {
        let path = bench.dir.path().join(side.file);
        fs::write(&path, reader.join().unwrap()).unwrap();
        assert!((side.is_whole)(&path), "{}", side.name);
    }
}

/// On a disk that is full before the run begins what was there stays whole.
#[test]
fn a_full_disk_costs_three_lines() {
    let bench = Bench::new();
    run(bench.command(&bench.out())).text();
    let kept = bench.dir.path().join("kept");
    fs::create_dir(&kept).unwrap();
    let script = "mkdir $OUT/../saved; cp $OUT/* $OUT/../saved; mount -t tmpfs -o size=64k none $OUT; \
        cp $OUT/../saved/* $OUT; dd if=/dev/zero of=$OUT/filler bs=4k count=99 2> $OUT/../dd || true; \
        \"$@\"; status=$?; rm $OUT/filler; cp $OUT/* $OUT/../kept; ls -A $OUT | wc -l > $OUT/../n; exit $status";
    let command = bench.command(&bench.out());
    let Some(command) = mounted(&command, &bench.out(), script) else {
        return;
    };
    let ended = run(command);
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    assert_eq!(ended.stdout, bench.stock_text());
    let said = warnings(&ended.stderr);
    assert_eq!(said.len(), 3, "{}", ended.stderr);
    for (side, line) in SIDES.iter().zip(sorted_like_sides(&said)) {
        assert!(line.contains("No space left on device"), "{line}");
        let read = |folder: &Path| fs::read(folder.join(side.file)).unwrap();
        assert_eq!(read(&kept), read(&bench.out()), "{}", side.name);
    }
    let n = fs::read_to_string(bench.dir.path().join("n")).unwrap();
    assert_eq!(n.trim(), "3", "no temporary file stays");
}

/// The line of each file.
fn sorted_like_sides<'a>(lines: &[&'a str]) -> Vec<&'a str> {
    let of = |side: &Side| {
        let line = lines.iter().find(|line| line.contains(side.name));
        *line.unwrap_or_else(|| panic!("no {} in {lines:?}", side.name))
    };
    SIDES.iter().map(of).collect()
}

/// The folder goes while the program runs, which does not care.
#[test]
fn a_folder_that_goes_costs_a_line_for_each_file() {
    let bench = Bench::new();
    let mut command = bench.command(&bench.out());
    command
        .env("HOTSET_FAULT", "delay_ms=20")
        .args(["-n", "40"]);
    let mut running = Running::start(command);
    let is_loaded = |r: &Running| r.stderr().contains("layers stream");
    running.wait_until("loading", is_loaded);
    fs::remove_dir_all(bench.out()).unwrap();
    let ended = running.wait();
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    let lines = warnings(&ended.stderr);
    assert_eq!(lines.len(), 3, "{}", ended.stderr);
    for line in sorted_like_sides(&lines) {
        assert!(line.contains("No such file or directory"), "{line}");
    }
    assert!(!bench.out().exists());
}
