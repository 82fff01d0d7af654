//! `hotset top` and a server that answers what a test wants.

use super::{error_of, hotset, run, text};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::thread;

/// A request: its first line without the version, the key and the body in it.
pub struct Request {
    pub line: String,
    key: Option<String>,
    pub body: String,
}

/// Answers every request until the test ends; returns the URL.
pub fn serve(answer: impl Fn(&Request) -> (u16, String) + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // A client that goes away in between is no failure of the test.
            let _ = respond(stream, &answer);
        }
    });
    format!("http://{address}")
}

fn respond(
    mut stream: TcpStream,
    answer: impl Fn(&Request) -> (u16, String),
) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        match line.trim_end() {
            "" => break,
            line => lines.push(line.to_string()),
        }
    }
    let header = |name: &str| {
        let is_it = |line: &&String| line.to_lowercase().starts_with(name);
        let line = lines.iter().find(is_it)?;
        Some(line[name.len()..].trim().to_string())
    };
    let n_bytes = header("content-length:").map_or(0, |n| n.parse().unwrap());
    let mut body = String::new();
    reader.take(n_bytes).read_to_string(&mut body)?;
    let (status, answered) = answer(&Request {
        line: lines
            .first()
            .map_or("", |line| line.trim_end_matches(" HTTP/1.1"))
            .to_string(),
        key: header("authorization: bearer"),
        body,
    });
    let n_bytes = answered.len();
    write!(
        stream,
        "HTTP/1.1 {status} x\r\nContent-Length: {n_bytes}\r\nConnection: close\r\n\r\n{answered}"
    )
}

fn stats() -> Value {
    json!([{
        "model": "/models/small.gguf", "policy": "decay:16", "io": "pread", "n_experts": 8, "n_slots": 4,
        "n_resident": 3, "generation": {"events": 9, "tokens": 20, "hits": 60, "misses": 20},
        "prompt": {"events": 0, "tokens": 0, "hits": 0, "misses": 0},
        "bytes_read": 1000, "bytes_read_uncounted": 0,
        "generation_time": {"busy_ms": 1000.0, "stalled_ms": 400.0},
        "prompt_time": {"busy_ms": 0.0, "stalled_ms": 0.0}, "devices": [], "tiers": [],
        "live": {
            "ram": "50%", "budget_bytes": 1 << 20, "budget_bytes_max": 2 << 20, "available_bytes": 1 << 30,
            "disk_bytes_per_s": null, "policies": [], "uptime_s": 90.0, "since_s": 30.0,
            "profile": {"saves_to": null, "used": [], "folder": null, "workload": null},
        },
    }])
}

/// What a server answers that has one small model, below a prefix.
pub fn answer(path: &str) -> (u16, String) {
    let body = match path {
        "/llm/hotset/stats" => stats(),
        "/llm/hotset/heat" => json!([{"model": "a", "layers": [
            {"block": 1, "share": [0.7, 0.1, 0.1, 0.1], "tier": "mmdg"},
            {"block": 2, "share": [0.0, 0.0, 0.0, 0.0], "tier": "mddd"},
        ]}]),
        "/llm/hotset/plan" => json!([{
            "now": {"budget_bytes": 1 << 20, "hit_percent": 70.0, "tokens_per_s": null},
            "rows": [{"budget_bytes": 2 << 20, "hit_percent": 100.0, "tokens_per_s": null}],
            "step_bytes": 1 << 18,
        }]),
        _ => return (404, refusal("File Not Found")),
    };
    (200, body.to_string())
}

pub fn refusal(message: &str) -> String {
    json!({"error": {"code": 400, "message": message, "type": "invalid_request_error"}}).to_string()
}

pub fn top(args: &[&str]) -> Command {
    let mut command = hotset(&[&["top"], args].concat());
    command.env_remove("LLAMA_API_KEY").env_remove("NO_COLOR");
    command
}

#[test]
fn one_look_is_plain_text() {
    let url = serve(|request| answer(request.line.trim_start_matches("GET "))) + "/llm/";
    // Without a terminal it is so anyhow.
    for args in [&[&*url, "--once"][..], &[&*url]] {
        let output = run(&mut top(args));
        assert_eq!(text(&output.stderr), "");
        assert!(output.status.success());
        let wanted = format!(
            "{}  small.gguf
policy decay:16; experts have 1.0 MiB of 2.0 MiB (budget 50%); up 1 min

It works: 75.0 % of picks hit memory in the last 30 s; 50 % of experts fit.
The disk limits it: it waits for reads 40 % of the time.
More memory helps: 1.0 MiB more bring 30.0 points.
20 tokens were generated, 20.0 in a second of computing them.

memory [###############.....] 3 of 4 slots used, 8 experts; 1.0 GiB free
disk   [....................] its speed was not measured
Profiles: none is used or saved

Layers x experts, 1 x 1 in a cell: g device, m memory, d disk, capitals hot
  1 Mmdg
  2 mddd
",
            url.trim_end_matches('/')
        );
        assert_eq!(text(&output.stdout), wanted);
    }
    let mut unread = top(&[&url, "--once"]);
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = run(unread.stdout(writer));
    assert_eq!(output.status.signal(), Some(libc::SIGPIPE));
}

#[test]
fn a_key_is_sent_and_one_that_is_missing_is_asked_for() {
    let url = serve(|request| match request.key.as_deref() {
        Some("secret") => answer(request.line.trim_start_matches("GET ")),
        _ => (401, refusal("Invalid API Key")),
    }) + "/llm";
    for mut command in [top(&[&url]), top(&[&url, "--api-key", "wrong"])] {
        let error = error_of(&mut command, 2);
        assert!(
            error.contains(&url) && error.contains("--api-key"),
            "{error}"
        );
    }
    let as_option = run(&mut top(&[&url, "--api-key", "secret"]));
    // A server may have several.
    let as_variable = run(top(&[&url]).env("LLAMA_API_KEY", "secret,other"));
    for output in [as_option, as_variable] {
        assert!(output.status.success(), "{}", text(&output.stderr));
    }
    let error = error_of(&mut top(&["--api-key", "two words"]), 2);
    assert!(
        !error.contains("words") && error.contains("without spaces"),
        "{error}"
    );
}

#[test]
fn a_server_without_hotset_is_told_from_one_that_is_away() {
    let url = serve(|_| (404, refusal("File Not Found")));
    let error = error_of(&mut top(&[&url]), 2);
    assert!(
        error.contains(&url) && error.contains("HOTSET_HTTP"),
        "{error}"
    );

    let url = serve(|_| (503, refusal("Loading model")));
    let error = error_of(&mut top(&[&url]), 1);
    assert_eq!(error, format!("hotset: error: {url}: Loading model\n"));

    let free = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let error = error_of(&mut top(&[&format!("http://{free}")]), 1);
    assert!(
        error.starts_with(&format!("hotset: error: http://{free}: ")),
        "{error}"
    );
    assert!(error.contains("refused"), "{error}");
}

#[test]
fn what_is_no_answer_of_hotset_says_where_it_is_not() {
    for (body, why) in [
        ("<html>", "expected value at line 1 column 1"),
        ("{}", "expected a sequence"),
        ("[{\"model\": 7}]", "[0].model: invalid type"),
        ("[{\"model\": \"a\"}]", "missing field"),
    ] {
        let url = serve(move |_| (200, body.to_string()));
        let error = error_of(&mut top(&[&url]), 2);
        assert!(
            error.contains(&url) && error.contains(why),
            "{body}: {error}"
        );
    }
}

#[test]
fn a_router_is_asked_for_one_of_its_models() {
    let url = serve(|request| match request.line.as_str() {
        "GET /props" => (200, json!({"role": "router"}).to_string()),
        "GET /models" => (
            200,
            json!({"data": [{"id": "a"}, {"id": "b c"}]}).to_string(),
        ),
        line => match line.strip_suffix("?model=b%20c") {
            Some(line) => answer(&line.replace("GET ", "/llm")),
            None => (400, refusal("the model's name is missing")),
        },
    });
    let error = error_of(&mut top(&[&url]), 2);
    assert!(
        error.contains("--model") && error.contains("a, b c"),
        "{error}"
    );
    let error = error_of(&mut top(&[&url, "--model", "d"]), 2);
    assert!(error.contains("name is missing"), "{error}");
    let output = run(&mut top(&[&url, "--model", "b c"]));
    assert!(output.status.success(), "{}", text(&output.stderr));
}

#[test]
fn an_url_is_checked_before_anything_is_asked() {
    for url in ["box:8080", "ftp://box", "http://box/?model=a"] {
        let error = error_of(&mut top(&[url]), 2);
        assert!(error.contains(&format!("URL={url}: expected")), "{error}");
    }
    let error = error_of(&mut top(&["https://box"]), 2);
    assert!(
        error.contains("URL=https://box: https is not spoken"),
        "{error}"
    );
}
