//! `hotset doctor`: what it says of models that are whole, broken or not worth it.

use super::{error_of, hotset, model, run, text};
use hotset::gguf::{Head, Value, Values, types};
use serde_json::Value as Json;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;

/// No cache of whoever runs the tests, and no hub but the one that a test names.
pub fn doctor(args: &[&str]) -> Command {
    let mut command = hotset(&[&["doctor"], args].concat());
    for name in [
        "HF_TOKEN",
        "HF_ENDPOINT",
        "HF_HUB_CACHE",
        "HUGGINGFACE_HUB_CACHE",
        "HF_HOME",
    ] {
        command.env_remove(name);
    }
    command
        .env("MODEL_ENDPOINT", "http://127.0.0.1:9/")
        .env("LLAMA_CACHE", "/nowhere");
    command
}

/// What it prints as JSON.
#[track_caller]
pub fn json_of(command: &mut Command) -> Json {
    let output = run(command.arg("--json"));
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("it is one JSON object")
}

fn codes(report: &Json) -> Vec<&str> {
    let advice = report["advice"].as_array().unwrap();
    advice
        .iter()
        .map(|advice| advice["code"].as_str().unwrap())
        .collect()
}

/// The names of all fields, with those of what they are in before them.
fn fields(json: &Json, before: &str, found: &mut BTreeSet<String>) {
    match json {
        Json::Object(object) => {
            for (name, value) in object {
                let name = format!("{before}{name}");
                fields(value, &format!("{name}."), found);
                found.insert(name);
            }
        }
        Json::Array(list) => list.iter().for_each(|value| fields(value, before, found)),
        _ => {}
    }
}

/// What others may rely on. New fields may come, and are added here; these stay.
const FIELDS: &[(&str, &[&str])] = &[
    (
        "",
        &[
            "version",
            "machine",
            "compute",
            "disk",
            "io_uring",
            "no_io_uring_because",
            "source",
            "model",
            "run",
            "expect",
            "verdict",
            "advice",
            "measure",
        ],
    ),
    (
        "machine.",
        &[
            "cpu",
            "kernel",
            "physical_cores",
            "logical_cores",
            "usable_cores",
            "memory_bytes",
            "available_bytes",
            "available_by",
            "address_space_limit_bytes",
            "data_limit_bytes",
            "locked_memory_limit_bytes",
            "huge_pages",
            "gpus",
        ],
    ),
    (
        "compute.",
        &["n_threads", "memory_bytes_per_s", "products_per_s"],
    ),
    (
        "disk.",
        &[
            "file_system",
            "is_remote",
            "device",
            "is_rotational",
            "read_ahead_kb",
            "is_direct",
            "not_direct_because",
            "reads_with",
            "no_uring_because",
            "speed",
            "speed.bytes_per_s",
            "speed.read_bytes",
            "speed.depth",
            "speed.piece_bytes",
        ],
    ),
    ("source.", &["named", "path"]),
    (
        "model.",
        &[
            "name",
            "architecture",
            "n_files",
            "n_bytes",
            "n_layers",
            "n_expert_layers",
            "n_experts",
            "top_k",
            "expert_bytes",
            "dense_bytes",
            "bytes_of_expert",
            "bytes_of_part",
            "token_expert_bytes",
            "token_dense_bytes",
            "token_weights",
            "expert_types",
            "expert_types.type",
            "expert_types.bytes",
            "dense_types",
            "dense_types.type",
            "dense_types.bytes",
            "n_context_trained",
            "kv_bytes_per_token",
            "damage",
        ],
    ),
    (
        "run.",
        &[
            "command",
            "server_command",
            "context",
            "budget_bytes",
            "fits",
            "dense_bytes",
            "kv_bytes",
            "process_bytes",
        ],
    ),
    (
        "expect.",
        &[
            "hotset_tokens_per_s",
            "hotset_tokens_per_s.low",
            "hotset_tokens_per_s.typical",
            "hotset_tokens_per_s.high",
            "stock_tokens_per_s",
            "stock_tokens_per_s.low",
            "stock_tokens_per_s.typical",
            "stock_tokens_per_s.high",
            "in_memory_tokens_per_s",
            "in_memory_tokens_per_s.low",
            "in_memory_tokens_per_s.typical",
            "in_memory_tokens_per_s.high",
            "share_in_memory",
            "hit_rate",
            "hit_rate.low",
            "hit_rate.typical",
            "hit_rate.high",
            "read_bytes_per_token",
            "read_bytes_per_token.low",
            "read_bytes_per_token.typical",
            "read_bytes_per_token.high",
            "read_ms_per_token",
            "compute_ms_per_token",
            "disk_is_assumed",
        ],
    ),
    ("advice.", &["code", "text"]),
];

#[test]
fn a_model_that_streams_has_every_field_and_a_range() {
    let report = json_of(&mut doctor(&[
        "-m",
        &model(),
        "--ram",
        "20%",
        "--disk",
        "50MB/s",
    ]));
    let mut found = BTreeSet::new();
    fields(&report, "", &mut found);
    // These may be there or not, by the machine.
    found.retain(|name| !name.starts_with("machine.gpus.") && !name.starts_with("model.damage."));
    let mut listed: BTreeSet<String> = BTreeSet::new();
    for (before, names) in FIELDS {
        listed.extend(names.iter().map(|name| format!("{before}{name}")));
    }
    // There need be nothing to tell.
    if report["advice"] == serde_json::json!([]) {
        listed.retain(|name| !name.starts_with("advice."));
    }
    assert_eq!(found, listed);

    let of = |part: &str, name: &str| report[part][name].clone();
    assert_eq!(of("model", "architecture"), "qwen3moe");
    assert_eq!(
        (of("model", "n_experts"), of("model", "top_k")),
        (64.into(), 8.into())
    );
    assert_eq!(
        (of("model", "n_expert_layers"), of("model", "bytes_of_part")),
        (6.into(), 13056.into())
    );
    let bytes = |name: &str| report["model"][name].as_u64().unwrap();
    assert_eq!(bytes("expert_bytes"), 384 * 3 * 13056);
    assert_eq!(bytes("token_expert_bytes"), 48 * 3 * 13056);
    assert_eq!(bytes("n_bytes"), fs::metadata(model()).unwrap().len());
    assert_eq!(report["verdict"], "helps");
    assert_eq!(
        report["expect"]["share_in_memory"]
            .as_f64()
            .map(|n| (1e3 * n).round()),
        Some(200.0)
    );
    let speed = |name: &str| {
        report["expect"]["hotset_tokens_per_s"][name]
            .as_f64()
            .unwrap()
    };
    assert!(
        speed("low") < speed("high") && speed("high") < 4.0 * speed("low"),
        "{report}"
    );
    let command = report["run"]["command"].as_str().unwrap();
    assert!(
        command.starts_with(&format!("hotset run --ram 20% -m {} -c ", model())),
        "{command}"
    );
    assert_eq!(report["measure"], format!("hotset bench -m {}", model()));
}

#[test]
fn a_model_that_fits_needs_no_hotset_and_the_last_words_say_how_to_measure() {
    let output = run(&mut doctor(&["-m", &model()]));
    assert_eq!(output.status.code(), Some(0));
    let text = text(&output.stdout);
    assert!(text.contains("hotset will not help here"), "{text}");
    assert!(text.contains("all experts fit in memory"), "{text}");
    assert!(
        text.ends_with(&format!("measure it: hotset bench -m {}\n", model())),
        "{text}"
    );
    // Without a model it is the machine alone, quickly.
    let machine = json_of(&mut doctor(&[]));
    assert!(machine["machine"]["logical_cores"].as_u64() >= Some(1));
    assert_eq!(
        (&machine["model"], &machine["verdict"]),
        (&Json::Null, &Json::Null)
    );
}

/// Writes a model of two layers of `n_experts`, of which `top_k` are used; dense without.
fn write(path: &Path, n_experts: u64, top_k: u32, values: &[(&str, Value)]) -> Vec<u8> {
    let mut all = Values::default();
    all.set("general.architecture", Value::text("test"));
    all.set("test.expert_used_count", Value::u32(top_k));
    for (key, value) in values {
        all.set(key, value.clone());
    }
    let mut head = Head::new(all);
    head.add("token_embd.weight", types::F32, [64, 100, 1, 1])
        .unwrap();
    for block in 0..2 {
        for part in ["up", "down"] {
            let name = format!("blk.{block}.ffn_{part}_exps.weight");
            if n_experts > 0 {
                head.add(&name, types::F32, [64, 512, n_experts, 1])
                    .unwrap();
            }
        }
    }
    let mut bytes = head.to_bytes();
    bytes.resize(bytes.len() + head.n_data_bytes() as usize, 7);
    fs::write(path, &bytes).unwrap();
    bytes
}

#[test]
fn what_does_not_pay_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.gguf");
    let report = |args: &[&str]| {
        json_of(&mut doctor(
            &[&["-m", path.to_str().unwrap()], args].concat(),
        ))
    };
    write(&path, 8, 2, &[]);
    let few = report(&["--ram", "40%"]);
    assert_eq!(
        (codes(&few)[0], &few["verdict"]),
        ("few_large_experts", &Json::from("little"))
    );
    let slow = report(&["--ram", "40%", "--disk", "2KB/s"]);
    assert_eq!(
        (codes(&slow)[0], &slow["verdict"]),
        ("slow_disk", &Json::from("no"))
    );
    let little = report(&["--ram", "20%"]);
    assert!(codes(&little).contains(&"below_cycle"), "{little}");
    write(&path, 0, 0, &[]);
    let dense = report(&[]);
    assert_eq!(
        (codes(&dense)[0], &dense["verdict"]),
        ("dense", &Json::from("no"))
    );
    assert_eq!(dense["expect"], Json::Null);
}

#[test]
fn files_that_are_not_whole_are_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.gguf");
    let bytes = write(&path, 16, 2, &[]);
    let report = || json_of(&mut doctor(&["-m", path.to_str().unwrap(), "--ram", "40%"]));
    assert_eq!(report()["model"]["damage"], serde_json::json!([]));

    fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    let cut = report();
    assert_eq!(
        (&cut["verdict"], codes(&cut)[0]),
        (&Json::from("unknown"), "damaged")
    );
    let damage = &cut["model"]["damage"][0];
    assert_eq!(damage["kind"], "cut_off");
    assert_eq!(damage["expected_bytes"].as_u64(), Some(bytes.len() as u64));
    assert_eq!(cut["run"], Json::Null);
    // The head says what the model is, however little of it is there.
    assert_eq!(
        cut["model"]["expert_bytes"].as_u64(),
        Some(2 * 2 * 16 * 64 * 512 * 4)
    );

    // As a download that fills a file of the whole length.
    fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    let file = File::options().write(true).open(&path).unwrap();
    file.set_len(bytes.len() as u64).unwrap();
    let holes = report();
    let damage = &holes["model"]["damage"][0];
    // Some file systems know no holes: there the file takes its whole length.
    if damage != &Json::Null || file.metadata().unwrap().blocks() * 512 < bytes.len() as u64 {
        assert_eq!(damage["kind"], "holes");
        let n_bytes = damage["n_bytes"].as_u64().unwrap();
        assert!(
            n_bytes.abs_diff(bytes.len() as u64 / 2) < 100_000,
            "{holes}"
        );
    }

    let [first, second] =
        ["m-00001-of-00002.gguf", "m-00002-of-00002.gguf"].map(|name| folder.path().join(name));
    write(&first, 16, 2, &[("split.count", Value::u32(2))]);
    let missing = json_of(&mut doctor(&["-m", first.to_str().unwrap()]));
    assert_eq!(
        missing["model"]["damage"][0]["name"],
        "m-00002-of-00002.gguf"
    );
    let error = error_of(&mut doctor(&["-m", second.to_str().unwrap()]), 2);
    assert!(error.contains("m-00002-of-00002.gguf"), "{error}");
}

#[test]
fn bad_input_is_named() {
    for (args, parts) in [
        (
            &["-m", "nowhere.gguf"][..],
            &["nowhere.gguf", "No such file"][..],
        ),
        (&["-m", "Cargo.toml"], &["Cargo.toml", "GGUF"]),
        (&["--hf", "parrots"], &["--hf=parrots", "user/model"]),
        (&["--ram", "6 parrots"], &["--ram=6 parrots", "6GiB"]),
        (&["--disk", "fast"], &["fast", "2GB/s"]),
        (&["-m", "a.gguf", "--hf", "a/b"], &["--hf"]),
    ] {
        let error = error_of(&mut doctor(args), 2);
        for part in parts {
            assert!(error.contains(part), "{args:?}: no {part} in: {error}");
        }
    }
}
