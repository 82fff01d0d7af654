//! `hotset demo` and `hotset run`.

use super::{error_of, hotset, model, run, text};
use std::path::Path;
use std::process::Output;

/// Runs the demo with its own folder for the model.
fn demo(folder: &Path, args: &[&str]) -> Output {
    let mut command = hotset(&["demo", "-n", "16"]);
    command
        .args(args)
        .env("XDG_CACHE_HOME", folder)
        .env("HOME", folder);
    run(&mut command)
}

#[test]
fn the_demo_writes_text_then_the_table() {
    let folder = tempfile::tempdir().unwrap();
    let first = demo(folder.path(), &[]);
    let (stdout, stderr) = (text(&first.stdout), text(&first.stderr));
    assert!(first.status.success(), "{stderr}");
    assert!(stdout.starts_with("Il file di configurazione"), "{stdout}");
    for part in [
        "30 %",
        "hits",
        "read ",
        "stalled",
        "lru ",
        "Belady",
        "hotset run --ram auto",
    ] {
        assert!(stderr.contains(part), "no {part} in:\n{stderr}");
    }
    // Nothing of llama.cpp's own log.
    assert!(!stderr.contains("llama_"), "{stderr}");

    // A file that was left there is used if it is the model, and replaced if it is not.
    for path in walk(folder.path()) {
        std::fs::write(path, "GGUF, but not really").unwrap();
    }
    let again = demo(folder.path(), &["--policy", "lru", "--ram", "100%"]);
    assert_eq!(
        text(&again.stdout),
        stdout,
        "the policy and the budget change no token"
    );
    assert!(
        text(&again.stderr).contains("policy lru"),
        "{}",
        text(&again.stderr)
    );
}

fn walk(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => files.extend(walk(&path)),
            false => files.push(path),
        }
    }
    files
}

#[test]
fn run_starts_the_program_with_the_arguments() {
    let words = |line: &'static str| line.split(' ').collect::<Vec<_>>();
    let output = run(&mut hotset(&words("run --tool completion -- --version")));
    let all = text(&output.stdout) + &text(&output.stderr);
    assert!(output.status.success() && all.contains("version"), "{all}");

    let line = "run --ram 25% --policy lfu --tool completion -- -p Le -n 4 -no-cnv --seed 1 -m";
    let model = model();
    let args = [words(line), vec![model.as_str()]].concat();
    let output = run(hotset(&args).env("HOTSET_POLICY", "lru"));
    let stderr = text(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    assert!(stderr.contains("policy lfu"), "{stderr}");
    assert!(!stderr.contains("policy lru"), "{stderr}");

    let missing = words("run --ram 25% -- -m no-such-model.gguf -p x -st");
    assert!(!run(&mut hotset(&missing)).status.success());
}

#[test]
fn a_budget_the_machine_cannot_hold_is_refused_before_the_model_is_read() {
    let args = [
        "run",
        "--ram",
        "900TiB",
        "--tool",
        "completion",
        "--",
        "-m",
        "no-such-model.gguf",
    ];
    let error = error_of(&mut hotset(&args), 2);
    assert!(
        error.contains("900") && error.contains("available"),
        "{error}"
    );
}
