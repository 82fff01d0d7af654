//! What goes wrong outside of the model ends in one clear line and a failure: never in a hang, a
//! signal, a wrong token or half a file.

#![cfg(all(feature = "llama", feature = "cli"))]
#![allow(unsafe_code)]

mod child;
mod tiny;

use child::{Ended, Running, StatsFile, completion, count, polyglot, run, said};
use serde_json::Value;
use std::fs::OpenOptions;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;
use tempfile::TempDir;

/// What [`LONG`] gives without hotset.
static RIGHT_TEXT: LazyLock<String> = LazyLock::new(|| {
    let stock = run(completion(&polyglot(), &[("HOTSET", "off")], LONG));
    stock.text().into_owned()
});

/// Options for a text that takes a while when each read does.
const LONG: &[&str] = &["-n", "96"];

/// Half of the experts of the polyglot model, and reads that take a millisecond.
const SLOW: &[(&str, &str)] = &[("HOTSET_RAM", "50%"), ("HOTSET_FAULT", "delay_ms=1")];

/// A copy of the polyglot model that a test may spoil.
fn copy_of_polyglot() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.gguf");
    std::fs::write(&path, std::fs::read(polyglot()).unwrap()).unwrap();
    (dir, path)
}

/// Starts a long text from `model` and waits until some of it is printed.
fn start_slow(model: &Path, vars: &[(&str, &str)]) -> Running {
    // Not later: there is one program at a time.
    LazyLock::force(&RIGHT_TEXT);
    let mut running = Running::start(completion(model, vars, LONG));
    running.wait_until("some text", |r| r.stdout().len() > 20);
    running
}

/// Fails unless the program ended with an error, and what it printed before is right.
fn assert_stopped(ended: &Ended) {
    assert_eq!(ended.code(), 1, "{}", ended.stderr);
    assert!(!ended.stdout.is_empty(), "{}", ended.stderr);
    assert!(ended.stdout.len() < RIGHT_TEXT.len());
    assert!(
        RIGHT_TEXT.as_bytes().starts_with(&ended.stdout),
        "a wrong token"
    );
}

fn assert_says(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "`{part}` is missing in:\n{text}");
    }
}

/// Names of the files in a folder.
fn files(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).unwrap();
    entries
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect()
}

#[test]
fn truncated_before_loading() {
    let dir = tempfile::tempdir().unwrap();
    let path = tiny::write(&tiny::all()[0], dir.path());
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    // The last tensor is the last layer's down projection.
    file.set_len(file.metadata().unwrap().len() - 1000).unwrap();
    let ended = run(completion(&path, &[("HOTSET_RAM", "30%")], &[]));
    assert_eq!(ended.code(), 1, "{}", ended.stderr);
    assert_says(
        &ended.stderr,
        &["blk.2.ffn_down_exps.weight", "not within the file bounds"],
    );
    assert!(ended.stdout.is_empty());
}

#[test]
fn read_errors() {
    for io in ["uring", "pread"] {
        let file = StatsFile::new();
        let json = file.path();
        let mut vars = vec![
            ("HOTSET_RAM", "30%"),
            ("HOTSET_IO", io),
            ("HOTSET_STATS", &json),
        ];
        let whole = run(completion(&polyglot(), &vars, LONG));
        assert_eq!(whole.text(), *RIGHT_TEXT);
        let n_reads = file.read_streamed()["n_reads"].as_u64().unwrap();
        std::fs::remove_file(&json).unwrap();

        let fault = format!("read={}", n_reads * 3 / 4);
        vars.push(("HOTSET_FAULT", &fault));
        let ended = run(completion(&polyglot(), &vars, LONG));
        assert_stopped(&ended);
        let parts = [
            "tensor 'blk.",
            "_exps.weight' expert ",
            "offset",
            "polyglot-moe.gguf",
        ];
        assert_says(ended.error_line(), &parts);
        assert!(!Path::new(&json).exists());
    }
}

#[test]
fn truncated_while_running() {
    let (_dir, path) = copy_of_polyglot();
    let running = start_slow(&path, SLOW);
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len(1 << 20).unwrap();
    let ended = running.wait();
    assert_stopped(&ended);
    // Found out before a read or by one that was under way.
    let error = ended.error_line();
    assert_says(error, &["model.gguf"]);
    let before = error.contains("had 16783840 bytes when it was opened and has 1048576 now");
    assert!(before || error.contains("tensor 'blk."), "{error}");
}

#[test]
fn overwritten_while_running() {
    let (_dir, path) = copy_of_polyglot();
    let running = start_slow(&path, SLOW);
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    file.write_all_at(&[0; 4096], 8 << 20).unwrap();
    let ended = running.wait();
    assert_stopped(&ended);
    assert_says(
        ended.error_line(),
        &["model.gguf", "was overwritten while in use"],
    );
}

/// As `touch`, backups and `chmod` do it: the content stays.
#[test]
fn touched_while_running() {
    let (_dir, path) = copy_of_polyglot();
    let mut running = start_slow(&path, SLOW);
    let now = std::time::SystemTime::now();
    let times = std::fs::FileTimes::new()
        .set_accessed(now)
        .set_modified(now);
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    file.set_times(times).unwrap();
    let touch = |args: &[&str]| Command::new("touch").args(args).arg(&path).status();
    assert!(touch(&["-m"]).unwrap().success());
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    assert!(running.is_running());
    let n_before = running.stdout().len();
    assert!(n_before < RIGHT_TEXT.len() / 2, "touched too late");
    assert_eq!(running.wait().text(), *RIGHT_TEXT);
}

#[test]
fn replaced_while_running() {
    let (dir, path) = copy_of_polyglot();
    let stats = StatsFile::new();
    let json = stats.path();
    let mut running = start_slow(&path, &[SLOW, &[("HOTSET_STATS", &json)]].concat());
    let other = dir.path().join("other");
    std::fs::write(&other, vec![0; 1 << 20]).unwrap();
    std::fs::rename(&other, &path).unwrap();
    assert!(running.is_running());
    assert!(
        running.stdout().len() < RIGHT_TEXT.len() / 2,
        "replaced too late"
    );
    assert_eq!(running.wait().text(), *RIGHT_TEXT);
    stats.read_streamed();
}

/// The settings are checked before anything else: the model does not even exist.
#[test]
fn bad_settings() {
    for (name, value, why) in [
        ("HOTSET_RAM", "100.0 TiB", "are available"),
        ("HOTSET_RAM", "6 parrots", "6GiB"),
        ("HOTSET_RAM", "101%", "100%"),
        ("HOTSET", "yes", "on or off"),
        ("HOTSET_POLICY", "mru", "lru"),
        ("HOTSET_IO", "dma", "pread"),
        ("HOTSET_STATS", "0", "seconds from 1 to 86400"),
        ("HOTSET_RAM", "6", "that is 6 bytes; write 6GiB"),
        ("HOTSET_STATS", "no/such/folder/x.json", "does not exist"),
        ("HOTSET_TRACE", "run.json", ".trace.gz"),
        (
            "HOTSET_TRACE",
            "no/such/folder/x.trace.gz",
            "does not exist",
        ),
        ("HOTSET_FAULT", "fire", "read="),
        ("HOTSET_RAMM", "6GiB", "no such setting"),
    ] {
        let ended = run(completion(Path::new("no.gguf"), &[(name, value)], &[]));
        assert_eq!(ended.code(), 2, "{name}={value}: {}", ended.stderr);
        assert_says(ended.error_line(), &[name, value, why]);
        assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
        assert!(ended.stdout.is_empty());
    }
    // With good settings it is the model that is missed.
    let ended = run(completion(
        Path::new("no.gguf"),
        &[("HOTSET_RAM", "30%")],
        &[],
    ));
    assert_eq!(ended.code(), 1);
    assert_says(&ended.stderr, &["no.gguf"]);
}

#[test]
fn a_model_that_may_not_be_read() {
    let (_dir, path) = copy_of_polyglot();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o000)).unwrap();
    let mut command = completion(&path, &[("HOTSET_RAM", "30%")], &[]);
    forget_powers_of_root(&mut command);
    let ended = run(command);
    assert_eq!(ended.code(), 1, "{}", ended.stderr);
    assert_says(&ended.stderr, &["model.gguf", "Permission denied"]);
}

/// Makes file permissions count for `command` even if root runs it. Another user would not do: it may
/// lack access to the program.
fn forget_powers_of_root(command: &mut Command) {
    #[cfg(target_os = "linux")]
    {
        const CAP_DAC_OVERRIDE: libc::c_ulong = 1;
        const CAP_DAC_READ_SEARCH: libc::c_ulong = 2;
        let forget = || {
            for power in [CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH] {
                // SAFETY: a plain system call. Who is not root has no such power and may not drop it.
                unsafe { libc::prctl(libc::PR_CAPBSET_DROP, power, 0, 0, 0) };
            }
            Ok(())
        };
        // SAFETY: only makes system calls.
        unsafe { command.pre_exec(forget) };
    }
    let _ = command;
}

/// Runs `command` on a disk on which no byte can be written. Its output comes through a pipe to
/// `cat`, which can write; the last line is its exit status.
fn run_on_a_full_disk(command: &Command) -> (String, i32) {
    let script = "{ (ulimit -f 0; exec \"$@\"); echo \"status $?\"; } 2>&1 | cat";
    let mut shell = Command::new("sh");
    shell
        .args(["-c", script, "sh"])
        .arg(command.get_program())
        .args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    let output = run(shell).text().into_owned();
    let status = output
        .lines()
        .last()
        .and_then(|l| l.strip_prefix("status "));
    let status = status.and_then(|s| s.parse().ok()).expect("a status");
    (output, status)
}

#[test]
fn counters_on_a_full_disk() {
    let dir = tempfile::tempdir().unwrap();
    let json = dir.path().join("stats.json");
    let vars = [
        ("HOTSET_RAM", "30%"),
        ("HOTSET_STATS", json.to_str().unwrap()),
    ];
    let command = completion(&polyglot(), &vars, &["-n", "4"]);
    for old in [None, Some("old")] {
        if let Some(old) = old {
            std::fs::write(&json, old).unwrap();
        }
        let (output, status) = run_on_a_full_disk(&command);
        assert_eq!(status, 0, "{output}");
        let mut warnings = said(&output);
        warnings.retain(|line| line.starts_with("hotset: warning: HOTSET_STATS"));
        assert_eq!(warnings.len(), 1, "{output}");
        assert_says(warnings[0], &["stats.json", "File too large"]);
        let left = if old.is_some() {
            vec!["stats.json"]
        } else {
            vec![]
        };
        assert_eq!(files(dir.path()), left, "no half-written file");
        assert_eq!(std::fs::read_to_string(&json).ok().as_deref(), old);
    }
    // The same command with room on the disk.
    assert!(!run(command).text().is_empty());
    let stats: Vec<Value> = serde_json::from_slice(&std::fs::read(&json).unwrap()).unwrap();
    assert!(count(&stats[0], "misses") > 0);
}

/// A recording is not worth a run.
#[test]
fn recording_on_a_full_disk() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run.trace.gz");
    let args = ["-n", "4"];
    let vars = [("HOTSET_TRACE", path.to_str().unwrap())];
    let (output, status) = run_on_a_full_disk(&completion(&polyglot(), &vars, &args));
    assert_eq!(status, 0, "{output}");
    // Upstream prints text through a thread of its own, so the line may stand within it.
    let begin = output.find("hotset: warning:").expect("a warning");
    let (before, said) = output.split_at(begin);
    let (warning, after) = said.split_once('\n').expect("a line");
    let parts = ["run.trace.gz", "File too large", "no longer recorded"];
    assert_says(warning, &parts);
    assert!(!after.contains("hotset: warning:"), "{output}");
    let stock = run(completion(&polyglot(), &[("HOTSET", "off")], &args));
    let rest = [before, after].concat();
    assert!(rest.contains(stock.text().trim()), "{output}");
}

#[test]
fn tiny_budgets() {
    let stock = run(completion(&polyglot(), &[("HOTSET", "off")], &[]));
    for ram in ["0.001%", "5%", "30%"] {
        let file = StatsFile::new();
        let json = file.path();
        let vars = [("HOTSET_RAM", ram), ("HOTSET_STATS", &json)];
        let ended = run(completion(&polyglot(), &vars, &[]));
        assert_eq!(ended.text(), stock.text(), "{ram}");

        let stats = file.read();
        let number = |name: &str| stats[name].as_u64().unwrap();
        let n_slots = number("n_slots");
        if ram == "0.001%" {
            assert_eq!((n_slots, count(&stats, "hits")), (0, 0));
        } else {
            assert!(count(&stats, "evictions") > 0);
        }
        assert!(count(&stats, "misses") > 0);
        // 6 layers use 8 of 64 experts.
        let expert = number("expert_bytes") / number("n_experts");
        match (6 * 8 * expert)
            .checked_sub(n_slots * expert)
            .filter(|&b| b > 0)
        {
            Some(missing) => {
                assert!(ram != "30%");
                let missing = format!("{:.1} MiB are missing", missing as f64 / (1 << 20) as f64);
                assert_says(&ended.stderr, &["hotset: warning: ", &missing]);
            }
            None => {
                assert!(ram == "30%");
                assert!(!ended.stderr.contains("are missing"), "{}", ended.stderr);
            }
        }
    }
}

/// The largest memory of a program while it runs.
#[cfg(target_os = "linux")]
fn peak_bytes(model: &Path, vars: &[(&str, &str)]) -> u64 {
    let mut peak_kib = 0;
    let running = Running::start(completion(model, vars, &["-n", "64", "-ub", "32"]));
    let ended = running.wait_watching(|r| {
        // Counted anew by exec, unlike ru_maxrss. It never shrinks, and what is allocated in the
        // last milliseconds, after the model is freed, does not matter.
        let status = std::fs::read_to_string(format!("/proc/{}/status", r.id()));
        let status = status.unwrap_or_default();
        let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"));
        let kib = line.and_then(|l| l.trim().trim_end_matches(" kB").parse().ok());
        peak_kib = kib.unwrap_or(0).max(peak_kib);
    });
    ended.text();
    peak_kib * 1024
}

/// 200 MiB of experts in 40 MiB. What the program takes beside is measured with a twin of the model
/// whose experts are small.
#[cfg(target_os = "linux")]
#[test]
fn memory_stays_within_the_budget() {
    const MIB: u64 = 1 << 20;
    let dir = tempfile::tempdir().unwrap();
    let small = tiny::Spec {
        name: "small",
        types: &[[tiny::Type::Q8_0; 3]],
        n_expert: 16,
        ..tiny::all()[0]
    };
    let large = tiny::Spec {
        name: "large",
        n_ff: 5120,
        ..small
    };
    let [small, large] = [small, large].map(|spec| tiny::write(&spec, dir.path()));
    let n_bytes = |path: &Path| path.metadata().unwrap().len();
    let expert_bytes = n_bytes(&large) - n_bytes(&small);
    assert!(expert_bytes > 180 * MIB);

    let file = StatsFile::new();
    let json = file.path();
    let beside = peak_bytes(&small, &[("HOTSET", "off")]);
    let stock = peak_bytes(&large, &[("HOTSET", "off")]);
    assert!(
        stock > beside + expert_bytes / 10 * 9,
        "the measure sees experts: {stock}, {beside}"
    );
    let hotset = peak_bytes(&large, &[("HOTSET_RAM", "40MiB"), ("HOTSET_STATS", &json)]);
    file.read_streamed();
    assert!(hotset <= beside + 40 * MIB + 64 * MIB, "{hotset}, {beside}");
}
