//! The C interface, driven from C through the static library.

mod tiny;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn package() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The static library that cargo built beside this test, in the same profile.
fn library() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let deps = test.parent().unwrap();
    let newest = std::fs::read_dir(deps)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            let name = path.file_name().unwrap().to_str().unwrap();
            name.starts_with("libhotset") && name.ends_with(".a")
        })
        .max_by_key(|path| path.metadata().unwrap().modified().unwrap());
    newest.expect("the library is built as a staticlib")
}

/// Builds a program of one file, by a C standard, and links it so.
fn build(source: &Path, standard: &str, linked: &[&str], program: &Path) {
    // With the feature `llama` the library also holds glue that calls llama.cpp. The program does not
    // use it, so the linker drops it together with what it needs.
    let built = Command::new("cc")
        .args([standard, "-O1", "-Wall", "-Wextra", "-Werror", "-pedantic"])
        .args(["-ffunction-sections", "-I"])
        .arg(package().join("include"))
        .arg(source)
        .arg(library())
        .args(["-Wl,--gc-sections", "-lpthread", "-ldl", "-lm"])
        .args(linked)
        .arg("-o")
        .arg(program)
        .output()
        .expect("a C compiler");
    let errors = String::from_utf8_lossy(&built.stderr);
    assert!(built.status.success(), "{errors}");
}

/// Builds `tests/c/NAME.c` and runs it.
fn passes(name: &str, argument: Option<&Path>) {
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join(name);
    let source = package().join(format!("tests/c/{name}.c"));
    build(&source, "-std=c99", &[], &program);
    let ran = Command::new(&program).args(argument).output().unwrap();
    let errors = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{errors}");
}

fn trace() -> PathBuf {
    package().join("tests/data/it.trace.gz")
}

#[test]
fn another_engine_can_use_the_cache() {
    passes("abi", Some(&trace()));
}

#[test]
fn another_engine_can_keep_profiles() {
    passes("profile", Some(tempfile::tempdir().unwrap().path()));
}

#[test]
fn another_engine_can_start_warm() {
    passes("warm", None);
}

#[test]
fn callers_may_be_older_and_newer() {
    passes("sizes", Some(&trace()));
}

#[test]
fn every_failure_says_what_to_do() {
    passes("statuses", Some(tempfile::tempdir().unwrap().path()));
}

/// A library's call returns; the one that patched trees make for their programs ends these as ours end.
#[cfg(feature = "hooks")]
#[test]
fn settings_that_are_wrong_end_programs_and_no_engine() {
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("install");
    let source = package().join("tests/c/install.c");
    let without_llama = ["-Wl,--unresolved-symbols=ignore-all"];
    build(&source, "-std=c99", &without_llama, &program);
    for (arguments, status) in [(&[][..], 0), (&["backend"], 2)] {
        let mut command = Command::new(&program);
        command.args(arguments).env("HOTSET_NO_SUCH", "1");
        let ran = command.output().unwrap();
        let errors = String::from_utf8_lossy(&ran.stderr);
        assert_eq!(ran.status.code(), Some(status), "{errors}");
        let is_told = errors.starts_with("hotset: error: HOTSET_NO_SUCH=1: ");
        assert_eq!(is_told, status == 2, "{errors}");
        assert_eq!(errors.lines().count(), usize::from(is_told), "{errors}");
    }
}

const ENGINE: &str = include_str!("../examples/engine.c");

/// Builds `source`, the example or one that is broken, into `dir`.
fn engine(source: &str, dir: &Path) -> PathBuf {
    let (file, program) = (dir.join("engine.c"), dir.join("engine"));
    std::fs::write(&file, source).unwrap();
    build(&file, "-std=c11", &[], &program);
    program
}

fn run(engine: &Path, model: &Path, numbers: [u64; 3], policies: &[&str]) -> Output {
    let mut command = Command::new(engine);
    command.arg(model).args(numbers.map(|n| n.to_string()));
    command.args(policies).output().unwrap()
}

/// The hits and misses of each policy.
fn tallies(engine: &Path, model: &Path, numbers: [u64; 3], policies: &[&str]) -> Vec<[u64; 2]> {
    let ran = run(engine, model, numbers, policies);
    let errors = String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{}: {errors}", model.display());
    let text = String::from_utf8(ran.stdout).unwrap();
    let tally = |(line, policy): (&str, &&str)| {
        let words: Vec<_> = line.split_whitespace().collect();
        let [
            name,
            hits,
            "hits,",
            misses,
            "misses,",
            "all",
            "bytes",
            "right",
        ] = words[..]
        else {
            panic!("{line}");
        };
        assert_eq!(name, *policy);
        [hits, misses].map(|n| n.parse().unwrap())
    };
    assert_eq!(text.lines().count(), policies.len(), "{text}");
    text.lines().zip(policies).map(tally).collect()
}

fn bundled() -> PathBuf {
    package().join("models/polyglot-moe.gguf")
}

#[test]
fn the_example_computes_with_the_bytes_of_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let engine = engine(ENGINE, dir.path());
    let of_model = tallies(&engine, &bundled(), [108, 300, 8], &["lru", "adaptive"]);
    let [lru, adaptive] = of_model[..] else {
        panic!("{of_model:?}");
    };
    assert_eq!(lru[0] + lru[1], 300 * 6 * 8);
    assert_eq!(adaptive[0] + adaptive[1], 300 * 6 * 8);
    assert!(adaptive[0] > lru[0] + 1000, "{of_model:?}");
    // Where all fit, each is read once; where none does, always.
    let [all] = tallies(&engine, &bundled(), [384, 300, 8], &["lru"])[..] else {
        panic!("one policy");
    };
    assert!(all[1] <= 384 && all[0] + all[1] == 300 * 6 * 8, "{all:?}");
    let none = tallies(&engine, &bundled(), [0, 10, 8], &["lru"]);
    assert_eq!(none, [[0, 10 * 6 * 8]]);

    // Other architectures, types and tensors: dense layers, gate and up in one.
    for spec in tiny::all().iter().filter(|spec| spec.splits == 1) {
        let model = tiny::write(spec, dir.path());
        let n_layers = (spec.n_layer - spec.arch.n_layer_dense()) as u64;
        let n_slots = n_layers * spec.n_expert as u64 / 4;
        let tally = tallies(&engine, &model, [n_slots, 20, 2], &["adaptive"])[0];
        assert_eq!(tally[0] + tally[1], 20 * n_layers * 2, "{}", spec.name);
        assert!(tally[0] > 0 && tally[1] > 0, "{}: {tally:?}", spec.name);
        std::fs::remove_file(&model).unwrap();
    }
}

#[test]
fn the_page_on_embedding_shows_the_example_as_it_is() {
    let page = include_str!("../docs/embedding.md");
    let (_, section) = page.split_once("\n## Your own engine\n").unwrap();
    let section = section.split("\n## ").next().unwrap();
    let block = |kind: &str| {
        let (_, block) = section.split_once(kind).unwrap();
        block.split("```").next().unwrap()
    };
    for line in block("```c\n").lines() {
        assert!(ENGINE.contains(line.trim()), "{line}");
    }
    let dir = tempfile::tempdir().unwrap();
    let engine = engine(ENGINE, dir.path());
    let ran = run(&engine, &bundled(), [108, 300, 8], &["lru", "adaptive"]);
    assert_eq!(String::from_utf8(ran.stdout).unwrap(), block("```text\n"));
    let command = "./engine models/polyglot-moe.gguf 108 300 8 lru adaptive";
    assert!(section.contains(command));
    assert!(ENGINE.lines().count() <= 150);
}

/// An engine that does not do what it was told computes with other bytes, and sees that it does.
#[test]
fn the_example_notices_a_broken_promise() {
    for (promise, broken) in [
        (
            "arena + fills[f].slot * slot",
            "arena + fills[0].slot * slot",
        ),
        ("f < n_fills", "f + 1 < n_fills"),
        // Now and then, though bytes of slots have changed.
        (
            "hotset_cache_commit(cache)",
            "(i % 7 ? hotset_cache_commit : hotset_cache_rollback)(cache)",
        ),
    ] {
        assert_eq!(ENGINE.matches(promise).count(), 1, "{promise}");
        let dir = tempfile::tempdir().unwrap();
        let engine = engine(&ENGINE.replace(promise, broken), dir.path());
        let ran = run(&engine, &bundled(), [108, 300, 8], &["adaptive"]);
        let errors = String::from_utf8_lossy(&ran.stderr);
        assert_eq!(ran.status.code(), Some(1), "{broken}: {errors}");
        let told = "engine: adaptive: a slot holds another expert\n";
        assert_eq!(errors, told, "{broken}");
    }
}

#[test]
fn the_example_says_what_is_wrong() {
    let dir = tempfile::tempdir().unwrap();
    let engine = engine(ENGINE, dir.path());
    let readme = package().join("README.md");
    for (model, policy, told) in [
        (
            &bundled(),
            "mru",
            "an argument is not valid: HOTSET_POLICY=mru",
        ),
        (&readme, "lru", "no GGUF file of version 3"),
    ] {
        let ran = run(&engine, model, [108, 300, 8], &[policy]);
        let errors = String::from_utf8_lossy(&ran.stderr);
        assert_eq!(ran.status.code(), Some(1), "{errors}");
        assert!(errors.contains(told), "{errors}");
        assert_eq!(errors.lines().count(), 1, "{errors}");
    }
}
