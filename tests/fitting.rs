//! `hotset run` when nobody has said what is to stream: what fits in memory is loaded as usual, what does not is streamed.

#![cfg(all(feature = "llama", feature = "cli"))]

mod child;
mod serving;
mod tiny;

use child::{Ended, StatsFile, command, completion, polyglot, run, said};
use serde_json::{Value, json};
use serving::{LlamaServer, prompts};
use std::path::Path;
use std::process::Command;

const FITS: &str = " fits in memory and is loaded as usual, nothing is streamed: weights ";
const STREAMS: &str = " does not fit in memory, so its experts are streamed: weights ";
/// No memory holds what llama.cpp would compute at once: it takes no more than the context in the end.
const LARGE: [&str; 2] = ["-ub", "1000000000"];

/// `hotset` with these arguments, as somebody runs it whose data is in `data`.
fn hotset(data: &Path, vars: &[(&str, &str)], args: &[&str]) -> Command {
    let mut command = command(env!("CARGO_BIN_EXE_hotset"), &[]);
    command.env_remove("HOTSET_PROFILE");
    command.env("XDG_DATA_HOME", data.join("share"));
    command.envs(vars.iter().copied()).args(args);
    command
}

/// The arguments of a short text, of which all but the first are the program's.
fn text(args: &[&str]) -> Vec<String> {
    let like = completion(&polyglot(), &[], &["-n", "8"]);
    let program = like.get_args().map(|arg| arg.to_str().unwrap());
    args.iter()
        .copied()
        .chain(program)
        .map(str::to_string)
        .collect()
}

fn complete(data: &Path, vars: &[(&str, &str)], args: &[&str]) -> Ended {
    let mut command = hotset(data, vars, &[]);
    command.args(text(args));
    run(command)
}

fn lines<'a>(stderr: &'a str, part: &str) -> Vec<&'a str> {
    let ours = said(stderr).into_iter();
    ours.filter(|line| line.contains(part)).collect()
}

#[test]
fn what_fits_is_loaded_as_usual_and_what_does_not_is_streamed() {
    let data = tempfile::tempdir().unwrap();
    let stats = StatsFile::new();
    let vars: [(&str, &str); 1] = [("HOTSET_STATS", &stats.path())];
    let off = complete(data.path(), &[], &["run", "--off", "--tool", "completion"]);
    assert_eq!(off.said(), [""; 0]);

    let whole = complete(data.path(), &vars, &["completion"]);
    assert_eq!(whole.text(), off.text());
    // One line, no counters, and nothing is learnt.
    assert_eq!(whole.said().len(), 1, "{}", whole.stderr);
    assert_eq!(lines(&whole.stderr, FITS).len(), 1, "{}", whole.stderr);
    assert!(whole.said()[0].contains("(512 tokens)"), "{}", whole.stderr);
    assert!(!Path::new(&stats.path()).exists());
    assert!(!data.path().join("share").exists());

    let args = [&["llama-completion"][..], &LARGE].concat();
    let streamed = complete(data.path(), &vars, &args);
    assert_eq!(streamed.text(), off.text());
    assert_eq!(
        lines(&streamed.stderr, STREAMS).len(),
        1,
        "{}",
        streamed.stderr
    );
    assert!(
        streamed.stderr.contains("hotset: 6 layers stream"),
        "{}",
        streamed.stderr
    );
    assert!(child::count(&stats.read(), "hits") > 0);
    // It starts warm the next time.
    assert!(data.path().join("share/hotset/profiles").exists());
}

#[test]
fn whoever_says_something_is_listened_to() {
    let data = tempfile::tempdir().unwrap();
    let streams = |vars: &[(&str, &str)], args: &[&str]| {
        let ended = complete(data.path(), vars, args);
        ended.text();
        let ours = ended.said().join("\n");
        assert!(!ours.contains(FITS) && !ours.contains(STREAMS), "{ours}");
        ours.contains("layers stream")
    };
    assert!(streams(&[("HOTSET_RAM", "50%")], &["completion"]));
    assert!(streams(&[("HOTSET_RAM", "auto")], &["completion"]));
    // An option of hotset behind those of the program.
    assert!(streams(
        &[],
        &["run", "-s", "7", "--ram", "40%", "--tool=completion"]
    ));
    assert!(!streams(&[("HOTSET", "off")], &["completion"]));
    // Upstream's own programs stay as they are.
    let plain = run(completion(&polyglot(), &[], &["-n", "2"]));
    assert_eq!(plain.said(), [""; 0]);
    let vars = [("HOTSET_RAM", "if-needed")];
    let asked = run(completion(&polyglot(), &vars, &["-n", "2"]));
    assert_eq!(lines(&asked.stderr, FITS).len(), 1, "{}", asked.stderr);
}

#[test]
fn a_model_without_experts_and_one_that_is_loaded_again() {
    let data = tempfile::tempdir().unwrap();
    let dense = tiny::write(&tiny::dense(), data.path());
    let bench = |model: &Path, more: &[&str]| {
        let mut command = hotset(data.path(), &[], &["llama-bench", "-m"]);
        command
            .arg(model)
            .args(["-p", "8,16", "-n", "4", "-r", "1", "-t", "2"])
            .args(more);
        let ended = run(command);
        ended.text();
        ended
    };
    let ended = bench(&dense, &[]);
    assert_eq!(
        ended.said(),
        ["hotset: nothing is streamed: the model has no experts"]
    );
    // However often it is loaded.
    let ended = bench(&polyglot(), &["-ngl", "0,1"]);
    assert_eq!(ended.said().len(), 1, "{}", ended.stderr);
    assert_eq!(lines(&ended.stderr, FITS).len(), 1, "{}", ended.stderr);
}

/// A server with a draft model, of which both have experts.
#[test]
fn a_server_and_its_draft_model() {
    let data = tempfile::tempdir().unwrap();
    let draft = data.path().join("draft.gguf");
    std::fs::copy(polyglot(), &draft).unwrap();
    let model = polyglot();
    let args = [
        "-np",
        "1",
        "-c",
        "512",
        "--spec-type",
        "draft-simple",
        "-md",
        draft.to_str().unwrap(),
    ];
    let start = |command: &[&str], more: &[&str]| {
        let mut server = hotset(data.path(), &[], command);
        server.arg("-m").arg(&model).args(args).args(more);
        let server = LlamaServer::start_with(server, &[]);
        let tokens = server.tokens(&prompts());
        (tokens, server.end())
    };
    let (right, off) = start(&["server", "--off"], &[]);
    assert_eq!(off.said(), [""; 0]);
    let (tokens, ended) = start(&["server"], &[]);
    assert_eq!(tokens, right);
    // Both are of one name, and are said of once.
    assert_eq!(lines(&ended.stderr, FITS).len(), 1, "{}", ended.stderr);
    let (tokens, ended) = start(&["server"], &LARGE);
    assert_eq!(tokens, right);
    assert_eq!(
        lines(&ended.stderr, "layers stream").len(),
        2,
        "{}",
        ended.stderr
    );
}

/// The processes that a router starts are told what was not said.
#[test]
fn models_of_a_router() {
    let data = tempfile::tempdir().unwrap();
    let models = data.path().join("models");
    std::fs::create_dir(&models).unwrap();
    std::fs::copy(polyglot(), models.join("polyglot-moe.gguf")).unwrap();
    let mut router = hotset(data.path(), &[], &["server", "--models-dir"]);
    router.arg(&models);
    let server = LlamaServer::start_with(router, &["-c", "512"]);
    let answer: Value = server.complete(json!("Il sistema"));
    assert!(!answer["tokens"].as_array().unwrap().is_empty());
    // The router passes on what they say.
    let ended = server.end();
    let said = String::from_utf8_lossy(&ended.stdout) + ended.stderr.as_str();
    assert_eq!(lines(&said, FITS).len(), 1, "{said}");
}
