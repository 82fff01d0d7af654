//! `hotset replay`.

use super::{error_of, hotset, run, text};
use flate2::Compression;
use flate2::write::GzEncoder;
use hotset::policy::REGISTRY;
use serde_json::Value;
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use tempfile::TempDir;

pub const ITALIAN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/it.trace.gz");
const MIXED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/mixed.trace.gz");

/// What `hotset replay` prints with these arguments.
#[track_caller]
pub fn output(args: &[&str]) -> String {
    let output = run(&mut hotset(&[&["replay"], args].concat()));
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(text(&output.stderr), "");
    text(&output.stdout)
}

#[track_caller]
pub fn json(args: &[&str]) -> Value {
    let output = output(&[args, &["--format", "json"]].concat());
    serde_json::from_str(&output).expect("it is one JSON value")
}

pub fn trace(folder: &Path, name: &str, text: &str) -> String {
    let path = folder.join(name);
    let mut encoder = GzEncoder::new(File::create(&path).unwrap(), Compression::default());
    encoder.write_all(text.as_bytes()).unwrap();
    encoder.finish().unwrap();
    path.to_str().unwrap().to_string()
}

/// Each number of sequences is a trace of its own, and one sequence hits what the traces hit one after the other.
#[test]
fn sequences_side_by_side() {
    let base = [
        ITALIAN,
        "--limit",
        "300",
        "--budgets",
        "50%",
        "--policies",
        "all",
    ];
    let cells = |more: &[&str]| {
        json(&[&base[..], more].concat())["cells"]
            .as_array()
            .unwrap()
            .clone()
    };
    let parallel = cells(&["--parallel", "1,40,1"]);
    let alone = cells(&[]);
    assert_eq!(parallel.len(), 2 * alone.len());
    for ((one, many), alone) in parallel.iter().zip(&parallel[alone.len()..]).zip(&alone) {
        assert_eq!(
            (&one["trace"], &many["trace"]),
            (&"parallel-1".into(), &"parallel-40".into())
        );
        assert_eq!(one["hits"], alone["hits"], "{}", one["policy"]);
        // Forty at once are generated, so what is missing gets slots.
        assert!(many["evictions"].as_u64() > Some(0), "{many}");
    }
    for (list, named) in [("0", "0"), ("1,257", "257")] {
        let error = error_of(&mut hotset(&["replay", ITALIAN, "--parallel", list]), 2);
        assert!(error.contains(named) && error.contains("256"), "{error}");
    }
    // What is wrong with which of them.
    let few = [
        "replay",
        MIXED,
        ITALIAN,
        "--limit",
        "30",
        "--parallel",
        "64",
    ];
    let error = error_of(&mut hotset(&few), 2);
    assert!(
        error.contains("--parallel 64: 64 sequences of 60 tokens"),
        "{error}"
    );
    let dir = tempfile::tempdir().unwrap();
    for (of_other, named) in [
        (
            "\"n_experts\":64,\"top_k\":2}\n0 0 1,2\n",
            "1 layers of 64 experts, 2 a token",
        ),
        (
            "\"n_experts\":64,\"top_k\":8,\"batched\":true}\n0 0 1,2\n1 0 1,3\n",
            "token 0 was computed with others",
        ),
    ] {
        let n_layers = if named.contains("layers") { 1 } else { 6 };
        let text = format!("{{\"n_layers\":{n_layers},{of_other}");
        let path = trace(dir.path(), "other.trace.gz", &text);
        let both = ["replay", ITALIAN, &path, "--parallel", "2"];
        let error = error_of(&mut hotset(&both), 2);
        assert!(error.contains(&path) && error.contains(named), "{error}");
    }
}

#[test]
fn json_has_a_cell_for_each_trace_budget_and_policy() {
    let report = json(&[ITALIAN, MIXED, "--limit", "300", "--budgets", "10%,50%"]);
    let names: Vec<&str> = REGISTRY
        .iter()
        .map(|spec| spec.name)
        .chain(["belady"])
        .collect();
    assert_eq!(report["unit"], "experts");
    let cells = report["cells"].as_array().unwrap();
    let mut expected = Vec::new();
    for trace in ["it", "mixed"] {
        for (budget, slots) in [("10%", 38), ("50%", 192)] {
            expected.extend(names.iter().map(|name| (trace, budget, slots, *name)));
        }
    }
    assert_eq!(cells.len(), expected.len());
    for (cell, (trace, budget, slots, policy)) in cells.iter().zip(expected) {
        assert_eq!(
            (&cell["trace"], &cell["budget"]),
            (&trace.into(), &budget.into())
        );
        assert_eq!(
            (&cell["policy"], &cell["slots"]),
            (&policy.into(), &slots.into())
        );
        assert_eq!(cell["scope"], "global");
        let count = |name: &str| cell[name].as_u64().expect(name);
        assert_eq!(count("hits") + count("misses"), 300 * 6 * 8);
        assert!(count("evictions") <= count("misses"));
        assert_eq!(count("bytes"), count("misses"));
        let cold = count("hits") as f64 / (300.0 * 48.0);
        assert!((cell["hit_rate_cold"].as_f64().unwrap() - cold).abs() < 1e-12);
        assert!((0.0..=1.0).contains(&cell["hit_rate"].as_f64().unwrap()));
        assert!(cell["ns_per_expert"].as_f64().unwrap() > 0.0);
        assert!(cell["worst_layer"]["layer"].as_u64().unwrap() < 6);
        assert!(cell["worst_layer"]["hit_rate"].as_f64() <= cell["hit_rate"].as_f64());
        assert!(cell["gap_closed"].is_f64());
    }
    let summary = report["summary"].as_array().unwrap();
    let names_there: Vec<_> = summary
        .iter()
        .map(|line| line["policy"].as_str().unwrap())
        .collect();
    assert_eq!(names_there, names);
    for line in summary {
        assert_eq!(line["cells"], 4);
        for name in [
            "gap_closed",
            "ns_per_expert",
            "cells_below_lru",
            "cells_below_best",
        ] {
            assert!(line[name].is_number(), "{name}: {line}");
        }
    }
}

#[test]
fn options_choose_what_is_replayed() {
    let cell = |args: &[&str]| {
        let all = [&[ITALIAN, "--policies", "lru", "--budgets"], args].concat();
        let report = json(&all);
        assert_eq!(report["cells"][0]["policy"], "lru");
        assert_eq!(report["cells"][1]["policy"], "belady");
        (report["unit"].clone(), report["cells"][0].clone())
    };
    let (_, all) = cell(&["30%"]);
    assert_eq!(
        all["hits"].as_u64().unwrap() + all["misses"].as_u64().unwrap(),
        144_000
    );
    let (_, limited) = cell(&["30%", "--limit", "10"]);
    assert_eq!(
        limited["hits"].as_u64().unwrap() + limited["misses"].as_u64().unwrap(),
        480
    );
    let (_, by_layer) = cell(&["30%", "--scope", "layer"]);
    assert_eq!(
        (&by_layer["scope"], &by_layer["slots"]),
        (&"layer".into(), &115.into())
    );
    assert_ne!(by_layer["hits"], all["hits"]);
    for size in ["1KiB", "1024"] {
        let (unit, sized) = cell(&["115KiB", "--expert-bytes", size]);
        assert_eq!(
            (unit, &sized["slots"], &sized["hits"]),
            ("bytes".into(), &115.into(), &all["hits"])
        );
        assert_eq!(
            sized["bytes"].as_u64().unwrap(),
            1024 * sized["misses"].as_u64().unwrap()
        );
    }
    let report = json(&[
        ITALIAN,
        "--limit",
        "200",
        "--policies",
        "decay:4,lfu",
        "--budgets",
        "9%,9%",
    ]);
    let names: Vec<_> = report["cells"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| &c["policy"])
        .collect();
    assert_eq!(names, ["lru", "decay:4", "lfu", "belady"]);
    let budgets = json(&[ITALIAN, "--limit", "50", "--policies", "lru"]);
    assert_eq!(budgets["cells"].as_array().unwrap().len(), 2 * 8);
}

/// Tokens 0 to 39 are a prompt: read at once it is a scan, which evicts nothing.
#[test]
fn prompts_are_replayed_as_asked() {
    let folder = TempDir::new().unwrap();
    let mut text =
        "{\"n_layers\":1,\"n_experts\":8,\"top_k\":1,\"segments\":[[0,40,\"prefill\"]]}\n"
            .to_string();
    (0..80).for_each(|token| text += &format!("{token} 0 {}\n", token % 8));
    let path = trace(folder.path(), "prompt.trace.gz", &text);
    let counts = |prefill: &[&str]| {
        let args = [&[&*path, "--policies", "lru", "--budgets", "50%"], prefill].concat();
        let cell = json(&args)["cells"][0].clone();
        [&cell["hits"], &cell["misses"], &cell["evictions"]].map(|n| n.as_u64().unwrap())
    };
    assert_eq!(counts(&[]), [0, 80, 76]);
    assert_eq!(counts(&["--prefill", "decode"]), [0, 80, 76]);
    // The scan fills 4 of 8, which the generation that follows finds once each.
    let [hits, misses, _] = counts(&["--prefill", "batch:64"]);
    assert_eq!(hits + misses, 8 + 40);
    assert!(hits > 0);
    // Batches of 20 are no scans.
    let [hits, misses, _] = counts(&["--prefill", "batch:20"]);
    assert_eq!(hits + misses, 16 + 40);
    assert_eq!(counts(&["--prefill", "skip"]), [0, 40, 36]);
}

#[test]
fn the_pools_of_a_run_are_those_of_the_header() {
    let folder = TempDir::new().unwrap();
    let text = "{\"n_layers\":2,\"n_experts\":4,\"top_k\":1,\"batched\":true,\"expert_bytes\":[10,20],\
                \"pools\":[{\"layers\":[0],\"slots\":4,\"preloaded\":true},{\"layers\":[1],\"slots\":1}]}\n\
                0 0 3\n1 0 2\n0 1 0\n1 1 0\n\n2 0 0\n2 1 1\n";
    let path = trace(folder.path(), "m-run.trace.gz", text);
    let report = json(&[&path, "--policies", "lru", "--budgets", "run"]);
    let cells = report["cells"].as_array().unwrap();
    assert_eq!(cells.len(), 3);
    assert_eq!(
        (&cells[2]["policy"], &cells[2]["hits"]),
        (&"belady-bytes".into(), &Value::Null)
    );
    let lru = &cells[0];
    assert_eq!(
        (&lru["slots"], &lru["hits"], &lru["misses"]),
        (&5.into(), &3.into(), &2.into())
    );
    assert_eq!(
        (&lru["bytes"], &report["unit"]),
        (&40.into(), &"bytes".into())
    );
}

#[test]
fn a_prior_helps_from_the_first_token() {
    let hits = |args: &[&str]| {
        let all = [
            &[
                ITALIAN,
                "--policies",
                "decay",
                "--budgets",
                "20%",
                "--limit",
                "60",
            ],
            args,
        ]
        .concat();
        let report = json(&all);
        assert_eq!(report["cells"][1]["policy"], "decay");
        report["cells"][1]["hits"].as_u64().unwrap()
    };
    assert!(hits(&["--prior", ITALIAN]) > hits(&[]));
}

#[test]
fn bad_input_is_one_line_and_leaves_no_file() {
    let folder = TempDir::new().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_string();
    let bad = trace(
        folder.path(),
        "bad.trace.gz",
        "{\"n_layers\":1,\"n_experts\":2,\"top_k\":1}\n0 0 2\n",
    );
    let probs = trace(
        folder.path(),
        "probs.trace.gz",
        "{\"n_layers\":1,\"n_experts\":2,\"top_k\":1,\"format\":\"top-16 id:probability\"}\n0 0 1:0.5\n",
    );
    let small = trace(
        folder.path(),
        "small.trace.gz",
        "{\"n_layers\":1,\"n_experts\":2,\"top_k\":1}\n0 0 1\n",
    );
    fs::create_dir(path("other")).unwrap();
    fs::copy(&small, path("other/small.trace.gz")).unwrap();
    let (missing, other) = (path("missing.trace.gz"), path("other/small.trace.gz"));
    let (nowhere, a_folder) = (path("no/out.json"), path("other"));
    let cases: Vec<(Vec<&str>, Vec<&str>)> = vec![
        (vec![], vec!["TRACE"]),
        (vec![&missing], vec!["missing.trace.gz"]),
        (
            vec![&bad],
            vec!["bad.trace.gz", "line 2", "expert 2 is outside 0..2"],
        ),
        (
            vec![&probs],
            vec!["probs.trace.gz", "line 1", "top-16 id:probability"],
        ),
        (vec![&small, &bad], vec!["bad.trace.gz"]),
        (
            vec![&small, &other],
            vec!["other/small.trace.gz", "called small"],
        ),
        (
            vec![&small, "--policies", "lru,mru"],
            vec!["--policies=mru", "decay"],
        ),
        (
            vec![&small, "--budgets", "5%,x"],
            vec!["--budgets=x", "2GiB"],
        ),
        (
            vec![&small, "--budgets", "2GiB"],
            vec!["small.trace.gz", "how many bytes"],
        ),
        (
            vec![&small, "--budgets", "run"],
            vec!["small.trace.gz", "what pools"],
        ),
        (
            vec![&small, "--scope", "head"],
            vec!["head", "global, layer"],
        ),
        (
            vec![&small, "--prefill", "batch:0"],
            vec!["batch:0", "batch:N"],
        ),
        (
            vec![&small, "--format", "xml"],
            vec!["xml", "table, csv, json, svg"],
        ),
        (vec![&small, "--limit", "0"], vec!["'0'", "1.."]),
        (vec![&small, "--expert-bytes", "0"], vec!["'0'", "6MiB"]),
        (
            vec![&small, "--prior", ITALIAN],
            vec!["small.trace.gz", "it.trace.gz", "6 of 64"],
        ),
        (
            vec![&small, "--prior", &bad],
            vec!["bad.trace.gz", "line 2"],
        ),
        // These are refused before the trace, which is not there, is read.
        (
            vec![&missing, "--output", &nowhere],
            vec!["no/out.json", "folder does not exist"],
        ),
        (
            vec![&missing, "--output", &a_folder],
            vec!["other", "it is a folder"],
        ),
        (vec![&missing, "--policies", "mru"], vec!["--policies=mru"]),
    ];
    let out = path("out.json");
    for (args, parts) in cases {
        let mut all = [&["replay"], &args[..]].concat();
        if !args.contains(&"--output") {
            all.extend(["--output", &out]);
        }
        let error = error_of(&mut hotset(&all), 2);
        for part in parts {
            assert!(error.contains(part), "{args:?}: no {part} in: {error}");
        }
    }
    let mut left: Vec<_> = fs::read_dir(folder.path())
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    left.sort();
    assert_eq!(
        left,
        ["bad.trace.gz", "other", "probs.trace.gz", "small.trace.gz"]
    );
}
