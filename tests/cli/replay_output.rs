//! What `hotset replay` prints and writes.

use super::replay::{ITALIAN, json, output, trace};
use super::{error_of, hotset, limited};
use hotset::policy::REGISTRY;
use serde_json::Value;
use std::fs::{self, File};
use tempfile::TempDir;

#[test]
fn tables_and_csv_say_the_same_as_json() {
    let args = [
        ITALIAN,
        "--limit",
        "200",
        "--policies",
        "lru,lfu",
        "--budgets",
        "20%,40%",
    ];
    let report = json(&args);
    let table = output(&args);
    let csv = output(&[&args[..], &["--format", "csv"]].concat());
    let mut lines = csv.lines();
    let names: Vec<&str> = lines.next().unwrap().split(',').collect();
    assert_eq!(
        names[..7],
        [
            "trace",
            "policy",
            "budget",
            "scope",
            "slots",
            "slot_share",
            "hit_rate"
        ]
    );
    for cell in report["cells"].as_array().unwrap() {
        let fields: Vec<&str> = lines.next().unwrap().split(',').collect();
        assert_eq!(fields.len(), names.len());
        let field = |name: &str| fields[names.iter().position(|n| *n == name).expect(name)];
        for name in ["trace", "policy", "budget", "scope"] {
            assert_eq!(field(name), cell[name].as_str().unwrap());
        }
        for name in ["slots", "hits", "misses", "evictions"] {
            assert_eq!(field(name), cell[name].to_string());
        }
        assert_eq!(field("experts"), cell["bytes"].to_string());
        // Reading JSON may round the last digit in another way.
        let same = |name: &str, value: &Value| {
            let number: f64 = field(name).parse().unwrap();
            assert!(
                (number - value.as_f64().unwrap()).abs() < 1e-12,
                "{name}: {number} {value}"
            );
        };
        for name in ["slot_share", "hit_rate", "hit_rate_cold", "gap_closed"] {
            same(name, &cell[name]);
        }
        same("worst_layer", &cell["worst_layer"]["layer"]);
        same("worst_layer_hit_rate", &cell["worst_layer"]["hit_rate"]);
        let in_percent = format!("{:.2}", 100.0 * cell["hit_rate"].as_f64().unwrap());
        let policy = cell["policy"].as_str().unwrap();
        let mut rows = table
            .lines()
            .filter(|line| line.split_whitespace().next() == Some(policy));
        assert!(
            rows.any(|row| row.split_whitespace().any(|field| field == in_percent)),
            "{table}"
        );
    }
    assert_eq!(lines.next(), None);
}

#[test]
fn the_curves_are_an_image_with_every_name() {
    let folder = TempDir::new().unwrap();
    let odd = trace(
        folder.path(),
        "a<b>&\"c.trace.gz",
        "{\"n_layers\":1,\"n_experts\":2,\"top_k\":1}\n0 0 1\n",
    );
    let file = folder.path().join("curves.svg");
    let out = ["--format", "svg", "--output", file.to_str().unwrap()];
    let texts = |args: &[&str]| -> Vec<String> {
        assert_eq!(output(&[args, &out].concat()), "");
        let svg = fs::read_to_string(&file).unwrap();
        let document = roxmltree::Document::parse(&svg).unwrap();
        assert_eq!(document.root_element().tag_name().name(), "svg");
        let n_lines = document
            .descendants()
            .filter(|n| n.tag_name().name() == "polyline")
            .count();
        assert!(n_lines > REGISTRY.len(), "{n_lines} lines");
        let texts = document
            .descendants()
            .filter(|n| n.tag_name().name() == "text");
        texts
            .filter_map(|n| n.text())
            .map(|text| text.trim().to_string())
            .collect()
    };
    let one = texts(&[ITALIAN, "--limit", "50"]);
    let names = REGISTRY.iter().map(|spec| spec.name);
    for name in names.chain(["belady", "it", "misses, %", "experts that fit, %"]) {
        assert!(one.contains(&name.to_string()), "no {name} in {one:?}");
    }
    let two = texts(&[ITALIAN, &odd, "--limit", "50"]);
    assert!(
        two.contains(&"it".to_string()) && two.contains(&"a<b>&\"c".to_string()),
        "{two:?}"
    );
    let copies: Vec<String> = (0..7)
        .map(|i| format!("{}/{i}.trace.gz", folder.path().display()))
        .collect();
    copies
        .iter()
        .for_each(|copy| assert!(fs::copy(ITALIAN, copy).is_ok()));
    let copies: Vec<&str> = copies.iter().map(String::as_str).collect();
    let many = texts(&[&copies[..], &["--limit", "20"]].concat());
    assert!(many.contains(&"mean of 7 traces".to_string()), "{many:?}");
}

/// An old file is replaced as a whole, with the rights of any new file.
#[test]
fn the_output_is_a_file_like_others() {
    let folder = TempDir::new().unwrap();
    let [new, like] = ["out.csv", "like"].map(|name| folder.path().join(name));
    fs::write(&new, "old ".repeat(10_000)).unwrap();
    File::create(&like).unwrap();
    let args = [
        ITALIAN,
        "--limit",
        "5",
        "--policies",
        "lru",
        "--format",
        "csv",
        "-o",
    ];
    assert_eq!(output(&[&args[..], &[new.to_str().unwrap()]].concat()), "");
    let written = fs::read_to_string(&new).unwrap();
    assert!(written.starts_with("trace,policy,") && !written.contains("old "));
    let rights = |path| fs::metadata(path).unwrap().permissions();
    assert_eq!(rights(&new), rights(&like));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
}

/// By whatever name: a trace that took hours is not replaced by what is said of it.
#[test]
fn the_output_is_never_an_input() {
    let folder = TempDir::new().unwrap();
    let [run, prior, link, other] =
        ["run.trace.gz", "prior.trace.gz", "link", "other"].map(|name| folder.path().join(name));
    fs::copy(ITALIAN, &run).unwrap();
    fs::copy(ITALIAN, &prior).unwrap();
    std::os::unix::fs::symlink(&run, &link).unwrap();
    fs::hard_link(&prior, &other).unwrap();
    let text = |path: &std::path::Path| path.to_str().unwrap().to_string();
    for (out, input) in [(&run, &run), (&link, &run), (&other, &prior)] {
        let args = [
            "replay",
            &text(&run),
            "--prior",
            &text(&prior),
            "-o",
            &text(out),
        ];
        let error = error_of(hotset(&args).args(["--format", "csv"]), 2);
        let said = format!(
            "--output={}: the input {} names the same file",
            out.display(),
            input.display()
        );
        assert!(error.contains(&said), "{error}");
    }
    for path in [&run, &prior] {
        assert!(fs::read(path).unwrap() == fs::read(ITALIAN).unwrap());
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 4);
}

#[test]
fn what_is_too_large_leaves_nothing() {
    let dir = TempDir::new().unwrap();
    let path = dir.path().join("out.csv");
    let args = ["replay", ITALIAN, "--format", "csv", "-o"];
    let mut command = hotset(&args);
    command.arg(&path);
    let error = error_of(&mut limited(&command, 1), 1);
    assert!(error.contains("File too large"), "{error}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}
