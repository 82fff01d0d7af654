//! A recording is what was computed: replayed with what its header says, it gives the counters of the
//! run to the unit, whatever the policy; and it does not change what is computed.

#![cfg(all(feature = "llama", feature = "cli"))]

mod child;
mod runner;
mod serving;
mod tiny;

use child::{Running, completion, polyglot};
use flate2::read::MultiGzDecoder;
use hotset::config::{Config, Ram, Repack, StatsTo};
use hotset::expert::Shape;
use hotset::llama;
use hotset::policy::{self, REGISTRY};
use hotset::profile::Profile;
use hotset::residency::{Buffers, Counts, Residency};
use hotset::stats::Stats;
use hotset::trace::{Header, PoolSpec, Trace};
use runner::{Options, Runner, take_hook, tokens};
use serving::LlamaServer;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// Tokens of [`Bench::run`].
const N_TOKENS: u32 = 8 + 80 + 6 * 4 + 7 + 8;

/// A folder with one model and room for recordings.
struct Bench {
    dir: TempDir,
    model: PathBuf,
}

impl Bench {
    fn new(spec: &tiny::Spec) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let model = tiny::write(spec, dir.path());
        Self { dir, model }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The logits of prompts, generation and four sequences at once in turn; and the counters. No batch
    /// looks like drafts: what is rejected is recorded, but the policy does not hear of it.
    fn run(&self, config: Option<&Config>) -> (Vec<u32>, Option<Stats>) {
        let _hook = take_hook(config);
        let options = Options {
            n_threads: 1,
            n_batch: 200,
            n_ubatch: 60,
            n_seq: 4,
            repacks: config.is_some_and(|config| config.repack == Repack::On),
            ..Options::default()
        };
        let mut runner = Runner::load(&self.model, options).expect("the model loads");
        let given = tokens(N_TOKENS as usize, tiny::N_VOCAB);
        let mut given = given.as_slice();
        let mut next = |n: usize| given.split_off(..n).expect("there are enough");
        let mut logits = Vec::new();
        (0..8).for_each(|_| runner.decode(next(1), &mut logits));
        // A scan, and what is left of it, which is none.
        runner.read(next(80));
        (0..6).for_each(|_| runner.decode(next(4), &mut logits));
        runner.read(next(7));
        (0..8).for_each(|_| runner.decode(next(1), &mut logits));
        (logits, llama::stats().pop())
    }
}

fn recording(path: &Path, ram: Option<Ram>, policy: &str) -> Config {
    Config {
        ram,
        policy: policy.to_string(),
        stats: StatsTo::Off,
        trace: Some(path.to_path_buf()),
        // What is read ahead depends on time, which a recording does not hold.
        prefetch: false,
        ..Config::default()
    }
}

/// All text of a file, or what there is of one that ends early.
fn text(path: &Path) -> String {
    let mut bytes = Vec::new();
    let file = File::open(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let _ = MultiGzDecoder::new(file).read_to_end(&mut bytes);
    String::from_utf8(bytes).unwrap()
}

/// The counters of the run that was recorded, computed from the recording alone.
fn replay(path: &Path, policy: &str) -> Counts {
    let trace = Trace::open(path, u32::MAX).unwrap();
    let mut all = Counts::default();
    for pool in &trace.header().pools {
        let counts = replay_pool(&trace, pool, policy);
        all.decode.add(&counts.decode);
        all.prefill.add(&counts.prefill);
    }
    all
}

fn replay_pool(trace: &Trace, pool: &PoolSpec, policy: &str) -> Counts {
    let header = trace.header();
    let n_experts = vec![header.n_experts; pool.layers.len()];
    let layers = pool.layers.iter();
    let bytes: Vec<_> = layers.map(|&l| header.expert_bytes[l as usize]).collect();
    let shape = Shape::with_bytes(&n_experts, &bytes);
    let policy = policy::by_name(policy, &shape).unwrap();
    let mut residency = Residency::new(shape, pool.n_slots, policy);
    if pool.preloaded {
        residency.fill_free(0..residency.shape().n_total());
    }
    let mut buffers = Buffers::default();
    for (_, mut event) in trace.events() {
        let Ok(layer) = pool.layers.binary_search(&event.layer) else {
            continue;
        };
        event.layer = layer as u32;
        let planned = residency.plan(&event, buffers).unwrap();
        let committed = residency.commit(planned);
        buffers = residency.release(committed);
    }
    residency.counts()
}

/// Records a run with this share of the experts in memory, and replays it.
fn assert_replays(spec: &tiny::Spec, policy: &str, percent: f64, n_pools: usize, repack: Repack) {
    let what = format!("{} {policy} {percent} %", spec.name);
    let bench = Bench::new(spec);
    let path = bench.file("run.trace.gz");
    let mut config = recording(&path, Some(Ram::Percent(percent)), policy);
    config.repack = repack;
    let (_, stats) = bench.run(Some(&config));
    let stats = stats.expect("experts were streamed");
    assert_eq!(stats.is_repacked, repack == Repack::On, "{what}");
    let is_streamed = percent < 100.0;
    assert_eq!(stats.generation.evictions > 0, is_streamed, "{what}");
    assert_eq!(stats.prompt.staged > 0, is_streamed, "{what}");

    let counts = replay(&path, policy);
    assert_eq!(counts.decode, stats.generation, "{what}");
    assert_eq!(counts.prefill, stats.prompt, "{what}");
    let header = Trace::open(&path, 0).unwrap().header().clone();
    assert_eq!(header.pools.len(), n_pools, "{what}");
    let n_slots: u32 = header.pools.iter().map(|p| p.n_slots).sum();
    assert_eq!(n_slots, stats.n_slots, "{what}");
}

/// One pool; two; and three, one for each layer, of a model in three files.
#[test]
fn replaying_gives_the_counters_of_the_run() {
    let all = tiny::all();
    for policy in REGISTRY {
        assert_replays(&all[1], policy.name, 12.0, 1, Repack::Off);
        assert_replays(&all[0], policy.name, 30.0, 2, Repack::Off);
        assert_replays(&all[7], policy.name, 30.0, 3, Repack::Off);
    }
}

/// Of experts that are repacked, too.
#[test]
fn replaying_what_was_computed_repacked() {
    let all = tiny::repacked();
    for policy in REGISTRY {
        assert_replays(&all[0], policy.name, 30.0, 1, Repack::On);
    }
    assert_replays(&all[3], "lru", 30.0, 2, Repack::On);
    assert_replays(&all[3], "lru", 100.0, 2, Repack::On);
}

/// What is read at the start are hits, in the recording too.
#[test]
fn replaying_a_run_that_held_everything() {
    let all = tiny::all();
    assert_replays(&all[0], "lru", 100.0, 2, Repack::Off);
}

/// Every architecture: what is recorded without streaming is what was recorded with it, and neither
/// changes a bit of the output.
#[test]
fn recording_changes_nothing() {
    for spec in tiny::all() {
        let bench = Bench::new(&spec);
        let (stock, _) = bench.run(None);
        let [alone, streamed] = ["alone", "streamed"].map(|n| bench.file(&format!("{n}.trace.gz")));
        let (logits, none) = bench.run(Some(&recording(&alone, None, "lru")));
        assert!(none.is_none(), "nothing is streamed");
        assert!(logits == stock, "{}", spec.name);
        let config = recording(&streamed, Some(Ram::Percent(30.0)), "lru");
        assert!(bench.run(Some(&config)).0 == stock, "{}", spec.name);

        let header = |path: &Path| Trace::open(path, 0).unwrap().header().clone();
        let n_layers = (spec.n_layer - spec.arch.n_layer_dense()) as u32;
        let expected = Header {
            n_layers,
            n_experts: spec.n_expert as u32,
            top_k: spec.top_k as u32,
            phase: Some("mixed".to_string()),
            ranked: true,
            batched: true,
            expert_bytes: header(&streamed).expert_bytes,
            ..Header::default()
        };
        assert_eq!(expected.expert_bytes.len(), n_layers as usize);
        assert_eq!(header(&alone), expected, "{}", spec.name);
        let lines = |path: &Path| text(path).split_once('\n').unwrap().1.to_string();
        assert_eq!(lines(&alone), lines(&streamed), "{}", spec.name);
        assert_tokens(&alone, &spec);
    }
}

/// Every token has `top_k` experts in every layer, apart from those of prompts, of which the last
/// layer computes no more than was asked for.
fn assert_tokens(path: &Path, spec: &tiny::Spec) {
    let trace = Trace::open(path, u32::MAX).unwrap();
    assert_eq!(trace.n_tokens(), N_TOKENS);
    let n_layers = trace.header().n_layers;
    for layer in 0..n_layers {
        let events = || trace.events().filter(|(_, e)| e.layer == layer);
        let n: u32 = events().map(|(_, e)| e.n_tokens).sum();
        let is_last = layer + 1 == n_layers;
        let n_left_out = if is_last { 79 + 6 } else { 0 };
        assert_eq!(n, N_TOKENS - n_left_out, "{} layer {layer}", spec.name);
        for (token, event) in events() {
            let rows: u32 = event.rows.iter().sum();
            assert_eq!(rows, event.n_tokens * spec.top_k as u32, "token {token}");
        }
    }
}

/// Two models of one process, one of which streams nothing because the other has all of the budget.
#[test]
fn each_model_has_a_file_of_its_own() {
    /// A few experts: less than the ring that lies beside them.
    const FEW: Ram = Ram::Bytes(256 << 10);
    let [bench, other] = [0, 1].map(|i| Bench::new(&tiny::all()[i]));
    let path = bench.file("run.trace.gz");
    let mut config = recording(&path, Some(FEW), "lru");
    for (ram, n_pools) in [(FEW, 0), (Ram::Percent(30.0), 1)] {
        config.ram = Some(ram);
        let _hook = take_hook(Some(&config));
        let load = |path| Runner::load(path, Options::default()).expect("the model loads");
        let (mut a, mut b) = (load(&bench.model), load(&other.model));
        let given = tokens(4, tiny::N_VOCAB);
        a.decode(&given, &mut Vec::new());
        b.decode(&given[..3], &mut Vec::new());
        drop(a);
        b.decode(&given[3..], &mut Vec::new());
        drop(b);
        let second = Trace::open(&bench.file("run.2.trace.gz"), u32::MAX).unwrap();
        assert_eq!(Trace::open(&path, u32::MAX).unwrap().n_tokens(), 4);
        assert_eq!(second.n_tokens(), 4);
        assert_eq!(second.header().n_experts, 16);
        assert_eq!(second.header().pools.len(), n_pools, "{ram:?}");
    }
}

/// The lines of `layer`.
fn n_lines(text: &str, layer: u32) -> usize {
    let layer = format!(" {layer} ");
    text.lines().filter(|l| l.contains(&layer)).count()
}

#[test]
fn programs_record_what_they_are_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run.trace.gz");
    let trace = ("HOTSET_TRACE", path.to_str().unwrap());
    let args = ["-p", "a", "-n", "8"];
    let stock = child::run(completion(&polyglot(), &[("HOTSET", "off"), trace], &args));
    assert!(!path.exists(), "nothing is recorded when hotset is off");
    for vars in [&[trace][..], &[trace, ("HOTSET_RAM", "30%")]] {
        std::fs::write(&path, "old").unwrap();
        let ended = child::run(completion(&polyglot(), vars, &args));
        assert_eq!(ended.text(), stock.text());
        let said = format!(
            "hotset: the routing of 6 of 6 layers is recorded in {}",
            trace.1
        );
        assert!(ended.stderr.contains(&said), "{}", ended.stderr);
        let text = text(&path);
        let header = text.lines().next().unwrap();
        assert!(header.contains("\"model\":\"polyglot-moe\""), "{header}");
        // One token of the prompt, and the last one is not computed; nor is there a warm-up.
        assert_eq!([0, 5].map(|layer| n_lines(&text, layer)), [8, 8], "{text}");
    }
}

#[test]
fn a_model_without_experts_is_not_recorded() {
    let bench = Bench::new(&tiny::dense());
    let path = bench.file("run.trace.gz");
    let vars = [("HOTSET_TRACE", path.to_str().unwrap())];
    let ended = child::run(completion(&bench.model, &vars, &["-n", "2"]));
    assert!(!ended.text().is_empty());
    let said = "hotset: nothing is recorded: the model has no experts";
    assert!(ended.stderr.contains(said), "{}", ended.stderr);
    assert!(!path.exists());
}

/// What a killed program leaves behind is a whole trace of all but its last moments.
#[test]
fn a_killed_program_leaves_what_it_had() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run.trace.gz");
    let vars = [
        ("HOTSET_TRACE", path.to_str().unwrap()),
        ("HOTSET_RAM", "10%"),
        ("HOTSET_FAULT", "delay_ms=5"),
    ];
    let mut running = Running::start(completion(&polyglot(), &vars, &["-n", "400"]));
    let has_lines = |_: &Running| path.exists() && n_lines(&text(&path), 0) > 45;
    running.wait_until("lines", has_lines);
    drop(running);
    let trace = Trace::open(&path, u32::MAX).unwrap();
    assert_eq!(trace.header().pools.len(), 1);
    assert!(trace.n_tokens() > 45);
    let whole = trace.events().all(|(_, event)| {
        let n_picks: u32 = event.rows.iter().sum();
        n_picks == event.n_tokens * 8
    });
    assert!(whole);
    let left = dir.path().read_dir().unwrap().count();
    assert_eq!(left, 1, "no temporary file stays");
}

/// A model that is freed and loaded again goes on with its recording; another one, and the same one at the same time,
/// have files of their own.
#[test]
fn a_model_that_comes_back_goes_on() {
    let [bench, other] = [0, 1].map(|i| Bench::new(&tiny::all()[i]));
    for ram in [Some(Ram::Percent(30.0)), None] {
        let path = bench.file("run.trace.gz");
        let second = bench.file("run.2.trace.gz");
        let third = bench.file("run.3.trace.gz");
        let config = recording(&path, ram, "lru");
        let _hook = take_hook(Some(&config));
        let load = |path: &Path| Runner::load(path, Options::default()).expect("the model loads");
        let given = tokens(8, tiny::N_VOCAB);
        let compute = |path: &Path, n: usize| {
            load(path).decode(&given[..n], &mut Vec::new());
        };
        compute(&bench.model, 4);
        let n_tokens = |path: &Path| Trace::open(path, u32::MAX).unwrap().n_tokens();
        assert_eq!(n_tokens(&path), 4);
        compute(&other.model, 2);
        compute(&bench.model, 8);
        assert_eq!([n_tokens(&path), n_tokens(&second)], [12, 2]);
        let twice = [load(&bench.model), load(&bench.model)];
        for (mut runner, n) in twice.into_iter().zip([1, 3]) {
            runner.decode(&given[..n], &mut Vec::new());
        }
        assert_eq!([&path, &second, &third].map(|p| n_tokens(p)), [13, 2, 3]);
        // In the order of time, and with nothing in between.
        let trace = Trace::open(&path, u32::MAX).unwrap();
        let firsts = trace.events().filter(|(_, e)| e.layer == 0);
        let firsts: Vec<_> = firsts.map(|(token, e)| (token, e.n_tokens)).collect();
        assert_eq!(firsts, [(0, 4), (4, 8), (12, 1)]);
    }
}

/// A server that frees its model while there is nothing to do, and loads it again.
#[test]
fn a_server_that_sleeps_has_one_recording() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run.trace.gz");
    let profile = dir.path().join("run.json");
    let vars = [
        ("HOTSET_TRACE", path.to_str().unwrap()),
        ("HOTSET_PROFILE_SAVE", profile.to_str().unwrap()),
        ("HOTSET_RAM", "30%"),
    ];
    let args = ["-np", "1", "-c", "512", "--sleep-idle-seconds", "1"];
    let mut server = LlamaServer::start(&polyglot(), &vars, &args);
    let mut n_sent = 0;
    for n_sleeps in 1..=3 {
        let answer = server.complete("Der Rechner liest".into());
        // The last token is not computed.
        n_sent += answer["timings"]["prompt_n"].as_u64().unwrap() + 24 - 1;
        server.wait_until_asleep(n_sleeps);
    }
    let said = server.stop();
    assert_eq!(said.matches("is recorded in").count(), 1, "{said}");
    let mut left: Vec<_> = dir
        .path()
        .read_dir()
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    left.sort();
    assert_eq!(left, ["run.json", "run.trace.gz"]);
    // What a server tries before it serves comes on top.
    let n_tokens = u64::from(Trace::open(&path, u32::MAX).unwrap().n_tokens());
    let n_tried = n_tokens - n_sent;
    assert!(n_tried <= 2 * 4, "{n_tokens} tokens of {n_sent}");
    let tokens = Profile::read(&profile).unwrap().tokens;
    assert_eq!(tokens.prompt + tokens.generation, n_tokens);
}
