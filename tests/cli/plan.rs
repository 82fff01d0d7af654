//! `hotset plan`: the numbers fit each other and the model, and what does not fit is refused.

use super::{error_of, hotset, run, text};
use flate2::Compression;
use flate2::write::GzEncoder;
use hotset::gguf;
use serde_json::{Value, json};
use std::io::Write;
use std::path::{Path, PathBuf};

/// Bytes of an expert of the bundled model, and of those that one token uses.
const EXPERT_BYTES: u64 = 39_168;
const CYCLE_BYTES: u64 = 6 * 8 * EXPERT_BYTES;

fn file(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    path.to_str().unwrap().to_string()
}

fn trace() -> String {
    file("tests/data/it.trace.gz")
}

fn model() -> String {
    file("models/polyglot-moe.gguf")
}

fn plan(args: &[&str]) -> Value {
    let output = run(hotset(&["plan", "--format", "json"]).args(args));
    assert!(output.status.success(), "{}", text(&output.stderr));
    assert_eq!(text(&output.stderr), "");
    serde_json::from_slice(&output.stdout).expect("it is JSON")
}

fn rows(plan: &Value) -> &[Value] {
    plan["rows"].as_array().expect("a list")
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value}"))
}

#[test]
fn the_numbers_fit_each_other() {
    let plan = plan(&[
        &trace(),
        "-m",
        &model(),
        "--policy",
        "lru",
        "--disk",
        "1GB/s",
    ]);
    assert_eq!(plan["expert_bytes"], 6 * 64 * EXPERT_BYTES);
    assert_eq!(plan["cycle_bytes"], CYCLE_BYTES);
    assert_eq!(plan["step_bytes"], 512 << 10);
    // All of the file but its head, which is smaller than 200 KiB.
    let file_bytes = std::fs::metadata(model()).unwrap().len();
    let tensor_bytes = 6 * 64 * EXPERT_BYTES + plan["other_bytes"].as_u64().unwrap();
    assert!(tensor_bytes < file_bytes && file_bytes < tensor_bytes + (200 << 10));
    assert_eq!(plan["disk_is_assumed"], false);

    let rows = rows(&plan);
    let percents: Vec<f64> = rows.iter().map(|row| number(&row["percent"])).collect();
    for percent in (5..=100).step_by(5).map(f64::from) {
        assert!(
            percents.iter().any(|p| (p - percent).abs() < 0.01),
            "{percent} %"
        );
    }
    // Every MiB, but those that nearly are one of the shares.
    for n_bytes in (1..=14u64).map(|i| i << 20) {
        let is_there = rows.iter().any(|row| row["budget_bytes"] == n_bytes);
        let is_uncached = rows.iter().any(|row| {
            let other = row["budget_bytes"].as_u64().unwrap();
            other != n_bytes && other.abs_diff(n_bytes) < 256 << 10
        });
        assert_ne!(is_there, is_uncached, "{n_bytes}");
    }
    for pair in rows.windows(2) {
        assert!(number(&pair[0]["budget_bytes"]) < number(&pair[1]["budget_bytes"]));
        // Equal experts: LRU has the inclusion property.
        assert!(number(&pair[0]["hit_percent"]) <= number(&pair[1]["hit_percent"]));
        let steps =
            (number(&pair[1]["budget_bytes"]) - number(&pair[0]["budget_bytes"])) / 524_288.0;
        let gain = number(&pair[1]["hit_percent"]) - number(&pair[0]["hit_percent"]);
        assert!((number(&pair[1]["points_per_step"]) - gain / steps).abs() < 1e-9);
    }
    for row in rows {
        let n_bytes = row["budget_bytes"].as_u64().unwrap();
        assert_eq!(row["n_slots"], n_bytes / EXPERT_BYTES);
        let is_below = n_bytes < CYCLE_BYTES;
        assert_eq!(row["is_below_cycle"], is_below);
        assert_eq!(row["hit_percent"] == 0.0, is_below, "{row}");
        let missed = 1.0 - number(&row["hit_percent"]) / 100.0;
        let read = number(&row["bytes_per_token"]);
        assert!((read - missed * CYCLE_BYTES as f64).abs() < 0.01, "{row}");
        match row["tokens_per_s"].as_f64() {
            Some(speed) => assert!((speed * read - 1e9).abs() < 1.0, "{row}"),
            None => assert_eq!(read, 0.0),
        }
    }
    let last = rows.last().unwrap();
    assert_eq!(
        (&last["hit_percent"], &last["n_slots"]),
        (&json!(100.0), &json!(384))
    );
}

#[test]
fn a_speed_needs_the_least_budget_whose_reads_allow_it() {
    let wanted = |speed: &str| {
        let plan = plan(&[&trace(), "-m", &model(), "--speed", speed]);
        assert_eq!(plan["disk_bytes_per_s"], 2_000_000_000);
        assert_eq!(plan["disk_is_assumed"], true);
        let speed: f64 = speed.parse().unwrap();
        let is_enough = |row: &&Value| row["tokens_per_s"].as_f64().is_none_or(|n| n >= speed);
        let least = rows(&plan).iter().find(is_enough).unwrap();
        assert_eq!(plan["wanted"]["budget_bytes"], least["budget_bytes"]);
        (least["percent"].clone(), plan)
    };
    let (percent, plan) = wanted("3000");
    assert!((20.0..50.0).contains(&number(&percent)), "{percent}");
    assert_eq!(plan["policy"], hotset::config::DEFAULT_POLICY);
    assert_eq!(wanted("1000000000").0, 100.0);
}

#[test]
fn the_table_says_what_it_rests_on() {
    let table = |args: &[&str]| {
        let output = run(hotset(&["plan", &trace(), "-m", &model()]).args(args));
        assert!(output.status.success(), "{}", text(&output.stderr));
        text(&output.stdout)
    };
    let assumed = table(&["--speed", "3000", "--limit", "500"]);
    for part in [
        "500 tokens; 6 layers of 64 experts, 14.3 MiB in all",
        "token cycle   1.8 MiB",
        "knee          ",
        "+512.0 KiB",
        "3000 tokens/s ",
        "are enough",
        "2.0 GB/s, which is assumed",
        "the rest of the model takes 1.5 MiB",
    ] {
        assert!(assumed.contains(part), "no `{part}` in:\n{assumed}");
    }
    let given = table(&[
        "--disk",
        "500MB/s",
        "--speed",
        "1000000000",
        "--limit",
        "500",
    ]);
    assert!(
        !given.contains("assumed") && given.contains("500.0 MB/s"),
        "{given}"
    );
    assert!(given.contains("nothing less than all experts"), "{given}");
}

fn write_trace(folder: &Path, header: &Value, lines: &str) -> String {
    let path = folder.join("t.trace.gz");
    let mut gzip = GzEncoder::new(std::fs::File::create(&path).unwrap(), Compression::fast());
    write!(gzip, "{header}\n{lines}").unwrap();
    gzip.finish().unwrap();
    path.to_str().unwrap().to_string()
}

#[test]
fn sizes_come_from_the_trace_or_the_model() {
    let folder = tempfile::tempdir().unwrap();
    let header = json!({"n_layers": 2, "n_experts": 4, "top_k": 1, "expert_bytes": [100, 300]});
    let lines = "0 0 1\n0 1 2\n1 0 1\n1 1 3\n";
    let path = write_trace(folder.path(), &header, lines);
    let own = plan(&[&path]);
    assert_eq!(
        (&own["expert_bytes"], &own["cycle_bytes"]),
        (&json!(1600), &json!(400))
    );
    assert_eq!(
        (&own["model"], &own["other_bytes"]),
        (&Value::Null, &Value::Null)
    );
    // Another quantisation, in two files: the second begins where the first one ends.
    let parts = |n| (0..n).map(|i| (format!("blk.{i}.ffn_up_exps.weight"), 4, 32));
    let mut tensors: Vec<_> = parts(2).collect();
    tensors.push(("blk.1.ffn_up.weight".to_string(), 4, 64));
    tensors.push(("blk.1.ffn_down_exps.bias".to_string(), 4, 32));
    let first = folder.path().join("m-00001-of-00002.gguf");
    std::fs::write(&first, bytes_of(&tensors, 2)).unwrap();
    let second = vec![("blk.1.ffn_down_exps.weight".to_string(), 4, 96)];
    std::fs::write(
        folder.path().join("m-00002-of-00002.gguf"),
        bytes_of(&second, 2),
    )
    .unwrap();
    let other = plan(&[&path, "-m", first.to_str().unwrap()]);
    assert_eq!(
        (&other["expert_bytes"], &other["cycle_bytes"]),
        (&json!(160), &json!(40))
    );
    assert_eq!(other["other_bytes"], 96);
}

#[test]
fn a_model_and_a_trace_that_do_not_match_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = write_trace(
        folder.path(),
        &json!({"n_layers": 5, "n_experts": 32, "top_k": 1}),
        "0 0 1\n",
    );
    let error = error_of(&mut hotset(&["plan", &path, "-m", &model()]), 2);
    for part in [
        "polyglot-moe.gguf",
        "6 layers of 64 experts",
        "5 layers of 32",
    ] {
        assert!(error.contains(part), "no `{part}` in {error}");
    }
    let error = error_of(&mut hotset(&["plan", &trace()]), 2);
    assert!(
        error.contains("it.trace.gz") && error.contains("-m"),
        "{error}"
    );
    let path = write_trace(
        folder.path(),
        &json!({"n_layers": 1, "n_experts": 2, "top_k": 1, "expert_bytes": [5]}),
        "",
    );
    let error = error_of(&mut hotset(&["plan", &path]), 2);
    assert!(error.contains("no events to replay"), "{error}");
}

#[test]
fn bad_options_name_what_is_valid() {
    for (option, value, expected) in [
        ("--policy", "mru", "lru, lfu"),
        ("--disk", "0", "2GB/s"),
        ("--disk", "fast", "2GB/s"),
        ("--speed", "0", "above 0"),
        ("--speed", "inf", "above 0"),
        ("--limit", "0", "1.."),
        ("--format", "xml", "table, json"),
    ] {
        let error = error_of(&mut hotset(&["plan", &trace(), option, value]), 2);
        assert!(error.contains(value) && error.contains(expected), "{error}");
    }
}

/// A GGUF file of tensors of two dimensions: name, last dimension, bytes; with values of several types.
fn bytes_of(tensors: &[(String, u64, usize)], n_files: u16) -> Vec<u8> {
    let mut bytes = b"GGUF".to_vec();
    let text = |bytes: &mut Vec<u8>, text: &str| {
        bytes.extend((text.len() as u64).to_le_bytes());
        bytes.extend(text.as_bytes());
    };
    bytes.extend(3u32.to_le_bytes());
    bytes.extend((tensors.len() as u64).to_le_bytes());
    bytes.extend(4u64.to_le_bytes());
    text(&mut bytes, "general.name");
    bytes.extend(8u32.to_le_bytes());
    text(&mut bytes, "small");
    text(&mut bytes, "words");
    bytes.extend([9u32.to_le_bytes(), 8u32.to_le_bytes()].concat());
    bytes.extend(2u64.to_le_bytes());
    text(&mut bytes, "a");
    text(&mut bytes, "bc");
    text(&mut bytes, "numbers");
    bytes.extend([9u32.to_le_bytes(), 5u32.to_le_bytes()].concat());
    bytes.extend(3u64.to_le_bytes());
    bytes.extend([0; 12]);
    text(&mut bytes, "split.count");
    bytes.extend(2u32.to_le_bytes());
    bytes.extend(n_files.to_le_bytes());
    let mut offset = 0;
    for (name, n_last, n_bytes) in tensors {
        text(&mut bytes, name);
        bytes.extend(2u32.to_le_bytes());
        bytes.extend([8, *n_last].map(u64::to_le_bytes).concat());
        bytes.extend(24u32.to_le_bytes());
        bytes.extend((offset as u64).to_le_bytes());
        offset += n_bytes;
    }
    bytes.resize(bytes.len().next_multiple_of(32), 0);
    bytes.resize(bytes.len() + offset, 7);
    bytes
}

#[test]
fn damaged_models_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| -> PathBuf {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    let refused = |path: &Path, expected: &str| {
        let error = gguf::read(path).unwrap_err().to_string();
        assert!(error.contains(path.to_str().unwrap()), "{error}");
        assert!(error.contains(expected), "{error}");
    };
    let expert = |name: &str, n_experts| (format!("blk.0.ffn_{name}_exps.weight"), n_experts, 32);
    let good = bytes_of(&[expert("up", 4), expert("down", 4)], 1);
    let found = gguf::read(&write("good.gguf", &good)).unwrap();
    assert_eq!(
        (found.shape.n_experts(0), found.shape.expert_bytes(0)),
        (4, 16)
    );
    // Up to the last tensor, whatever is left of it.
    for n_bytes in 0..good.len() - 31 {
        refused(
            &write("cut.gguf", &good[..n_bytes]),
            "not a valid GGUF file",
        );
    }
    refused(&folder.path().join("missing.gguf"), "No such file");
    refused(folder.path(), "not a regular file");
    let dense = [("blk.0.ffn_up.weight".to_string(), 4, 32)];
    refused(
        &write("dense.gguf", &bytes_of(&dense, 1)),
        "no routed experts",
    );
    let uneven = [expert("up", 4), expert("down", 5)];
    refused(&write("uneven.gguf", &bytes_of(&uneven, 1)), "of 5 experts");
    let none = [expert("up", 0)];
    refused(&write("none.gguf", &bytes_of(&none, 1)), "of 0 experts");
    let many = [expert("up", 1 << 40)];
    refused(&write("many.gguf", &bytes_of(&many, 1)), "1048576");
    let small = [expert("up", 33)];
    refused(&write("small.gguf", &bytes_of(&small, 1)), "no bytes");
    let parts = [expert("up", 4)];
    refused(
        &write("second.gguf", &bytes_of(&parts, 3)),
        "-00001-of-00003.gguf",
    );
    let first = write("m-00001-of-00003.gguf", &bytes_of(&parts, 3));
    let error = gguf::read(&first).unwrap_err().to_string();
    assert!(error.contains("m-00002-of-00003.gguf: No such"), "{error}");
}

#[test]
fn a_device_gets_whole_mebibytes_and_no_more_than_it_has() {
    let of_device = |size: &str, more: &[&str]| {
        let (trace, model) = (trace(), model());
        let args = [&trace, "-m", &model, "--policy", "lru", "--device", size];
        plan(&[&args, more].concat())
    };
    let tight = of_device("9.5MiB", &["--link", "1GB/s"]);
    let sizes: Vec<u64> = rows(&tight)
        .iter()
        .map(|row| row["budget_bytes"].as_u64().unwrap())
        .collect();
    let expected: Vec<u64> = (1..=9).map(|i| i << 20).collect();
    assert_eq!(sizes, expected);
    assert_eq!(tight["device"]["link_is_assumed"], false);
    assert!(tight["disk_bytes_per_s"].is_null());
    for row in rows(&tight) {
        // One slot holds nothing.
        let n_slots = row["budget_bytes"].as_u64().unwrap() / EXPERT_BYTES - 1;
        assert_eq!(row["n_slots"], n_slots);
        let missed = 1.0 - number(&row["hit_percent"]) / 100.0;
        let sent = number(&row["bytes_per_token"]);
        assert!((sent - missed * CYCLE_BYTES as f64).abs() < 0.01, "{row}");
        assert!(
            (number(&row["tokens_per_s"]) * sent - 1e9).abs() < 1.0,
            "{row}"
        );
    }
    // Each of these nine is worth it; beyond all experts there is nothing to keep.
    assert_eq!(tight["device"]["moe_cache_mib"], 9);
    let ample = of_device("8GiB", &[]);
    let last = rows(&ample).last().unwrap();
    assert_eq!(
        (&last["budget_bytes"], &last["n_slots"]),
        (&json!(15 << 20), &json!(384))
    );
    let knee = ample["knee_bytes"].as_u64().map_or(15, |n| n >> 20);
    assert_eq!(ample["device"]["moe_cache_mib"], knee);

    let output = run(&mut hotset(&[
        "plan",
        &trace(),
        "-m",
        &model(),
        "--device",
        "4MiB",
    ]));
    let table = text(&output.stdout);
    for part in [
        "SENT/TOKEN",
        "--moe-cache-mib 4 of 4.0 MiB",
        "12.0 GB/s, which is assumed: measure the link and pass --link",
    ] {
        assert!(table.contains(part), "no `{part}` in:\n{table}");
    }
    let with = |args: &[&str]| {
        let mut command = hotset(&["plan", &trace(), "-m", &model()]);
        command.args(args);
        command
    };
    // Not a whole MiB.
    let error = error_of(&mut with(&["--device", "300KiB"]), 2);
    assert!(
        error.contains("--device") && error.contains("300"),
        "{error}"
    );
    for args in [
        &["--device", "8GiB", "--disk", "2GB/s"][..],
        &["--link", "2GB/s"],
    ] {
        let output = run(&mut with(args));
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(text(&output.stderr).contains("--device"), "{args:?}");
    }
}
