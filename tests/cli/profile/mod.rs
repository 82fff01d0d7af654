//! `hotset profile`: what it says is what the profiles hold, and what is wrong is refused.

use super::{error_of, hotset, run, text};
use hotset::profile::{Fingerprint, Heat, Profile};
use hotset::trace::Trace;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

mod written;

/// Files in a folder that goes away.
struct Shelf(TempDir);

impl Shelf {
    /// Profiles of the workloads of the mixed trace: `it`, `en`, `code`, `de`.
    fn new() -> Self {
        let shelf = Self(TempDir::new().unwrap());
        let trace = Trace::open(Path::new(&trace("mixed")), u32::MAX).unwrap();
        for (i, name) in (0..).zip(["it", "en", "code", "de"]) {
            let mut profile = profile(name, &[64; 6], 8);
            for (_, event) in trace.events().filter(|(token, _)| token / 400 % 4 == i) {
                let heat = &mut profile.layers[event.layer as usize].generation;
                for &expert in event.experts {
                    pick(heat, expert as usize, 1);
                }
            }
            profile.tokens.generation = if i < 2 { 1200 } else { 800 };
            shelf.write(&format!("{name}.json"), &profile);
        }
        shelf
    }

    fn empty() -> Self {
        Self(TempDir::new().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn file(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_string()
    }

    fn write(&self, name: &str, profile: &Profile) -> String {
        profile.write(&self.path(name)).unwrap();
        self.file(name)
    }
}

fn trace(name: &str) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data");
    let path = folder.join(format!("{name}.trace.gz"));
    path.to_str().unwrap().to_string()
}

fn profile(name: &str, n_experts: &[u32], top_k: u32) -> Profile {
    let model = Fingerprint {
        architecture: "qwen3moe".to_string(),
        name: "Some Model".to_string(),
        n_layers: n_experts.len() as u32,
        n_experts: *n_experts.iter().max().unwrap(),
        top_k,
    };
    Profile::new(name, model, n_experts)
}

fn pick(heat: &mut Heat, expert: usize, n: u32) {
    heat.weight[expert] += f64::from(n);
    heat.count[expert] += u64::from(n);
}

/// Of 2 layers of 4 experts; the first picks as told, the second nothing.
pub fn small(name: &str, picks: [u32; 4]) -> Profile {
    let mut profile = profile(name, &[4, 4], 2);
    for (expert, n) in picks.into_iter().enumerate() {
        pick(&mut profile.layers[0].generation, expert, n);
    }
    profile.tokens.generation = u64::from(picks.iter().sum::<u32>() / 2);
    profile
}

#[track_caller]
fn output_of(args: &[&str]) -> String {
    let output = run(hotset(&["profile"]).args(args));
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(text(&output.stderr), "");
    text(&output.stdout)
}

#[track_caller]
fn value_of(args: &[&str]) -> Value {
    let text = output_of(&[args, &["--json"]].concat());
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

#[track_caller]
fn refused(args: &[&str], expected: &[&str]) {
    let error = error_of(hotset(&["profile"]).args(args), 2);
    for part in expected {
        assert!(error.contains(part), "no {part} in: {error}");
    }
}

#[test]
fn show_tells_coverage_entropy_and_tokens() {
    let shelf = Shelf::empty();
    let file = shelf.write("a.json.gz", &small("mail", [4, 0, 2, 2]));
    let shown = value_of(&["show", &file]);
    assert_eq!(shown["name"], "mail");
    assert_eq!(shown["phase"], "generation");
    let layer = |coverage: Value, entropy: Value, n: u32| {
        json!({
            "n_experts": 4,
            "n_tokens": n,
            "coverage": coverage,
            "entropy": entropy,
            "entropy_flat": 2.0,
        })
    };
    let coverage = json!({ "10": 0.5, "25": 0.5, "50": 0.75 });
    let nothing = json!({ "10": null, "25": null, "50": null });
    let layers = [
        layer(coverage.clone(), json!(1.5), 4),
        layer(nothing, Value::Null, 0),
    ];
    assert_eq!(shown["layers"], json!(layers));
    assert_eq!(
        shown["mean"],
        json!({ "coverage": coverage, "entropy": 1.5 })
    );

    let table = output_of(&["show", &file]);
    let lines: Vec<Vec<&str>> = table
        .lines()
        .map(|l| l.split_whitespace().collect())
        .collect();
    assert!(
        table.starts_with("mail (qwen3moe Some Model), 4 tokens of generation, 0 of prompts, ")
    );
    assert_eq!(
        lines[3],
        [
            "0", "50.0", "%", "50.0", "%", "75.0", "%", "1.50", "2.00", "4"
        ]
    );
    assert_eq!(lines[4], ["1", "-", "-", "-", "-", "2.00", "0"]);
    assert_eq!(
        lines[5],
        [
            "mean", "50.0", "%", "50.0", "%", "75.0", "%", "1.50", "2.00"
        ]
    );
    assert_eq!(lines.len(), 6);

    // The other phase where it was asked for, or where there is nothing else.
    assert_eq!(
        value_of(&["show", &file, "--phase", "prompt"])["phase"],
        "prompt"
    );
    let mut read = small("read", [0; 4]);
    pick(&mut read.layers[1].prompt, 3, 6);
    let file = shelf.write("b.json", &read);
    let shown = value_of(&["show", &file]);
    assert_eq!(shown["phase"], "prompt");
    assert_eq!(shown["layers"][1]["n_tokens"], 3);
    assert_eq!(
        value_of(&["show", &file, "--phase", "generation"])["phase"],
        "generation"
    );
}

#[test]
fn diff_tells_similarity_and_what_is_hot_in_one_only() {
    let shelf = Shelf::empty();
    let a = shelf.write("a.json", &small("a", [9, 1, 0, 0]));
    let b = shelf.write("b.json", &small("b", [0, 0, 1, 9]));
    let diff = value_of(&["diff", &a, &b]);
    assert_eq!(
        diff["similarity"],
        json!({ "generation": 0.0, "prompt": null })
    );
    let layer =
        json!({ "generation": 0.0, "prompt": null, "only_hot_in_a": [0], "only_hot_in_b": [3] });
    let unknown =
        json!({ "generation": null, "prompt": null, "only_hot_in_a": [], "only_hot_in_b": [] });
    assert_eq!(diff["layers"], json!([layer, unknown]));
    let same = value_of(&["diff", &a, &a]);
    assert_eq!(same["similarity"]["generation"], 1.0);
    assert_eq!(same["layers"][0]["only_hot_in_a"], json!([]));

    let shelf = Shelf::new();
    let table = output_of(&["diff", &shelf.file("it.json"), &shelf.file("de.json")]);
    assert_eq!(table.lines().count(), 2 + 6 + 1);
    assert!(
        table.contains(" more") && table.contains("ONLY HOT IN de"),
        "{table}"
    );
}

#[test]
fn suggest_finds_what_a_trace_and_a_profile_are_like() {
    let shelf = Shelf::new();
    // Of another shape: left out.
    shelf.write("other.json", &small("other", [1; 4]));
    let folder = shelf.0.path().to_str().unwrap();
    let it = trace("it");
    let ranked = value_of(&["suggest", folder, &it]);
    assert_eq!(ranked["use"], shelf.file("it.json"));
    let profiles = ranked["profiles"].as_array().unwrap();
    assert_eq!(profiles.len(), 4);
    assert!(profiles[0]["score"].as_f64().unwrap() > 0.1);
    assert!(profiles[0]["confidence"].as_f64().unwrap() > 0.9);
    for pair in profiles.windows(2) {
        assert!(pair[0]["score"].as_f64() > pair[1]["score"].as_f64());
    }
    let table = output_of(&["suggest", folder, &it]);
    let last = table.lines().last().unwrap();
    assert!(
        last.starts_with("use ") && last.contains("it.json") && last.contains("3000 tokens"),
        "{last}"
    );

    // The profile itself is not what it is like.
    let ranked = value_of(&["suggest", folder, &shelf.file("it.json")]);
    let profiles = ranked["profiles"].as_array().unwrap();
    assert_eq!(profiles.len(), 3);
    let similarity = |i: usize| profiles[i]["similarity"].as_f64().unwrap();
    assert!((0.3..1.0).contains(&similarity(0)) && similarity(0) > similarity(1));
    assert_eq!(ranked["use"], profiles[0]["file"]);
    assert_eq!(profiles[0]["generation"], profiles[0]["similarity"]);

    // One that explains none of it is not suggested.
    for name in ["it.json", "en.json", "code.json"] {
        std::fs::remove_file(shelf.path(name)).unwrap();
    }
    let none = value_of(&["suggest", folder, &it]);
    assert_eq!(none["use"], Value::Null);
    assert!(none["profiles"][0]["score"].as_f64().unwrap() < 0.0);
    assert!(output_of(&["suggest", folder, &it]).contains("use none: none explains the trace"));
}

#[test]
fn what_is_wrong_is_told_in_a_line() {
    let shelf = Shelf::empty();
    let a = shelf.write("a.json", &small("a", [1; 4]));
    let mut other = small("b", [1; 4]);
    other.model.architecture = "mixtral".to_string();
    let b = shelf.write("b.json", &other);
    let c = shelf.write("c.json", &profile("c", &[4, 3], 2));
    let out = shelf.file("x.json");
    let svg = shelf.file("x.svg");
    for args in [
        &["diff", &a, &b][..],
        &["merge", "-o", &out, &a, &b],
        &["plot", "-o", &svg, &a, &b],
    ] {
        refused(
            args,
            &[
                "b.json: it is of another model",
                "architecture is mixtral",
                "qwen3moe",
            ],
        );
    }
    refused(&["diff", &a, &c], &["c.json", "other numbers of experts"]);
    std::fs::write(shelf.path("d.json"), "{\"version\":1,\"name\":3}").unwrap();
    refused(&["show", &shelf.file("d.json")], &["d.json", "name"]);
    refused(&["show", &shelf.file("nix.json")], &["nix.json"]);
    let folder = shelf.0.path().to_str().unwrap();
    refused(&["suggest", folder, &a], &["d.json", "name"]);
    std::fs::remove_file(shelf.path("d.json")).unwrap();
    refused(
        &["suggest", folder, &a],
        &["none of its 3 profiles", "a.json"],
    );
    refused(
        &["suggest", folder, &trace("it")],
        &["none of its 3 profiles", "it.trace.gz"],
    );
    refused(&["suggest", &shelf.file("nix"), &a], &["nix"]);
    refused(&["import", &a, "--name", "x", "-o", &out], &["a.json"]);
    refused(&["import", &a, "--name", "", "-o", &out], &["--name="]);
    refused(
        &["import", &a, "--name", "x", "-o", &b],
        &["b.json", "--force"],
    );
    refused(
        &["import", &a, "-m", &a, "--name", "x", "-o", &out],
        &["a.json", "GGUF"],
    );
    refused(
        &["fly"],
        &["fly", "show, diff, merge, plot, suggest, import"],
    );
    refused(&["show", "--xml", &a], &["--xml", "--phase, --json"]);
    assert!(!shelf.path("x.json").exists() && !shelf.path("x.svg").exists());
}
