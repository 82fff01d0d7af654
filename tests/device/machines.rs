//! The commands of docs/machines.md, run as they stand there but for addresses and the model.

use crate::child::{self, StatsFile, completion};
use crate::rpc::Server;
use crate::serving::{LlamaServer, prompts};
use crate::tiny::{self, Arch, Spec, Type};
use std::collections::HashMap;
use std::path::Path;

/// Of a type that llama.cpp repacks for processors, unless it is told not to. Upstream's servers keep tensors of more than
/// 10 MiB in files: an expert tensor is to be one.
const LARGE: Spec = Spec {
    name: "model",
    arch: Arch::Qwen3Moe,
    n_layer: 3,
    n_embd: 256,
    n_expert: 64,
    top_k: 4,
    n_ff: 1280,
    types: &[[Type::Q4K; 3]],
    seed: 12,
    splits: 1,
};

/// The commands of the page, without comments.
fn commands() -> Vec<Vec<String>> {
    let page = include_str!("../../docs/machines.md");
    let (_, block) = page.split_once("```sh\n").expect("its commands");
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
    let model = tiny::write(&LARGE, dir.path());

    let commands = commands();
    let of = |program: &'static str| commands.iter().filter(move |c| c[0] == program);
    let cache = dir.path().join("cache");
    // By the address that the page gives them.
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
        // Undoes what other tests want; what the page says comes after it.
        let args = [&["--repack"], &args[2..]].concat();
        let server = LlamaServer::start(&model, &vars, &args);
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

/// The lines of a run with a cache that are about what is repacked.
fn said_of_repacked(spec: &Spec, more: &[&str]) -> Vec<String> {
    let dir = tempfile::tempdir().unwrap();
    let model = tiny::write(spec, dir.path());
    let device = Server::start();
    let on_device = super::on_device(&device.endpoint());
    let on_device: Vec<_> = on_device.iter().map(String::as_str).collect();
    let args = ["-n", "2", "--moe-cache-mib", "64", "--repack"];
    let args = [&on_device, &args[..], more].concat();
    let ended = child::run(completion(&model, &[], &args));
    assert_eq!(ended.code(), 0, "{}", ended.stderr);
    let mut lines = ended.said();
    lines.retain(|line| line.contains("(--no-repack)"));
    lines.into_iter().map(String::from).collect()
}

#[test]
fn what_is_repacked_is_not_kept_and_a_line_says_so() {
    if super::gpu::is_meant() {
        return;
    }
    let all = Spec {
        n_expert: 16,
        n_ff: 256,
        ..LARGE
    };
    assert_eq!(
        said_of_repacked(&all, &[]),
        [
            "hotset: no experts are kept on a device: no layer has all of its experts in host memory, those of 3 are \
             repacked for the processor (--no-repack)"
        ]
    );
    assert!(said_of_repacked(&all, &["--no-repack"]).is_empty());
    // One layer as a whole, of another one part.
    let some = Spec {
        types: &[
            [Type::Q8_0; 3],
            [Type::Q4K; 3],
            [Type::Q8_0, Type::Q8_0, Type::Q4K],
        ],
        ..all
    };
    let line = |block| {
        format!(
            "hotset: no device keeps experts of block {block}: they are repacked for the processor (--no-repack)"
        )
    };
    let mut said = said_of_repacked(&some, &[]);
    said.sort();
    assert_eq!(said, [line(1), line(2)]);
}
