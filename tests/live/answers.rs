//! What is shown.

use super::{number, only, server};
use crate::child::{PROMPT, command, polyglot};
use crate::serving::LlamaServer;
use serde_json::Value;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;

const PATHS: [&str; 4] = [
    "/hotset/stats",
    "/hotset/heat",
    "/hotset/plan",
    "/hotset/events",
];

/// The data of the next events of a stream.
fn events(server: &LlamaServer, n: usize) -> Vec<Value> {
    let mut stream = TcpStream::connect(server.address()).unwrap();
    write!(stream, "GET /hotset/events HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let lines = BufReader::new(stream).lines().map(Result::unwrap);
    let data =
        lines.filter_map(|line| Some(serde_json::from_str(line.strip_prefix("data: ")?).unwrap()));
    data.take(n).collect()
}

#[test]
fn what_is_shown_is_what_happened() {
    let server = server("40%", &[], &[]);
    let before = server.get("/hotset/stats");
    assert_eq!(only(&before)["generation"]["tokens"], 0);
    assert_eq!(
        only(&server.get("/hotset/plan"))["rows"],
        Value::Array(Vec::new())
    );
    let busy = server.complete_apart(PROMPT, 400);
    let seen = events(&server, 3);
    let completed = busy.join().unwrap();
    assert_eq!(completed["tokens_predicted"], 400);

    let stats = server.get("/hotset/stats");
    let stats = only(&stats);
    // What a request has cost is what was counted: there was no other one.
    let timings = &completed["timings"];
    let sum = |of: &str| number(&stats["generation"][of]) + number(&stats["prompt"][of]);
    let hits = number(&timings["experts_hits"]);
    assert_eq!(hits, sum("hits"), "{timings} {stats:#}");
    assert_eq!(number(&timings["experts_misses"]), sum("misses"));
    assert!(number(&timings["experts_bytes_read"]) > 0.0);
    // Clients take all of them for numbers.
    let timings = timings.as_object().unwrap();
    assert!(timings.values().all(Value::is_number), "{timings:?}");

    // The events between are a part of it, and one a second comes.
    let ticks: Vec<&Value> = seen.iter().map(|event| only(&event["models"])).collect();
    let tokens: f64 = ticks.iter().map(|tick| number(&tick["tokens"])).sum();
    assert!(tokens > 0.0 && tokens <= 400.0, "{seen:?}");
    let apart = |a: &Value, b: &Value| number(&b["t"]) - number(&a["t"]);
    for pair in seen.windows(2) {
        assert!((0.0..5.0).contains(&apart(&pair[0], &pair[1])), "{pair:?}");
    }
    assert_eq!(ticks[0]["model"], stats["model"]);

    // As many are in memory as there are slots.
    let heat = server.get("/hotset/heat");
    let layers = only(&heat)["layers"].as_array().unwrap();
    let tiers: String = layers
        .iter()
        .map(|layer| layer["tier"].as_str().unwrap())
        .collect();
    assert_eq!((layers.len(), tiers.len()), (6, 384));
    assert_eq!(
        tiers.matches('m').count() as f64,
        number(&stats["n_resident"])
    );
    for layer in layers {
        let shares = layer["share"].as_array().unwrap().iter().map(number);
        assert!((shares.sum::<f64>() - 1.0).abs() < 0.001);
    }

    // More memory brings more, and the row of now is among them.
    let plan = server.get("/hotset/plan");
    let plan = only(&plan);
    let rows = plan["rows"].as_array().unwrap();
    let of = |name: &str| -> Vec<f64> { rows.iter().map(|row| number(&row[name])).collect() };
    assert!(
        of("hit_percent").is_sorted() && of("tokens_per_s").is_sorted(),
        "{rows:?}"
    );
    assert!(of("budget_bytes").contains(&number(&plan["now"]["budget_bytes"])));
    assert_eq!(of("hit_percent").last(), Some(&100.0));
    assert_eq!(stats["live"]["budget_bytes"], plan["now"]["budget_bytes"]);
    server.stop();
}

/// A line for each request says the same as its timings.
#[test]
fn a_request_is_a_line() {
    let server = server("40%", &[], &[]);
    let answer = server.complete(PROMPT.into());
    let timings = &answer["timings"];
    let all = number(&timings["experts_hits"]) + number(&timings["experts_misses"]);
    let said = server.stop();
    let line = said
        .lines()
        .find(|line| line.starts_with("hotset: request of slot 0: "));
    let line = line.unwrap_or_else(|| panic!("{said}"));
    assert!(
        line.contains(&format!(" of {all} experts were in memory, ")),
        "{line} {timings}"
    );
}

#[test]
fn a_key_is_asked_for() {
    let server = server("40%", &[], &["--api-key", "secret"]);
    let posts = ["budget", "policy", "profile", "reset"].map(|what| format!("/hotset/{what}"));
    let requests = PATHS.iter().map(|path| (*path, None));
    let requests = requests.chain(posts.iter().map(|path| (path.as_str(), Some("{}"))));
    for (path, body) in requests.chain([("/metrics", None), ("/hotset/nothing", None)]) {
        for key in [None, Some("wrong")] {
            let (status, text) = server.http(path, body, key);
            assert_eq!(status, 401, "{path}: {text}");
            let error: Value = serde_json::from_str(&text).unwrap();
            assert_eq!(error["error"]["code"], 401);
        }
    }
    assert_eq!(
        server.http("/hotset", None, None).0,
        200,
        "the page asks for the key"
    );
    assert_eq!(server.http("/hotset/stats", None, Some("secret")).0, 200);
    assert_eq!(
        server.http("/hotset/reset", Some("{}"), Some("secret")).0,
        200
    );
    server.stop();
}

#[test]
fn a_prefix_comes_first() {
    let mut server = command(env!("CARGO_BIN_EXE_llama-server"), &[("HOTSET_RAM", "40%")]);
    server.arg("-m").arg(polyglot());
    server.env("LLAMA_ARG_API_PREFIX", "/llm");
    let server = LlamaServer::start_at(server, "/llm", &["-c", "512"]);
    for path in PATHS[..3].iter().chain(&["/hotset"]) {
        assert_eq!(
            server.http(&format!("/llm{path}"), None, None).0,
            200,
            "{path}"
        );
        assert_eq!(server.http(path, None, None).0, 404, "{path}");
    }
    let (status, text) = server.http("/llm/hotset/policy", Some(r#"{"name":"lru"}"#), None);
    assert_eq!(status, 200, "{text}");
    server.stop();
}

/// Nobody hears of experts: not by a page, not by the metrics, not by the timings, and all else is as ever.
#[test]
fn it_can_be_switched_off() {
    for vars in [&[("HOTSET_HTTP", "off")][..], &[("HOTSET", "off")]] {
        let server = server("40%", vars, &[]);
        for path in PATHS.iter().chain(&["/hotset"]) {
            let (status, text) = server.http(path, None, None);
            assert_eq!(status, 404, "{path}");
            assert!(text.contains("File Not Found"), "{text}");
        }
        assert_eq!(server.http("/hotset/reset", Some("{}"), None).0, 404);
        let answer = server.complete(PROMPT.into());
        let timings = answer["timings"].as_object().unwrap();
        let of_ours = timings.keys().find(|name| name.contains("experts"));
        assert_eq!(of_ours, None);
        let (status, text) = server.http("/metrics", None, None);
        assert!(
            status == 200 && text.contains("predicted") && !text.contains("moe_"),
            "{text}"
        );
        server.stop();
    }
}

/// A model that is loaded as usual is there, and has nothing to say.
#[test]
fn without_a_budget_nothing_is_streamed() {
    let server = LlamaServer::start(&polyglot(), &[], &["-c", "512", "--metrics"]);
    server.complete(PROMPT.into());
    let stats = server.get("/hotset/stats");
    assert_eq!(
        (&only(&stats)["live"]["ram"], &only(&stats)["n_experts"]),
        (&"".into(), &0.into())
    );
    assert_eq!(
        only(&server.get("/hotset/plan"))["rows"],
        Value::Array(Vec::new())
    );
    let (status, text) = server.http("/hotset/budget", Some(r#"{"ram":"auto"}"#), None);
    assert!(
        status == 400 && text.contains("nothing is streamed"),
        "{text}"
    );
    let (_, metrics) = server.http("/metrics", None, None);
    assert!(!metrics.contains("moe_ram"), "{metrics}");
    server.stop();
}
