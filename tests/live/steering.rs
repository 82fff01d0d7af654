//! What is changed while a server runs.

use super::{number, only, server};
use crate::child::{PROMPT, command, polyglot, run};
use crate::serving::LlamaServer;
use hotset::policy::REGISTRY;
use serde_json::{Value, json};
use std::fs;

fn post(server: &LlamaServer, what: &str, body: &Value) -> (u16, Value) {
    let (status, text) = server.http(&format!("/hotset/{what}"), Some(&body.to_string()), None);
    (status, serde_json::from_str(&text).unwrap())
}

/// Learns a profile of the bundled model.
fn learn(path: &std::path::Path) {
    let server = server(
        "40%",
        &[("HOTSET_PROFILE_SAVE", path.to_str().unwrap())],
        &[],
    );
    server.complete(PROMPT.into());
    server.stop();
}

/// Each of them in the middle of a generation: the tokens are those of a server that nobody has asked for anything.
#[test]
fn tokens_stay_the_same() {
    const N_TOKENS: u32 = 600;
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("profiles");
    fs::create_dir(&folder).unwrap();
    let [chat, saved] = [folder.join("chat.json"), dir.path().join("saved.json")];
    learn(&chat);
    let wanted = {
        let server = server("40%", &[("HOTSET_HTTP", "off")], &[]);
        let answer = server.complete_apart(PROMPT, N_TOKENS).join().unwrap();
        server.stop();
        answer["tokens"].clone()
    };
    let server = server(
        "40%",
        &[("HOTSET_PROFILE_SAVE", saved.to_str().unwrap())],
        &[],
    );
    let mut changes: Vec<(&str, Value)> = Vec::new();
    for ram in ["10%", "70%", "auto", "100%", "4MiB", "30%"] {
        changes.push(("budget", json!({ "ram": ram })));
    }
    changes.extend(
        REGISTRY
            .iter()
            .map(|spec| ("policy", json!({ "name": spec.name }))),
    );
    changes.push(("profile", json!({"save": true})));
    changes.push(("profile", json!({"use": format!("{}:2", chat.display())})));
    changes.push(("profile", json!({"folder": folder.to_str().unwrap()})));
    changes.push(("reset", json!({})));
    let (mut n_changes, mut n_rounds) = (0, 0);
    // How many of them come in a generation depends on the machine.
    while n_changes < changes.len() || n_rounds < 2 {
        n_rounds += 1;
        assert!(n_rounds < 30, "only {n_changes} changes were made in time");
        let generating = server.complete_apart(PROMPT, N_TOKENS);
        while !generating.is_finished() {
            let (what, body) = &changes[n_changes % changes.len()];
            let (status, answer) = post(&server, what, body);
            assert_eq!(status, 200, "{what} {body}: {answer}");
            for path in ["/hotset/stats", "/hotset/heat", "/hotset/plan", "/metrics"] {
                assert_eq!(server.http(path, None, None).0, 200, "{path}");
            }
            n_changes += 1;
        }
        let answer = generating.join().unwrap();
        assert_eq!(answer["tokens"], wanted, "after {n_changes} changes");
    }
    assert!(saved.is_file());
    server.stop();
}

#[test]
fn a_budget_is_there_at_once_and_stays() {
    let mut server = server("40%", &[], &[]);
    server.complete(PROMPT.into());
    let slots = |server: &LlamaServer| {
        let stats = server.get("/hotset/stats");
        let stats = only(&stats);
        (
            number(&stats["n_slots"]),
            number(&stats["n_resident"]),
            stats["live"]["ram"].clone(),
        )
    };
    let (n_slots, n_resident, ram) = slots(&server);
    assert_eq!(ram, "40%");
    assert!(n_resident <= n_slots);
    for (ram, share) in [
        ("100%", 1.0),
        ("20%", 0.2),
        ("60%", 0.6),
        ("1GiB", 1.0),
        ("3MiB", 0.2),
    ] {
        let (status, answer) = post(&server, "budget", &json!({ "ram": ram }));
        assert_eq!(status, 200, "{answer}");
        let changed = only(&answer["models"]);
        let (n_slots, n_resident, said) = slots(&server);
        assert_eq!(
            (&number(&changed["n_slots"]), &said),
            (&n_slots, &ram.into())
        );
        assert!(
            (n_slots / 384.0 - share).abs() < 0.06,
            "{ram}: {n_slots} slots"
        );
        assert!(n_resident <= n_slots);
        server.complete(PROMPT.into());
        server.wait_for(&format!("hotset: HOTSET_RAM={ram} from now on: "), 1);
    }
    // What is available follows by itself: there is plenty.
    assert_eq!(post(&server, "budget", &json!({"ram": "auto"})).0, 200);
    let begin = std::time::Instant::now();
    while slots(&server).0 < 384.0 {
        assert!(begin.elapsed().as_secs() < 60, "{:?}", slots(&server));
        std::thread::sleep(std::time::Duration::from_millis(300));
    }
    server.stop();
}

/// The sentence is that of the command line, and what was refused has changed nothing.
#[test]
fn what_is_wrong_is_said_as_by_the_command_line() {
    let server = server("40%", &[], &[]);
    server.complete(PROMPT.into());
    let state = || {
        let mut stats = server.get("/hotset/stats")[0].take();
        for field in ["available_bytes", "uptime_s", "since_s", "hindsight_age_s"] {
            stats["live"][field].take();
        }
        stats["hindsight"].take();
        stats
    };
    let before = state();
    for (what, option, value) in [
        ("budget", "ram", "12"),
        ("budget", "ram", "0%"),
        ("budget", "ram", "101%"),
        ("budget", "ram", "lots"),
        ("budget", "ram", "-1GiB"),
        ("policy", "policy", "lrux"),
        ("policy", "policy", "decay:0"),
        ("policy", "policy", "lru:3"),
        ("profile", "profile", "/nowhere/chat.json"),
    ] {
        let field = match what {
            "budget" => "ram",
            "policy" => "name",
            _ => "use",
        };
        let (status, answer) = post(&server, what, &json!({ field: value }));
        assert_eq!(status, 400, "{value}: {answer}");
        let mut hotset = command(env!("CARGO_BIN_EXE_hotset"), &[]);
        hotset.args(["run", &format!("--{option}={value}"), "--", "--version"]);
        let mut said = hotset.output().unwrap().stderr;
        said.retain(|byte| *byte != b'\n');
        let said = String::from_utf8(said).unwrap();
        let message = answer["error"]["message"].as_str().unwrap();
        assert_eq!(said, format!("hotset: error: {message}"), "{value}");
    }
    for (what, body, part) in [
        ("budget", json!({"ram": "400TiB"}), "more are available"),
        ("budget", json!({"ram": "1MiB", "then": 1}), "unknown field"),
        ("budget", json!({"ram": "if-needed"}), "not loaded anew"),
        ("budget", json!({}), "missing field `ram`"),
        ("profile", json!({"save": true}), "HOTSET_PROFILE_SAVE"),
        ("profile", json!({"folder": "/nowhere"}), "no such folder"),
        ("profile", json!({"folder": "/etc"}), "of this model"),
        ("reset", json!([]), "expected {}"),
    ] {
        let (status, answer) = post(&server, what, &body);
        assert_eq!(status, 400, "{body}: {answer}");
        let message = answer["error"]["message"].as_str().unwrap();
        assert!(message.contains(part), "{body}: {message}");
    }
    assert_eq!(server.http("/hotset/nothing", Some("{}"), None).0, 404);
    assert_eq!(server.http("/hotset/stats", Some("{}"), None).0, 404);
    assert_eq!(state(), before);
    server.stop();
}

/// Counters begin at 0, those of /metrics go on, and so does the cache.
#[test]
fn a_reset_forgets_counts_and_nothing_else() {
    let server = server("40%", &[], &[]);
    server.complete(PROMPT.into());
    let before = server.get("/hotset/stats");
    let metric = |server: &LlamaServer| {
        let (_, text) = server.http("/metrics", None, None);
        let line = text.lines().find(|line| {
            line.starts_with("llamacpp:moe_ram_hits_total") && line.contains("generation")
        });
        line.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .unwrap()
    };
    let hits = metric(&server);
    assert!(hits > 0.0);
    assert_eq!(
        post(&server, "reset", &json!({})),
        (200, json!({"reset": true}))
    );
    let after = server.get("/hotset/stats");
    let (before, after) = (only(&before), only(&after));
    for part in ["generation", "prompt"] {
        for (name, value) in after[part].as_object().unwrap() {
            assert_eq!(number(value), 0.0, "{part}.{name}");
        }
    }
    assert_eq!(
        (&after["bytes_read"], &after["n_reads"]),
        (&0.into(), &0.into())
    );
    assert_eq!(after["n_resident"], before["n_resident"]);
    assert_eq!(metric(&server), hits);
    server.complete(PROMPT.into());
    assert!(metric(&server) > hits);
    let again = server.get("/hotset/stats");
    assert!(number(&only(&again)["generation"]["hits"]) > 0.0);
    server.stop();
}

/// A profile is known by its name where it lies in the folder of those that are used.
#[test]
fn a_profile_is_used_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let chat = dir.path().join("chat.json");
    learn(&chat);
    let server = server(
        "40%",
        &[("HOTSET_PROFILE", dir.path().to_str().unwrap())],
        &[],
    );
    let profile = |server: &LlamaServer| server.get("/hotset/stats")[0]["live"]["profile"].take();
    assert_eq!(profile(&server)["folder"], dir.path().to_str().unwrap());
    assert_eq!(profile(&server)["used"], json!([]));
    let (status, answer) = post(&server, "profile", &json!({"use": "chat:0.5"}));
    assert_eq!(
        (status, &answer["used"]),
        (200, &json!(["chat"])),
        "{answer}"
    );
    assert_eq!(profile(&server)["used"], json!(["chat"]));
    for use_ in ["chat:0", "other"] {
        let (status, answer) = post(&server, "profile", &json!({ "use": use_ }));
        assert_eq!(status, 400, "{answer}");
    }
    server.stop();
    let mut other = command(env!("CARGO_BIN_EXE_hotset"), &[]);
    other.args(["profile", "show"]).arg(&chat);
    assert_eq!(run(other).code(), 0);
    assert!(polyglot().is_file());
}

/// A server that sleeps has the same budget and policy when it wakes, also one that began with what is available.
#[test]
fn what_was_changed_holds_when_it_wakes() {
    let mut server = server("auto", &[], &["--sleep-idle-seconds", "2"]);
    server.complete(PROMPT.into());
    let policy = REGISTRY[1].name;
    assert_eq!(post(&server, "policy", &json!({ "name": policy })).0, 200);
    assert_eq!(post(&server, "budget", &json!({"ram": "4MiB"})).0, 200);
    let slots = |server: &LlamaServer| {
        let stats = server.get("/hotset/stats");
        let stats = only(&stats);
        (stats["n_slots"].clone(), stats["policy"].clone())
    };
    let before = slots(&server);
    server.wait_until_asleep(1);
    while server.get("/hotset/stats") != json!([]) {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let (status, answer) = post(&server, "budget", &json!({"ram": "5MiB"}));
    assert!(
        status == 400 && answer.to_string().contains("asleep"),
        "{answer}"
    );
    server.complete(PROMPT.into());
    assert_eq!(slots(&server), before);
    assert_eq!(before.1, policy);
    server.stop();
}
