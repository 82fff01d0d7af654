//! llama-server with a device: requests that share batches, and speculative decoding.

use crate::child::{StatsFile, polyglot};
use crate::learning::counts;
use crate::rpc::Server;
use crate::serving::{LlamaServer, prompts};
use crate::tiny;
use hotset::policy::REGISTRY;
use hotset::profile::Profile;
use serde_json::{Value, json};
use std::path::Path;

const OFF: (&str, &str) = ("HOTSET", "off");
/// Which batches use the device must not depend on how long they take.
const ALWAYS: (&str, &str) = ("HOTSET_DEVICE_CACHE", "on");

/// Starts llama-server with the layers on a device and their experts in host memory.
fn start(device: &Server, model: &Path, vars: &[(&str, &str)], args: &[&str]) -> LlamaServer {
    let on_device = super::on_device(&device.endpoint());
    let on_device: Vec<_> = on_device.iter().map(String::as_str).collect();
    LlamaServer::start(model, vars, &[&on_device, args].concat())
}

#[test]
pub fn four_requests_at_a_time() {
    const ARGS: &[&str] = &["-np", "4", "-c", "2048", "--moe-cache-mib", "4"];
    let device = Server::start();
    let stock = start(&device, &polyglot(), &[OFF], ARGS);
    let alone = stock.tokens(&prompts());
    let together = stock.tokens_together(&prompts());
    stock.stop();

    let file = StatsFile::new();
    let vars = [ALWAYS, ("HOTSET_STATS", &file.path())];
    let server = start(&device, &polyglot(), &vars, ARGS);
    assert_eq!(server.tokens(&prompts()), alone);
    assert_eq!(server.tokens_together(&prompts()), together);
    // Which of these share a batch depends on timing, and with it the rounding: each is answered.
    std::thread::scope(|scope| {
        for prompt in prompts() {
            let server = &server;
            scope.spawn(move || server.complete(prompt));
        }
    });
    assert_eq!(server.tokens(&prompts()), alone);
    server.stop();
    let device = file.read()["devices"][0].take();
    let counter = |name: &str| device["generation"][name].as_u64().unwrap();
    let n_batches = counter("events") / 6;
    assert!(
        counter("tokens") > n_batches * 5 / 4,
        "batches are shared: {device:#}"
    );
    assert!(
        counter("hits") > 0 && counter("evictions") > 0,
        "{device:#}"
    );
}

/// What is shown of a device is what it has, and it follows each policy that is asked for, with the same tokens.
#[test]
fn a_device_is_shown_and_steered() {
    const ARGS: &[&str] = &["-np", "1", "-c", "512", "--moe-cache-mib", "4", "--metrics"];
    let device = Server::start();
    let vars = [ALWAYS, ("HOTSET_RAM", "50%")];
    let server = start(&device, &polyglot(), &vars, ARGS);
    let tokens = server.tokens(&prompts());
    for spec in REGISTRY {
        let body = json!({ "name": spec.name }).to_string();
        let (status, text) = server.http("/hotset/policy", Some(&body), None);
        assert_eq!(status, 200, "{text}");
        assert_eq!(server.tokens(&prompts()), tokens, "{}", spec.name);
        let stats = server.get("/hotset/stats");
        assert_eq!(stats[0]["devices"][0]["policy"], spec.name);
    }
    let stats = server.get("/hotset/stats");
    let shown = &stats[0]["devices"][0];
    let (_, metrics) = server.http("/metrics", None, None);
    let metric = |name: &str| -> f64 {
        let is_it = |line: &&str| line.starts_with(&format!("llamacpp:moe_cache_{name}{{device="));
        let line = metrics
            .lines()
            .find(is_it)
            .unwrap_or_else(|| panic!("no {name}: {metrics}"));
        line.rsplit(' ').next().unwrap().parse().unwrap()
    };
    let counted = |value: &Value| value.as_f64().unwrap();
    assert_eq!(metric("hits_total"), counted(&shown["generation"]["hits"]));
    assert_eq!(
        metric("misses_total"),
        counted(&shown["generation"]["misses"])
    );
    assert_eq!(
        metric("uploads_bytes_total"),
        counted(&shown["bytes_uploaded"])
    );
    assert_eq!(metric("slots_used"), counted(&shown["n_resident"]));
    assert_eq!((metric("learning"), metric("active")), (0.0, 1.0));
    let heat = server.get("/hotset/heat");
    let layers = heat[0]["layers"].as_array().unwrap().iter();
    let tiers: String = layers
        .map(|layer| layer["tier"].as_str().unwrap())
        .collect();
    assert_eq!(tiers.matches('g').count() as f64, metric("slots_used"));
    assert!(tiers.contains('m') && tiers.contains('d'), "{tiers}");
    server.stop();
}

const SPECULATIVE: &[&str] = &["-np", "1", "-c", "512", "--spec-type", "draft-simple"];

/// The answer to `prompt`, and what was learnt.
fn speculate(
    device: &Server,
    [model, draft]: [&Path; 2],
    vars: &[(&str, &str)],
    cache: &[&str],
    prompt: &Value,
) -> (Value, Option<Profile>) {
    let dir = tempfile::tempdir().unwrap();
    let profile = dir.path().join("learnt.json");
    let vars = [vars, &[("HOTSET_PROFILE_SAVE", profile.to_str().unwrap())]].concat();
    let args = [SPECULATIVE, &["-md", draft.to_str().unwrap()], cache].concat();
    let server = start(device, model, &vars, &args);
    let answer = server.complete(prompt.clone());
    server.stop();
    (
        answer,
        profile.exists().then(|| Profile::read(&profile).unwrap()),
    )
}

/// Drafts that are rejected are computed on the device, but teach nothing: what is learnt is what is learnt of
/// the same drafts without a cache on the device.
#[test]
fn rejected_drafts() {
    const CACHE: &[&str] = &["--moe-cache-mib", "4"];
    let dir = tempfile::tempdir().unwrap();
    let model = tiny::write(&tiny::all()[0], dir.path());
    let draft = tiny::write(&tiny::dense(), dir.path());
    let models = [model.as_path(), &draft];
    let prompt = json!((0..48).map(|i| i * 5 % 256).collect::<Vec<_>>());
    let device = Server::start();
    let (stock, nothing) = speculate(&device, models, &[OFF], CACHE, &prompt);
    assert!(nothing.is_none());
    let (_, beside) = speculate(&device, models, &[], &[], &prompt);
    let file = StatsFile::new();
    let vars = [ALWAYS, ("HOTSET_STATS", &file.path())];
    let (answer, learnt) = speculate(&device, models, &vars, CACHE, &prompt);
    assert_eq!(answer["tokens"], stock["tokens"]);
    let timing = |name: &str| answer["timings"][name].as_u64().unwrap();
    let n_rejected = timing("draft_n") - timing("draft_n_accepted");
    assert!(n_rejected > 10, "{answer:#}");

    let (learnt, beside) = (learnt.unwrap(), beside.unwrap());
    assert_eq!(learnt.tokens, beside.tokens);
    assert!(counts(&learnt) == counts(&beside));
    let devices = file.read()["devices"].take();
    let n_planned = devices[0]["generation"]["tokens"].as_u64();
    assert!(
        n_planned > Some(learnt.tokens.generation),
        "rejected ones were computed: {devices:#}"
    );
    assert_eq!(devices.as_array().unwrap().len(), 1, "{devices:#}");
    assert_eq!(devices[0]["n_layers"], 3, "{devices:#}");
    assert!(
        devices[0]["generation"]["hits"].as_u64() > Some(0),
        "{devices:#}"
    );
}

/// A draft model with experts of its own, which guesses right because it is the same model.
#[test]
pub fn accepted_drafts() {
    let dir = tempfile::tempdir().unwrap();
    let draft = dir.path().join("draft.gguf");
    std::fs::copy(polyglot(), &draft).unwrap();
    let device = Server::start();
    let args = ["--moe-cache-mib", "4", "-md", draft.to_str().unwrap()];
    let args = [SPECULATIVE, &args].concat();
    let stock = start(&device, &polyglot(), &[OFF], &args);
    let right = stock.tokens(&prompts());
    stock.stop();
    let file = StatsFile::new();
    let vars = [ALWAYS, ("HOTSET_STATS", &file.path())];
    let server = start(&device, &polyglot(), &vars, &args);
    let answer = server.complete(prompts()[0].clone());
    let n_accepted = answer["timings"]["draft_n_accepted"].as_u64();
    assert!(n_accepted > Some(0), "{answer:#}");
    assert_eq!(server.tokens(&prompts()), right);
    server.stop();
    let all = file.read_all();
    let with_device = all
        .iter()
        .filter(|stats| stats["devices"][0]["n_layers"] == 6);
    assert_eq!(
        with_device.count(),
        1,
        "upstream gives a draft model no cache: {all:#?}"
    );
}
