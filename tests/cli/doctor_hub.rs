//! `hotset doctor --hf`: models of a hub that a test makes, and of a cache.

use super::doctor::{doctor, json_of};
use super::{error_of, model};
use serde_json::Value as Json;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread;

/// Requests for files and parts of them: the path, and the range.
type Asked = Arc<Mutex<Vec<(String, Option<(u64, u64)>)>>>;

/// A hub with one repository of these files.
fn hub(files: Vec<(&'static str, PathBuf)>) -> (String, Asked) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let asked = Asked::default();
    let log = asked.clone();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let _ = answer(stream, &files, &log);
        }
    });
    (format!("http://{address}"), asked)
}

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

fn answer(mut stream: TcpStream, files: &[(&str, PathBuf)], log: &Asked) -> std::io::Result<()> {
    let (mut path, mut range) = (String::new(), None);
    for line in BufReader::new(stream.try_clone()?).lines() {
        let line = line?;
        if let Some(rest) = line.strip_prefix("GET ") {
            path = rest.split(' ').next().unwrap_or("").to_string();
        }
        if let Some(bytes) = line.to_lowercase().strip_prefix("range: bytes=") {
            let (first, last) = bytes.split_once('-').unwrap();
            range = Some((first.parse().unwrap(), last.parse().unwrap()));
        }
        if line.is_empty() {
            break;
        }
    }
    log.lock().unwrap().push((path.clone(), range));
    let resolve = format!("/me/m-GGUF/resolve/{COMMIT}/");
    let (status, header, body) = match path.as_str() {
        "/api/models/me/m-GGUF/refs" => {
            let text = format!(
                r#"{{"branches":[{{"name":"main","ref":"refs/heads/main","targetCommit":"{COMMIT}"}}]}}"#
            );
            (200, String::new(), text.into_bytes())
        }
        path if path == format!("/api/models/me/m-GGUF/tree/{COMMIT}?recursive=true") => {
            let of = |(name, _): &(&str, PathBuf)| {
                format!(r#"{{"type":"file","oid":"0","size":1,"path":"{name}"}}"#)
            };
            let list: Vec<_> = files.iter().map(of).collect();
            (
                200,
                String::new(),
                format!("[{}]", list.join(",")).into_bytes(),
            )
        }
        path => {
            let name = path.strip_prefix(&resolve).unwrap_or("");
            match (files.iter().find(|(known, _)| *known == name), range) {
                (Some((_, file)), Some((first, last))) => {
                    let bytes = fs::read(file)?;
                    let end = bytes.len().min(last as usize + 1);
                    let header = format!(
                        "Content-Range: bytes {first}-{}/{}\r\n",
                        end - 1,
                        bytes.len()
                    );
                    (206, header, bytes[first as usize..end].to_vec())
                }
                _ => (404, String::new(), Vec::new()),
            }
        }
    };
    let n = body.len();
    write!(
        stream,
        "HTTP/1.1 {status} X\r\n{header}Content-Length: {n}\r\nConnection: close\r\n\r\n"
    )?;
    stream.write_all(&body)
}

#[test]
fn a_model_of_the_hub_is_known_by_its_head_alone() {
    let files = vec![
        ("m-Q8_0.gguf", PathBuf::from(model())),
        ("mmproj-Q8_0.gguf", "Cargo.toml".into()),
    ];
    let (url, asked) = hub(files);
    let hub = |args: &[&str]| {
        let mut command = doctor(args);
        command.env("MODEL_ENDPOINT", &url);
        command
    };
    let there = json_of(&mut hub(&["--hf", "me/m-GGUF:q8_0", "--ram", "20%"]));
    let here = json_of(&mut doctor(&["-m", &model(), "--ram", "20%"]));
    assert_eq!(there["model"], here["model"]);
    assert_eq!(
        (&there["disk"], &there["source"]["path"]),
        (&Json::Null, &Json::Null)
    );
    assert_eq!(there["expect"]["disk_is_assumed"], true);
    let command = there["run"]["command"].as_str().unwrap();
    assert!(
        command.starts_with("hotset run --ram 20% -hf me/m-GGUF:q8_0 -c "),
        "{command}"
    );
    // No more than the beginning was downloaded.
    let ranges: Vec<_> = asked
        .lock()
        .unwrap()
        .iter()
        .filter_map(|(_, range)| *range)
        .collect();
    let most = ranges.iter().map(|(_, last)| last + 1).max();
    assert!(most <= Some(1 << 20) && ranges[0].0 == 0, "{ranges:?}");

    let error = error_of(&mut hub(&["--hf", "me/m-GGUF:IQ1_S"]), 2);
    assert!(
        error.contains("me/m-GGUF:IQ1_S") && error.contains("m-Q8_0.gguf"),
        "{error}"
    );
    let error = error_of(&mut hub(&["--hf", "me/other"]), 2);
    assert!(
        error.contains("404") && error.contains("me/other"),
        "{error}"
    );
    // Nobody listens there.
    let error = error_of(&mut doctor(&["--hf", "me/m-GGUF"]), 1);
    assert!(
        error.contains("http://127.0.0.1:9/") && error.contains("cannot be reached"),
        "{error}"
    );
}

#[test]
fn a_model_in_the_cache_is_not_asked_for() {
    let cache = tempfile::tempdir().unwrap();
    let place = cache.path().join("models--me--m-GGUF");
    let snapshot = place.join("snapshots").join(COMMIT);
    fs::create_dir_all(&snapshot).unwrap();
    fs::create_dir_all(place.join("refs")).unwrap();
    fs::write(place.join("refs/main"), COMMIT).unwrap();
    let file = snapshot.join("m-Q4_K_M.gguf");
    std::os::unix::fs::symlink(model(), &file).unwrap();
    let report = json_of(doctor(&["-hf", "me/m-GGUF"]).env("LLAMA_CACHE", cache.path()));
    assert_eq!(report["source"]["path"], file.to_str().unwrap());
    assert_ne!(report["disk"], Json::Null);
    assert!(
        report["run"]["command"]
            .as_str()
            .unwrap()
            .contains("-hf me/m-GGUF -c"),
        "{report}"
    );
}
