//! The commands of README's "More than one machine", run as they stand there but for addresses and the model.

use crate::child::{StatsFile, widen};
use crate::rpc::Server;
use crate::serving::{LlamaServer, prompts};
use std::collections::HashMap;
use std::path::Path;

/// Upstream's servers keep tensors of more than 10 MiB in files: an expert tensor is to be one.
const FACTOR: &str = "16";

/// The commands below a heading, without comments.
fn commands(heading: &str) -> Vec<Vec<String>> {
    let readme = include_str!("../../README.md");
    let (_, section) = readme.split_once(heading).expect("the heading");
    let (_, block) = section.split_once("```sh\n").expect("its commands");
    let (block, _) = block.split_once("```").expect("their end");
    let words = |line: &str| {
        let (line, _) = line.split_once(" #").unwrap_or((line, ""));
        line.split_whitespace().map(String::from).collect()
    };
    block.lines().map(words).collect()
}

/// What follows `option`.
fn value<'a>(command: &'a [String], option: &str) -> &'a str {
    let at = command.iter().position(|word| word == option);
    let value = at.and_then(|at| command.get(at + 1));
    value.unwrap_or_else(|| panic!("{option} in {command:?}"))
}

fn n_files(dir: &Path) -> usize {
    std::fs::read_dir(dir).map_or(0, |files| files.count())
}

#[test]
fn more_than_one_machine() {
    let dir = tempfile::tempdir().unwrap();
    let model = dir.path().join("model.gguf");
    widen(FACTOR, &model);

    let commands = commands("\n## More than one machine\n");
    let of = |program: &'static str| commands.iter().filter(move |c| c[0] == program);
    let cache = dir.path().join("cache");
    // By the address that README gives them.
    let servers: HashMap<String, Server> = of("ggml-rpc-server")
        .enumerate()
        .map(|(number, command)| {
            let address = format!("{}:{}", value(command, "-H"), value(command, "-p"));
            let rest: Vec<&str> = command[1..].iter().map(String::as_str).collect();
            let at = rest.iter().position(|word| *word == "-p").unwrap();
            assert_eq!(
                (rest[0], at),
                ("-H", 2),
                "the address comes first: {command:?}"
            );
            let cache = cache.join(number.to_string());
            (
                address,
                Server::start_with(&rest[4..], &[("LLAMA_CACHE", &cache)]),
            )
        })
        .collect();
    assert_eq!(servers.len(), 2);

    let mut texts = Vec::new();
    for command in of("llama-server") {
        let endpoints = value(command, "--rpc").split(',');
        let endpoints: Vec<_> = endpoints
            .map(|address| servers[address].endpoint())
            .collect();
        assert_eq!(endpoints.len(), servers.len());
        let mut args: Vec<&str> = command[1..].iter().map(String::as_str).collect();
        let endpoints = endpoints.join(",");
        let at = args
            .iter()
            .position(|word| *word == value(command, "--rpc"));
        args[at.unwrap()] = &endpoints;
        assert_eq!(args[..2], ["-m", "model.gguf"]);
        let file = StatsFile::new();
        let vars = [("HOTSET_STATS", &*file.path())];
        let server = LlamaServer::start(&model, &vars, &args[2..]);
        texts.push(server.tokens(&prompts()));
        let said = server.stop();
        let keeps = command.contains(&"--moe-cache-mib".to_string());
        if !keeps {
            continue;
        }
        let devices = file.read()["devices"].take();
        assert_eq!(devices.as_array().unwrap().len(), 2, "{devices:#} {said}");
    }
    assert_eq!(
        texts.len(),
        2,
        "with all weights on the hosts, and with experts kept there"
    );
    assert_eq!(texts[0], texts[1]);
    for number in ["0", "1"] {
        assert!(
            n_files(&cache.join(number).join("rpc")) > 0,
            "-c keeps large tensors"
        );
    }
}
