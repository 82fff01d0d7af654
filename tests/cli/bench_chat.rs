//! Chats of several turns in `hotset bench`.

use super::bench::{bench, json, list, prompt};
use super::{error_of, run, text};
use serde_json::Value;

#[test]
fn a_chat_is_measured_in_its_last_turn() {
    let folder = tempfile::tempdir().unwrap();
    let (one, two) = (
        prompt(folder.path(), "one.txt"),
        prompt(folder.path(), "two.txt"),
    );
    let report = folder.path().join("report.json");
    let output = run(&mut bench(&[
        "--no-limit",
        "--ram",
        "30%",
        "--policies",
        "lru",
        "--prefetch",
        "off",
        "--repeat",
        "1",
        "--prompts",
        &format!("{one},{one}+{two}+{one}"),
        "--json",
        report.to_str().unwrap(),
    ]));
    assert!(output.status.success(), "{}", text(&output.stderr));
    let report = json(&report);
    let record = |workload: &str| {
        let mut records = list(&report["runs"]).iter();
        let is_it = |r: &&Value| r["workload"] == workload && r["variant"] == "lru";
        records.find(is_it).expect("there is such a run")
    };
    let (single, chat) = (&record("one")["run"], &record("one+two+one")["run"]);
    for run in [single, chat] {
        assert_eq!(run["n_prompt"], 64);
        assert_eq!(list(&run["tokens"]).len(), 8);
    }
    assert_ne!(single["tokens"], chat["tokens"]);
    let tokens = |stats: &Value| {
        let number = |phase: &str| stats[phase]["tokens"].as_u64().unwrap();
        [number("prompt"), number("generation")]
    };
    assert_eq!(tokens(&single["decode"]["stats"]), [64, 8]);
    assert_eq!(tokens(&chat["before"]), [128, 16]);
    assert_eq!(tokens(&chat["decode"]["stats"]), [192, 24]);
}

#[test]
fn a_chat_needs_new_tokens_for_each_turn() {
    let folder = tempfile::tempdir().unwrap();
    let one = prompt(folder.path(), "one.txt");
    let chat = [one.as_str(); 40].join("+");
    let error = error_of(&mut bench(&["--no-limit", "--prompts", &chat]), 2);
    for part in ["--prompt-tokens=64", "is used for", "turns"] {
        assert!(error.contains(part), "no {part} in: {error}");
    }
    let missing = format!("{one}+{one}x");
    let error = error_of(&mut bench(&["--prompts", &missing]), 2);
    assert!(error.contains("one.txtx"), "{error}");
}
