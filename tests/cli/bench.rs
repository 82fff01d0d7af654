//! `hotset bench`.

use super::{error_of, hotset, model, run, text};
use hotset::measuring::limited::Limiter;
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

/// A benchmark of the bundled model that takes seconds.
pub fn bench(args: &[&str]) -> std::process::Command {
    let model = model();
    let mut all = vec!["bench", "-m", &model, "--prompt-tokens", "64", "-n", "8"];
    all.extend(["--threads", "2"]);
    all.extend(args);
    let mut command = hotset(&all);
    // Waiting threads that spin take the cores that other tests need.
    command.env("OMP_WAIT_POLICY", "passive");
    command
}

pub fn prompt(folder: &Path, name: &str) -> String {
    let text = "Il file di configurazione viene letto quando il programma parte. ".repeat(24);
    let path = folder.join(name);
    fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_string()
}

pub fn json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

pub fn list(value: &Value) -> &[Value] {
    value
        .as_array()
        .unwrap_or_else(|| panic!("no list: {value}"))
}

#[test]
fn rows_have_speeds_counters_and_equal_tokens() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (
        prompt(folder.path(), "one.txt"),
        prompt(folder.path(), "two.txt"),
    );
    let (out, trace) = (
        folder.path().join("new/report"),
        folder.path().join("run.trace.gz"),
    );
    let output = run(bench(&[
        "--no-limit",
        "--ram",
        "25%,1MiB",
        "--policies",
        "adaptive,lru",
        "--repeat",
        "1",
    ])
    // Settings of the environment are not those of the rows.
    .env("HOTSET_TRACE", &trace)
    .args([
        "--prefetch",
        "off",
        "--prompts",
        &format!("{a},{b}"),
        "-ub",
        "40",
        "--out",
        out.to_str().unwrap(),
    ]));
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success(), "{stderr}");
    for part in [
        "WORKLOAD",
        "OF BOUND",
        "adaptive",
        "no limits were set",
        "tokens: equal",
        "MB/s",
    ] {
        assert!(stdout.contains(part), "no {part} in:\n{stdout}");
    }
    // Two workloads of one run with everything in memory and six rows.
    assert_eq!(stderr.lines().count(), 14, "{stderr}");

    check_report(&json(&out.join("raw.json")));
    assert!(!trace.exists());
    let readme = fs::read_to_string(out.join("README.md")).unwrap();
    for part in [
        "| one ",
        "| all ",
        "--out report",
        "polyglot-moe.gguf, 16783840 bytes",
    ] {
        assert!(readme.contains(part), "no {part} in:\n{readme}");
    }
    assert!(
        !readme.contains(folder.path().to_str().unwrap()),
        "{readme}"
    );
    let svg = fs::read_to_string(out.join("chart.svg")).unwrap();
    let svg = roxmltree::Document::parse(&svg).unwrap();
    let texts: Vec<_> = svg.descendants().filter_map(|node| node.text()).collect();
    for part in ["25%", "1MiB", "adaptive"] {
        assert!(
            texts.iter().any(|text| text.trim() == part),
            "{part}: {texts:?}"
        );
    }
}

/// Of two workloads, two limits and two policies, once.
fn check_report(report: &Value) {
    assert_eq!(report["tokens_equal"], true);
    assert_eq!(report["settings"]["is_limited"], false);
    assert_eq!(report["settings"]["n_ubatch"], 40);
    assert_eq!(report["model"]["n_experts"], 384);
    assert!(report["settings"]["rest_bytes"].as_u64().unwrap() > 16 << 20);
    assert_eq!(list(&report["disk"]["measured"]).len(), 2);
    let runs = list(&report["runs"]);
    assert_eq!(runs.len(), 14);
    for record in runs {
        check_run(record);
    }
    let budgets: Vec<_> = runs[1..4]
        .iter()
        .map(|r| r["budget_bytes"].as_u64())
        .collect();
    assert_eq!(budgets, [None, Some(3760128), Some(3760128)]);
    // The rows of each workload and those of both together.
    let rows = list(&report["rows"]);
    assert_eq!(rows.len(), 21);
    for row in rows {
        let is_stock = row["variant"] == "stock";
        assert!(
            row["decode_tokens_per_s"]["median"].as_f64().unwrap() > 0.0,
            "{row}"
        );
        assert_eq!(row["decode"].is_null(), is_stock, "{row}");
        assert_eq!(
            row["decode_ratio"].is_null(),
            row["variant"] == "compute",
            "{row}"
        );
        if is_stock {
            assert_eq!(row["decode_ratio"], 1.0, "{row}");
        }
    }
}

/// What one run says fits together.
fn check_run(record: &Value) {
    let run = &record["run"];
    let number = |value: &Value| {
        value
            .as_f64()
            .unwrap_or_else(|| panic!("{value} in {record}"))
    };
    assert_eq!(list(&run["tokens"]).len(), 8);
    let token_ms: f64 = list(&run["token_ms"]).iter().map(number).sum();
    assert!(
        token_ms > 0.0 && token_ms <= number(&run["decode"]["ms"]),
        "{record}"
    );
    assert_eq!(run["n_prompt"], 64);
    assert!(number(&run["prefill"]["ms"]) > 0.0);
    assert!(number(&run["peak_rss_bytes"]) > 1e6);
    if record["variant"] == "stock" {
        assert!(run["prefill"]["stats"].is_null() && run["decode"]["stats"].is_null());
        return;
    }
    let (prefill, decode) = (&run["prefill"]["stats"], &run["decode"]["stats"]);
    assert_eq!(prefill["model"], "polyglot-moe.gguf");
    let (before, expected) = match record["variant"].as_str().unwrap() {
        // It has read the prompt once before.
        "compute" => (&run["before"], "adaptive"),
        policy => (&Value::Null, policy),
    };
    assert_eq!(decode["policy"], expected);
    let tokens = |stats: &Value| {
        let of = |part: &str| stats[part]["tokens"].as_u64().unwrap_or(0);
        of("prompt") + of("generation")
    };
    let n_before = if before.is_null() { 0 } else { 64 };
    assert_eq!(tokens(before), n_before, "{record}");
    assert_eq!(tokens(prefill) - n_before, 64, "{record}");
    assert_eq!(tokens(decode) - tokens(prefill), 8, "{record}");
    let (budget, arena) = (
        number(&record["budget_bytes"]),
        number(&decode["arena_bytes"]),
    );
    // Slots begin at blocks of the disk; the rest of one is not used.
    assert!((0.9 * budget..=1.3 * budget).contains(&arena), "{record}");
    let misses = |stats: &Value| number(&stats["generation"]["misses"]);
    match record["variant"] == "compute" {
        true => assert_eq!(misses(decode), 0.0, "{record}"),
        false => assert!(misses(decode) > misses(prefill), "{record}"),
    }
}

/// They are long enough for the prompt that is the default, here and for models with larger vocabularies.
#[test]
fn there_are_texts_for_who_names_none() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("all.json");
    let model = model();
    let mut command = hotset(&[
        "bench",
        "-m",
        &model,
        "--no-limit",
        "-n",
        "1",
        "--repeat",
        "1",
    ]);
    command.args(["--ram", "50%", "--policies", "lru", "--prefetch", "off"]);
    command.args(["--json", out.to_str().unwrap()]);
    let output = run(command.env("OMP_WAIT_POLICY", "passive"));
    assert!(output.status.success(), "{}", text(&output.stderr));
    let report = json(&out);
    let runs = list(&report["runs"]);
    let workloads: Vec<_> = runs.chunks(3).map(|rows| &rows[0]["workload"]).collect();
    assert_eq!(workloads, ["it", "en", "de", "fr", "code"]);
    assert!(runs.iter().all(|record| record["run"]["n_prompt"] == 512));
    let warnings = report["warnings"].to_string();
    assert!(
        warnings.contains("513 tokens is longer than the 512"),
        "{warnings}"
    );
}

/// Where control groups can be made, a run stays below its limit; elsewhere the error says what to do.
#[test]
fn runs_stay_below_their_limit() {
    let folder = tempfile::tempdir().unwrap();
    let prompt = prompt(folder.path(), "it.txt");
    let out = folder.path().join("all.json");
    let args = [
        "--cap",
        "160MiB",
        "--policies",
        "lru",
        "--prefetch",
        "auto",
        "--prompts",
        &prompt,
    ];
    let mut command = bench(&args);
    command.args(["--repeat", "1", "--json", out.to_str().unwrap()]);
    if Limiter::new().is_err() {
        let error = error_of(&mut command, 2);
        assert!(
            error.contains("--no-limit") && error.contains("systemd-run"),
            "{error}"
        );
        return;
    }
    let output = run(&mut command);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let report = json(&out);
    assert_eq!(report["settings"]["is_limited"], true);
    let runs = list(&report["runs"]);
    assert_eq!(runs.len(), 3);
    for record in &runs[1..] {
        assert_eq!(record["cap_bytes"], 160 << 20);
        let peak = record["peak_bytes"].as_u64().unwrap();
        // The model was read into it.
        assert!((4 << 20..=160 << 20).contains(&peak), "{record}");
    }
    let rest = report["settings"]["rest_bytes"].as_u64().unwrap();
    assert_eq!(
        runs[2]["budget_bytes"].as_u64().unwrap(),
        (160 << 20) - rest
    );
    assert_eq!(runs[2]["variant"], "lru+ahead");
}

#[test]
fn what_is_wrong_is_found_before_anything_runs() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_string();
    let prompt = prompt(folder.path(), "it.txt");
    fs::write(at("it.md"), "x").unwrap();
    fs::write(at("blank.txt"), " \n").unwrap();
    let (same, blank, here) = (format!("{prompt},{}", at("it.md")), at("blank.txt"), at(""));
    let cases: [(&[&str], &[&str]); 17] = [
        (&["--cap", "40%", "--ram", "40%"], &["--cap", "--ram"]),
        (&["--cap", "40%,auto"], &["--cap=auto", "6GiB"]),
        (&["--ram", "0%"], &["--ram=0%", "above 0%"]),
        (&["--cap", "40%,40%"], &["--cap=40%", "twice"]),
        (&["--policies", "mru"], &["--policies=mru", "lru, lfu"]),
        (&["--policies", "lru,lru"], &["--policies=lru", "twice"]),
        (&["--prefetch", "on"], &["--prefetch=on", "off,auto"]),
        (&["--prompts", "no.txt"], &["no.txt", "No such file"]),
        (&["--prompts", &same], &["it.md", "'it'"]),
        (&["--prompts", &blank], &["blank.txt", "empty"]),
        (&["-c", "71"], &["--ctx-size=71", "72"]),
        (&["-ub", "0"], &["0", "ubatch"]),
        (&["--rest", "some"], &["--rest", "some"]),
        (&["--json", "no/such/x.json"], &["no/such/x.json", "folder"]),
        (&["--svg", &here], &["folder"]),
        (&["--out", &here], &["not empty"]),
        (&["--repaet", "1"], &["--repaet", "--repeat"]),
    ];
    for (args, expected) in cases {
        let error = error_of(&mut bench(args), 2);
        for part in expected {
            assert!(error.contains(part), "{args:?}: no {part} in: {error}");
        }
    }
    let error = error_of(&mut hotset(&["bench", "-m", "Cargo.toml"]), 2);
    assert!(
        error.contains("Cargo.toml") && error.contains("GGUF"),
        "{error}"
    );
    let error = error_of(bench(&[]).env("HOTSET_RAMM", "1"), 2);
    assert!(error.contains("HOTSET_RAMM"), "{error}");
}

/// What hours will have measured is written over nothing that is read, nor over itself.
#[test]
fn a_report_is_written_over_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_string();
    let (prompt, copy, json) = (prompt(folder.path(), "it.txt"), at("m.gguf"), at("x.json"));
    fs::copy(model(), &copy).unwrap();
    fs::create_dir(at("out")).unwrap();
    let (out, raw) = (at("out"), at("out/raw.json"));
    let cases: [(&[&str], &str); 4] = [
        (&["--json", &copy], "the input"),
        (&["--json", &prompt], "the input"),
        (&["--json", &json, "--svg", &json], "--json"),
        (&["--out", &out, "--svg", &raw], "--svg"),
    ];
    for (args, other) in cases {
        let mut command = hotset(&["bench", "-m", &copy, "--no-limit", "--prompts", &prompt]);
        let error = error_of(command.args(args), 2);
        let is_named = error.contains(other) && error.contains("names the same file");
        assert!(is_named, "{args:?}: {error}");
    }
    assert!(fs::read(&copy).unwrap() == fs::read(model()).unwrap());
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 3);
}

#[test]
fn a_run_that_fails_is_named_with_what_it_said() {
    let folder = tempfile::tempdir().unwrap();
    let prompt = prompt(folder.path(), "it.txt");
    let args = [
        "--no-limit",
        "--prompts",
        &prompt,
        "--prompt-tokens",
        "9999",
    ];
    let model = model();
    let mut command = hotset(&["bench", "-m", &model]);
    let error = error_of(command.args(args), 2);
    for part in ["run=", "--prompt-tokens=9999", "at most"] {
        assert!(error.contains(part), "no {part} in: {error}");
    }
    // The process takes more than that, which only running it shows.
    let error = error_of(
        &mut bench(&["--no-limit", "--cap", "40%", "--prompts", &prompt]),
        2,
    );
    for part in ["--cap=40%", "6.4 MiB", "--rest"] {
        assert!(error.contains(part), "no {part} in: {error}");
    }
}

/// With a report of what was done, and no process left.
#[test]
fn ctrl_c_ends_it_in_an_orderly_way() {
    let folder = tempfile::tempdir().unwrap();
    let prompt = prompt(folder.path(), "it.txt");
    let [out, log] = ["out.json", "log"].map(|name| folder.path().join(name));
    let mut command = bench(&[
        "--no-limit",
        "--ram",
        "25%",
        "--prompts",
        &prompt,
        "--repeat",
        "999",
    ]);
    command.args(["--json", out.to_str().unwrap()]);
    let mut child = command
        .stdout(std::process::Stdio::null())
        .stderr(fs::File::create(&log).unwrap())
        .spawn()
        .unwrap();
    let lines = || fs::read_to_string(&log).unwrap();
    let begin = Instant::now();
    while lines().lines().count() < 2 {
        assert!(begin.elapsed() < Duration::from_secs(60), "{}", lines());
        std::thread::sleep(Duration::from_millis(5));
    }
    interrupt(&child);
    let status = child.wait().unwrap();
    let lines = lines();
    assert_eq!(status.code(), Some(1), "{lines}");
    let last = lines.lines().last().unwrap();
    assert!(
        last.starts_with("hotset: error: interrupted while 'it, "),
        "{lines}"
    );
    let report = json(&out);
    assert!(list(&report["runs"]).len() >= 2);
    let warnings = report["warnings"].to_string();
    assert!(warnings.contains("ended before"), "{warnings}");
}

#[allow(unsafe_code)]
fn interrupt(child: &std::process::Child) {
    // SAFETY: a plain system call; the process is ours and has not been waited for.
    unsafe { libc::kill(child.id() as i32, libc::SIGINT) };
}

#[test]
fn the_command_of_one_run_is_not_shown() {
    for args in [&["--help"][..], &["fly"]] {
        let output = run(&mut hotset(args));
        let shown = text(&output.stdout) + &text(&output.stderr);
        assert!(
            shown.contains("bench") && !shown.contains("bench-row"),
            "{shown}"
        );
    }
}
