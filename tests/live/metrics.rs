//! What Prometheus is told, read by Prometheus' own parser.

use super::server;
use crate::child::PROMPT;
use crate::serving::LlamaServer;
use hotset::live::FAMILIES;
use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

/// A python with Prometheus' client, as its package index has it.
fn python() -> &'static Path {
    static PYTHON: OnceLock<PathBuf> = OnceLock::new();
    PYTHON.get_or_init(|| {
        let packages = Path::new(env!("CARGO_TARGET_TMPDIR")).join("prometheus");
        if !packages.is_dir() {
            let part = packages.with_extension("part");
            let _ = fs::remove_dir_all(&part);
            let mut pip = Command::new("python3");
            pip.args([
                "-m",
                "pip",
                "install",
                "--quiet",
                "--disable-pip-version-check",
                "--target",
            ]);
            let installed = pip
                .arg(&part)
                .arg("prometheus-client==0.22.1")
                .output()
                .unwrap();
            let why = String::from_utf8_lossy(&installed.stderr);
            assert!(installed.status.success(), "{why}");
            fs::rename(&part, &packages).unwrap();
        }
        packages
    })
}

/// All samples by name and labels, as the parser reads them; it refuses what is wrong.
fn parsed(text: &str) -> BTreeMap<String, f64> {
    const SCRIPT: &str = r#"
import json, sys
from prometheus_client.parser import text_string_to_metric_families
samples = {}
for family in text_string_to_metric_families(sys.stdin.read()):
    assert family.documentation and family.type in ("counter", "gauge"), family
    for sample in family.samples:
        key = sample.name + json.dumps(sample.labels, sort_keys=True)
        assert key not in samples, key
        samples[key] = sample.value
        assert (family.type == "counter") == sample.name.endswith("_total"), sample
json.dump(samples, sys.stdout)
"#;
    let mut script = Command::new("python3");
    script.args(["-c", SCRIPT]).env("PYTHONPATH", python());
    let piped = script
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = piped.spawn().unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(text.as_bytes())
        .unwrap();
    let ended = child.wait_with_output().unwrap();
    let why = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success(), "{why}\n{text}");
    serde_json::from_slice(&ended.stdout).unwrap()
}

fn scrape(server: &LlamaServer) -> BTreeMap<String, f64> {
    let (status, text) = server.http("/metrics", None, None);
    assert_eq!(status, 200, "{text}");
    let ours: String = text
        .split_inclusive('\n')
        .filter(|line| line.contains("moe_"))
        .collect();
    parsed(&text);
    parsed(&ours)
}

fn is_counter(key: &str) -> bool {
    key.split('{').next().unwrap().ends_with("_total")
}

/// Also while it sleeps, and when it has woken and the model is another one.
#[test]
fn counters_never_fall() {
    let mut server = server("40%", &[], &["--sleep-idle-seconds", "2"]);
    let mut last = scrape(&server);
    let hits =
        r#"llamacpp:moe_ram_hits_total{"model": "polyglot-moe.gguf", "phase": "generation"}"#;
    assert_eq!(last[hits], 0.0);
    let check = |server: &LlamaServer, last: &mut BTreeMap<String, f64>| {
        let now = scrape(server);
        for (key, value) in last.iter().filter(|(key, _)| is_counter(key)) {
            let now = now.get(key).unwrap_or_else(|| panic!("{key} is gone"));
            assert!(now >= value, "{key} fell from {value} to {now}");
        }
        *last = now;
    };
    for round in 1..=2 {
        let generating = server.complete_apart(PROMPT, 300);
        while !generating.is_finished() {
            check(&server, &mut last);
        }
        generating.join().unwrap();
        check(&server, &mut last);
        let counted = last[hits];
        assert!(counted > 0.0);
        // A scrape does not wake it.
        server.wait_for("entering sleeping state", round);
        check(&server, &mut last);
        assert_eq!(last[hits], counted);
        server.complete(PROMPT.into());
        check(&server, &mut last);
        assert!(last[hits] > counted, "it goes on after it woke");
    }
    server.stop();
}

/// What other policies would have done comes a little later, from a thread of its own.
#[test]
fn hindsight_comes_by_itself() {
    let server = server("40%", &[], &[]);
    server.complete(PROMPT.into());
    let key = |policy: &str| {
        format!(r#"llamacpp:moe_hit_ratio{{"model": "polyglot-moe.gguf", "policy": "{policy}"}}"#)
    };
    let begin = std::time::Instant::now();
    let ratios = loop {
        let scraped = scrape(&server);
        let ratios = ["active", "lru", "best"].map(|policy| scraped.get(&key(policy)).copied());
        if let [Some(active), Some(lru), Some(best)] = ratios {
            break [active, lru, best];
        }
        assert!(begin.elapsed().as_secs() < 20);
    };
    assert!(ratios.iter().all(|ratio| (0.0..=1.0).contains(ratio)));
    assert!(
        ratios[2] >= ratios[0] && ratios[2] >= ratios[1],
        "{ratios:?}"
    );
    server.stop();
}

/// The dashboard asks for what there is, and for all of it.
#[test]
fn the_dashboard_knows_the_names() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/grafana.json");
    let text = fs::read_to_string(path).unwrap();
    let _: serde_json::Value = serde_json::from_str(&text).unwrap();
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let asked: Vec<&str> = text
        .match_indices("llamacpp:moe_")
        .map(|(at, _)| {
            text[at + "llamacpp:".len()..]
                .split(|c| !is_part(c))
                .next()
                .unwrap()
        })
        .collect();
    for name in &asked {
        assert!(
            FAMILIES.iter().any(|family| family.name == *name),
            "there is no {name}"
        );
    }
    for family in FAMILIES {
        assert!(
            asked.contains(&family.name),
            "{} is not on the dashboard",
            family.name
        );
    }
}
