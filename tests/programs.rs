//! The programs a user runs give the same text with streamed experts as without hotset.

#![cfg(all(feature = "llama", feature = "cli"))]

mod child;
mod serving;
mod tiny;

use child::{PROMPT, Running, StatsFile, command, completion, count, polyglot, run};
use hotset::trace::Trace;
use serde_json::{Value, json};
use serving::{LlamaServer, prompts};
use std::path::Path;

const OFF: (&str, &str) = ("HOTSET", "off");
const RAM: (&str, &str) = ("HOTSET_RAM", "30%");

#[test]
fn completion_gives_the_same_text() {
    for sampling in [&["--temp", "0"][..], &[]] {
        // The prompt takes two ubatches, of which the first is a scan.
        let args = [sampling, &["-ub", "40"]].concat();
        let stock = run(completion(&polyglot(), &[OFF], &args));
        let stats = StatsFile::new();
        let vars = [RAM, ("HOTSET_STATS", &stats.path())];
        let streamed = run(completion(&polyglot(), &vars, &args));
        assert_eq!(streamed.text(), stock.text(), "{sampling:?}");
        let stats = stats.read_streamed();
        assert_eq!(stats["prompt"]["tokens"], 40, "{stats:#}");
        assert!(
            stats["generation"]["tokens"].as_u64() >= Some(47),
            "{stats:#}"
        );
        assert_eq!(streamed.said().len(), 1, "{}", streamed.stderr);
    }
}

#[test]
fn off_and_unset_are_silent() {
    let stats = StatsFile::new();
    let json = stats.path();
    let off = run(completion(
        &polyglot(),
        &[OFF, RAM, ("HOTSET_STATS", &json)],
        &[],
    ));
    let unset = run(completion(&polyglot(), &[("HOTSET_STATS", &json)], &[]));
    assert_eq!(off.text(), unset.text());
    for ended in [off, unset] {
        assert_eq!(ended.said(), [""; 0]);
    }
    assert!(!Path::new(&json).exists());
    // The table goes where the silence was.
    let on = run(completion(&polyglot(), &[RAM], &[]));
    assert!(!on.said().is_empty() && on.stderr.contains("experts routed"));
}

/// The warm-up of a program must neither be counted nor decide what stays in memory.
#[test]
fn warm_up_is_not_counted() {
    let tally = |args: &[&str]| {
        let stats = StatsFile::new();
        // What is read ahead in time is decided by the clock, and so would be the evictions.
        let vars = [
            RAM,
            ("HOTSET_STATS", &stats.path()),
            ("HOTSET_PREFETCH", "off"),
        ];
        let args = [&["-p", "a", "-n", "8"], args].concat();
        run(completion(&polyglot(), &vars, &args)).text();
        stats.read()["generation"].take()
    };
    let without = tally(&["--no-warmup"]);
    assert_eq!(
        without["tokens"], 8,
        "one of the prompt, and the last is not computed: {without:#}"
    );
    assert_eq!(tally(&[]), without);
}

#[test]
fn server_answers_alone_and_together() {
    const ARGS: &[&str] = &["-np", "4", "-c", "2048"];
    let stock = LlamaServer::start(&polyglot(), &[OFF], ARGS);
    let right = stock.tokens(&prompts());
    stock.stop();

    let stats = StatsFile::new();
    let server = LlamaServer::start(&polyglot(), &[RAM, ("HOTSET_STATS", &stats.path())], ARGS);
    assert_eq!(server.tokens(&prompts()), right);
    // Which sequences share a batch depends on timing, and with it the rounding, stock or not: only
    // that each is answered can be said.
    std::thread::scope(|scope| {
        for prompt in prompts() {
            let server = &server;
            scope.spawn(move || server.complete(prompt));
        }
    });
    // Alone again: what they left behind is sound.
    assert_eq!(server.tokens(&prompts()), right);
    server.stop();
    stats.read_streamed();
}

/// A server that loads models by name starts its own program again for each: `hotset`, with the
/// options it was given.
#[test]
fn server_that_routes_between_models() {
    let right = {
        let stock = LlamaServer::start(&polyglot(), &[OFF], &[]);
        let right = stock.tokens(&prompts());
        stock.stop();
        right
    };
    let models = tempfile::tempdir().unwrap();
    std::fs::copy(polyglot(), models.path().join("polyglot-moe.gguf")).unwrap();
    let stats = StatsFile::new();
    let mut router = command(
        env!("CARGO_BIN_EXE_hotset"),
        &[("HOTSET_STATS", &stats.path())],
    );
    router.args("run --tool server --ram 30% --policy lru -- --models-dir".split(' '));
    router.arg(models.path());
    let server = LlamaServer::start_with(router, &[]);
    assert_eq!(server.tokens(&prompts()), right);
    server.stop();
    assert_eq!(
        stats.of_child("polyglot-moe").read_streamed()["policy"],
        "lru"
    );
}

const SPECULATIVE: &[&str] = &["-np", "1", "-c", "512", "--spec-type", "draft-simple"];

/// A draft model that has no experts and guesses wrong.
#[test]
fn rejected_drafts() {
    let dir = tempfile::tempdir().unwrap();
    let target = tiny::write(&tiny::all()[0], dir.path());
    let draft = tiny::write(&tiny::dense(), dir.path());
    let args = [SPECULATIVE, &["-md", draft.to_str().unwrap()]].concat();
    let prompt = json!((0..48).map(|i| i * 5 % 256).collect::<Vec<_>>());
    let complete = |vars: &[(&str, &str)]| {
        let server = LlamaServer::start(&target, vars, &args);
        let answer = server.complete(prompt.clone());
        server.stop();
        answer
    };
    let stock = complete(&[OFF]);
    let stats = StatsFile::new();
    let streamed = complete(&[RAM, ("HOTSET_STATS", &stats.path())]);
    assert_eq!(streamed["tokens"], stock["tokens"]);
    let timing = |name: &str| streamed["timings"][name].as_u64().unwrap();
    assert!(
        timing("draft_n_accepted") < timing("draft_n"),
        "{streamed:#}"
    );

    let stats = stats.read_streamed();
    assert_eq!(stats["model"].as_str(), target.to_str());
    assert_eq!(stats["n_experts"], 3 * 32);
}

/// A draft model with experts of its own, which guesses right because it is the same model.
#[test]
fn accepted_drafts() {
    let dir = tempfile::tempdir().unwrap();
    let draft = dir.path().join("draft.gguf");
    std::fs::copy(polyglot(), &draft).unwrap();
    let args = [SPECULATIVE, &["-md", draft.to_str().unwrap()]].concat();
    let stock = LlamaServer::start(&polyglot(), &[OFF], &args);
    let right = stock.tokens(&prompts());
    stock.stop();
    let stats = StatsFile::new();
    let server = LlamaServer::start(&polyglot(), &[RAM, ("HOTSET_STATS", &stats.path())], &args);
    assert_eq!(server.tokens(&prompts()), right);
    let answer = server.complete(PROMPT.into());
    let n_accepted = answer["timings"]["draft_n_accepted"].as_u64();
    assert!(n_accepted > Some(0), "{answer:#}");
    server.stop();
    let mut models: Vec<String> = Vec::new();
    for stats in stats.read_all() {
        assert!(count(&stats, "hits") > 0, "{stats:#}");
        assert!(count(&stats, "evictions") > 0, "{stats:#}");
        models.push(stats["model"].as_str().unwrap().into());
    }
    models.sort();
    let mut loaded = [draft, polyglot()].map(|path| path.to_str().unwrap().to_string());
    loaded.sort();
    assert_eq!(models, loaded, "each model has counters of its own");
}

#[test]
fn bench_measures() {
    let stats = StatsFile::new();
    let vars = [RAM, ("HOTSET_STATS", &stats.path())];
    let mut command = command(env!("CARGO_BIN_EXE_llama-bench"), &vars);
    command.arg("-m").arg(polyglot());
    let ended = run({
        command.args([
            "-p", "64", "-n", "8", "-r", "2", "-t", "2", "-ngl", "0", "-o", "json",
        ]);
        command
    });
    let results: Value = serde_json::from_str(&ended.text()).unwrap();
    let sizes: Vec<_> = [0, 1]
        .map(|i| (&results[i]["n_prompt"], &results[i]["n_gen"]))
        .into();
    assert_eq!(
        sizes,
        [(&json!(64), &json!(0)), (&json!(0), &json!(8))],
        "{results:#}"
    );
    let stats = stats.read_streamed();
    assert!(count(&stats, "hits") > 0);
}

#[test]
fn perplexity_is_the_same() {
    let text = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/expert.rs");
    let estimate = |vars: &[(&str, &str)]| {
        let mut command = command(env!("CARGO_BIN_EXE_llama-perplexity"), vars);
        command.arg("-m").arg(polyglot()).arg("-f").arg(&text);
        command.args(["-c", "128", "-b", "128", "--chunks", "3", "-t", "2"]);
        command.args(["--n-gpu-layers", "0", "--no-repack"]);
        let ended = run(command);
        let all = ended.text().into_owned() + &ended.stderr;
        let line = all
            .lines()
            .find_map(|l| l.split_once("Final estimate: PPL = "));
        line.unwrap_or_else(|| panic!("no estimate in:\n{all}"))
            .1
            .to_string()
    };
    let stats = StatsFile::new();
    let streamed = estimate(&[RAM, ("HOTSET_STATS", &stats.path())]);
    assert_eq!(streamed, estimate(&[OFF]));
    let stats = stats.read();
    assert_eq!(stats["prompt"]["tokens"], 3 * 128, "{stats:#}");
    // A scan evicts nothing: what does not fit passes through the ring.
    assert!(stats["prompt"]["staged"].as_u64() > Some(0), "{stats:#}");
}

/// It ends itself in a handler, without returning or calling exit.
#[test]
fn completion_that_is_interrupted_reports() {
    #![allow(unsafe_code)]
    let stats = StatsFile::new();
    let dir = tempfile::tempdir().unwrap();
    let trace = dir.path().join("run.trace.gz");
    let vars = [
        RAM,
        ("HOTSET_STATS", &stats.path()),
        ("HOTSET_TRACE", trace.to_str().unwrap()),
    ];
    let endless = ["-n", "30000", "-c", "32768"];
    let mut running = Running::start(completion(&polyglot(), &vars, &endless));
    running.wait_until("tokens", |r| r.stdout().len() > 200);
    // SAFETY: a plain system call; the process is ours and has not been waited for.
    unsafe { libc::kill(running.id() as i32, libc::SIGINT) };
    let ended = running.wait();
    assert_eq!(ended.code(), 130, "{}", ended.stderr);
    let n_tokens = count(&stats.read(), "tokens");
    assert!(n_tokens > 40, "{n_tokens}");
    let recorded = Trace::open(&trace, u32::MAX).unwrap().n_tokens();
    assert!((n_tokens..n_tokens + 2).contains(&u64::from(recorded)));
}
