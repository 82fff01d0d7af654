//! `hotset demo` and `hotset run`.

use super::{error_of, hotset, model, run, text};
use std::collections::BTreeSet;
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
        "hotset run -m model.gguf",
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

/// The options that the help of a program lists.
fn options_of(program: &str) -> BTreeSet<String> {
    let output = run(&mut hotset(&[program, "--", "--help"]));
    let help = text(&output.stdout) + &text(&output.stderr);
    let words = help.split([' ', ',', '\n', '/', '|', '(', ')', '[', ']', '<']);
    let is_option = |word: &&str| {
        let name = word.trim_start_matches('-');
        let is_name = name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        word.starts_with('-') && is_name && name.starts_with(|c: char| c.is_ascii_alphabetic())
    };
    words.filter(is_option).map(str::to_string).collect()
}

/// Options that only their own program knows come to it wherever they stand, none is taken for a slip, and what is said
/// to be gone is gone.
#[test]
fn options_of_programs_are_theirs() {
    for program in ["cli", "server", "completion", "perplexity", "llama-bench"] {
        let options = options_of(program);
        assert!(options.len() > 30, "{program}: {options:?}");
        for knob in hotset::config::KNOBS {
            let option = knob.option();
            assert!(
                !options.contains(&option) || option == "--repack",
                "{program}: {option}"
            );
        }
        for gone in [
            "--mmap",
            "--no-mmap",
            "-mmp",
            "--mlock",
            "--direct-io",
            "-dio",
            "-ndio",
        ] {
            assert!(!options.contains(gone), "{program}: {gone}");
        }
        assert!(options.contains("--load-mode"), "{program}");
        // The first one is none, so the program says so and ends.
        let mut all = hotset(&[program, "--no-such-option"]);
        let output = run(all.args(&options));
        let said = text(&output.stderr);
        assert!(
            !output.status.success() && !said.contains("hotset: error"),
            "{program}: {said}"
        );
    }
}
