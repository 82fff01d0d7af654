//! The program `hotset` as a user types it.

#![cfg(feature = "cli")]
#![allow(unsafe_code)]

use hotset::policy::REGISTRY;
use std::process::{Command, Output};

#[cfg(feature = "llama")]
mod bench;
#[cfg(feature = "llama")]
mod bench_chat;
mod doctor;
mod doctor_hub;
mod pipes;
mod plan;
mod profile;
#[cfg(feature = "llama")]
mod programs;
mod replay;
mod replay_output;
mod shells;
mod top;
mod top_screen;
mod values;
mod widen;

fn hotset(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hotset"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("HOTSET")) {
        command.env_remove(name);
    }
    // What `hotset run` keeps by itself is the user's, whose tests these are.
    command.env("HOTSET_PROFILE", "off").args(args);
    command
}

fn run(command: &mut Command) -> Output {
    command.output().expect("the program starts")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Runs a command that must fail with this status and nothing but one line; returns the line.
#[track_caller]
fn error_of(command: &mut Command, status: i32) -> String {
    let output = run(command);
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(status), "{stderr}");
    assert_eq!(text(&output.stdout), "", "{stderr}");
    assert!(stderr.starts_with("hotset: error: "), "{stderr}");
    assert_eq!(stderr.trim_end().lines().count(), 1, "{stderr}");
    stderr
}

/// The same command where files may be of so many KiB, or half of that, as shells count.
fn limited(command: &Command, kib: u32) -> Command {
    let mut shell = Command::new("sh");
    let limit = format!("ulimit -f {kib}; exec \"$@\"");
    let args = std::iter::once(command.get_program()).chain(command.get_args());
    shell.args(["-c", &limit, "sh"]).args(args);
    shell
}

/// What the build tells the tests, cargo also tells the programs it runs, and a program takes any
/// variable that begins like this for a setting.
#[test]
fn cargo_passes_on_nothing_that_looks_like_a_setting() {
    let config = hotset::config::Config::from_env();
    assert!(config.is_ok(), "{:?}", config.err());
}

/// Each with what its error must name.
#[test]
fn bad_options_and_values_name_the_value_and_what_is_valid() {
    let cases: [(&[&str], &[&str]); 20] = [
        (
            &["fly"],
            &[
                "fly",
                "run, cli, server, completion, perplexity, llama-bench, demo, doctor, widen, pack, policies, profile, \
                 replay, plan, top, bench, completions, man",
            ],
        ),
        (&["policies", "--xml"], &["--xml", "--json"]),
        (
            &["run", "--rma", "1GiB"],
            &["--rma", "--ram", "--policy", "--stats"],
        ),
        // Behind arguments of the program, too.
        (
            &["server", "-m", "a.gguf", "-c", "8192", "--polcy", "lru"],
            &["--polcy", "'--policy'"],
        ),
        (
            &["run", "-m", "a.gguf", "--ram", "6 parrots"],
            &["HOTSET_RAM=6 parrots", "6GiB"],
        ),
        (
            &["llama-cli", "-m", "a.gguf", "--ram"],
            &["--ram", "value is required"],
        ),
        (
            &["cli", "--ram", "1GiB", "-m", "a.gguf", "--ram", "2GiB"],
            &["--ram", "multiple times"],
        ),
        // What llama.cpp does not know any more.
        (
            &["run", "-m", "a.gguf", "--no-mmap"],
            &["--no-mmap", "--load-mode none"],
        ),
        (
            &["server", "--mlock"],
            &["--mlock", "--load-mode mmap+mlock"],
        ),
        (
            &["llama-bench", "--", "-mmp", "0"],
            &["-mmp", "--load-mode none"],
        ),
        (
            &["bench", "-m", "a.gguf", "-p", "512"],
            &["-p", "hotset llama-bench"],
        ),
        (&["completions", "cmd"], &["cmd", "bash", "zsh", "fish"]),
        (
            &["run", "--ram", "6 parrots"],
            &["HOTSET_RAM=6 parrots", "6GiB", "100%", "auto"],
        ),
        (&["run", "--policy", "mru"], &["mru", "lru, lfu"]),
        (&["run", "--policy", "decay:0"], &["decay:0", "1 to"]),
        (&["run", "--io", "dma"], &["dma", "auto, uring or pread"]),
        (
            &["run", "--tool", "quantize"],
            &["quantize", "cli, server, completion, bench, perplexity"],
        ),
        (&["demo", "-n", "0"], &["'0'", "1..="]),
        (&["demo", "--ram", "200%"], &["200%", "100%"]),
        (&["demo", "--policy", "mru"], &["mru", "lru, lfu"]),
    ];
    for (args, expected) in cases {
        // No model is named: an error about one would mean that the setting was checked too late.
        let error = error_of(&mut hotset(args), 2);
        for part in expected {
            assert!(error.contains(part), "{args:?}: no {part} in: {error}");
        }
    }
}

#[test]
fn the_environment_is_checked_and_options_override_it() {
    let error = error_of(hotset(&["run"]).env("HOTSET_POLICY", "mru"), 2);
    assert!(error.contains("HOTSET_POLICY=mru"), "{error}");
    let error = error_of(hotset(&["run"]).env("HOTSET_RAMM", "1GiB"), 2);
    assert!(
        error.contains("HOTSET_RAMM") && error.contains("HOTSET_RAM,"),
        "{error}"
    );
    for command in ["run", "demo"] {
        let mut set_twice = hotset(&[command, "--policy", "mru"]);
        let error = error_of(set_twice.env("HOTSET_POLICY", "lfu"), 2);
        assert!(error.contains("HOTSET_POLICY=mru"), "{error}");
    }
    let error = error_of(hotset(&["demo"]).env("HOTSET", "off"), 2);
    assert!(error.contains("HOTSET=off"), "{error}");
}

#[test]
fn every_setting_is_an_option_and_in_the_help() {
    let help = text(&run(&mut hotset(&["--help"])).stdout);
    let options = text(&run(&mut hotset(&["run", "--help"])).stdout);
    for knob in hotset::config::KNOBS {
        assert!(
            help.contains(knob.name) && help.contains(&knob.values.replace('`', "")),
            "{}",
            knob.name
        );
        let option = knob.option();
        let is_there = options.split_whitespace().any(|word| word == option);
        assert!(is_there, "{option}");
    }
    let version = text(&run(&mut hotset(&["--version"])).stdout);
    assert_eq!(
        version.trim(),
        format!("hotset {}", env!("CARGO_PKG_VERSION"))
    );
}

#[test]
fn policies_lists_the_registry() {
    let table = text(&run(&mut hotset(&["policies"])).stdout);
    for spec in REGISTRY {
        let is_row = |line: &&str| line.split(['[', ' ']).next() == Some(spec.name);
        let row = table.lines().find(is_row).expect(spec.name);
        assert!(
            row.contains(spec.about) && row.contains(spec.source),
            "{row}"
        );
    }
    let json = run(&mut hotset(&["policies", "--json"])).stdout;
    let list: Vec<serde_json::Value> = serde_json::from_slice(&json).expect("it is JSON");
    assert_eq!(list.len(), REGISTRY.len());
    for (value, spec) in list.iter().zip(REGISTRY) {
        assert_eq!(value["name"], spec.name);
        assert_eq!(
            value["param"]["default"].as_u64(),
            spec.param.map(|p| p.default.into())
        );
    }
}

#[cfg(not(feature = "llama"))]
#[test]
fn without_llama_cpp_the_commands_that_need_it_say_so() {
    let commands: [&[&str]; 8] = [
        &["bench", "-m", "a.gguf"],
        &["run", "--off"],
        &[
            "run", "-m", "a.gguf", "--ram", "6GiB", "-c", "8192", "-p", "Hi",
        ],
        &["server", "-m", "a.gguf", "--policy=lru"],
        &["llama-perplexity", "--", "-f", "a.txt"],
        &["completion", "-hf", "some/model:Q4_K_M"],
        &["llama-bench", "-p", "512"],
        &["demo"],
    ];
    for args in commands {
        let error = error_of(&mut hotset(args), 1);
        assert!(error.contains("built without llama.cpp"), "{error}");
    }
}

/// The bundled model.
fn model() -> String {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("models/polyglot-moe.gguf");
    path.to_str().unwrap().to_string()
}
