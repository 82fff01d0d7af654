//! Models that are freed and come back, as those of a server that sleeps: they have their hot experts at once, and what
//! they report does not pile up.

use super::child::{StatsFile, count, polyglot};
use super::runner::{Options, Runner, take_hook, tokens};
use super::serving::LlamaServer;
use super::{Bench, config, text, tiny};
use hotset::config::{Config, StatsTo};
use hotset::llama;
use hotset::profile::Profile;
use hotset::stats::Stats;
use serde_json::Value;
use std::time::Duration;

/// What is computed again and again.
const TEXT: &str = "The kernel reads the page from the disk";

fn stats() -> Stats {
    llama::stats().pop().expect("a model streams")
}

/// Loads the model, computes tokens one by one, and frees it. Returns the counters before and after.
fn live(bench: &Bench, tokens: &[i32]) -> [Stats; 2] {
    let options = Options {
        n_threads: 1,
        ..Options::default()
    };
    let mut runner = Runner::load(&bench.model, options).expect("the model loads");
    let before = stats();
    for token in tokens {
        runner.decode(&[*token], &mut Vec::new());
    }
    [before, stats()]
}

/// Without any setting that has to do with profiles, and with a file.
#[test]
fn a_model_that_comes_back_has_its_hot_experts() {
    for spec in [0, 4, 5, 7].map(|i| tiny::all()[i]) {
        let bench = Bench::new(&spec);
        let all = tokens(64, tiny::N_VOCAB);
        let path = bench.file("run.json");
        for save in [None, Some(path.clone())] {
            let is_saved = save.is_some();
            let base = Config {
                profile_save: save,
                ..config(Some(60.0))
            };
            let _hook = take_hook(Some(&base));
            let rate = |[_, after]: &[Stats; 2]| {
                after.generation.hits as f64 / after.generation.picks() as f64
            };
            let first = live(&bench, &all);
            assert_eq!(first[0].n_resident, 0, "it is cold at first");
            let cold = live_cold(&bench, &base, &all[..4]);
            drop(_hook);

            let _hook = take_hook(Some(&base));
            live(&bench, &all);
            let again = live(&bench, &all[..4]);
            let what = format!("{} {is_saved}: {} {}", spec.name, rate(&again), rate(&cold));
            assert_eq!(again[0].n_resident, again[0].n_slots, "{what}");
            assert!(rate(&again) > rate(&cold) + 0.2, "{what}");
            assert!(rate(&again) > rate(&first) - 0.1, "{what} {}", rate(&first));
        }
        // What was saved is all of it, once: two long lives and two short ones.
        let profile = Profile::read(&path).unwrap();
        assert_eq!(profile.tokens.generation, 2 * 64 + 2 * 4);
    }
}

/// The same tokens with nothing known.
fn live_cold(bench: &Bench, base: &Config, tokens: &[i32]) -> [Stats; 2] {
    // As far as a process remembers, another one has begun.
    llama::install(base.clone()).unwrap();
    live(bench, tokens)
}

/// It is told to the policy all the same.
#[test]
fn nothing_is_read_for_one_that_comes_back_if_that_is_not_wanted() {
    let bench = Bench::new(&tiny::all()[0]);
    let unread = Config {
        prewarm: Duration::ZERO,
        ..config(Some(60.0))
    };
    let _hook = take_hook(Some(&unread));
    for _ in 0..2 {
        let [before, after] = live(&bench, &tokens(8, tiny::N_VOCAB));
        assert_eq!(before.n_resident, 0);
        assert!(after.n_resident > 0);
    }
}

/// A server that has slept often keeps what it did last.
#[test]
fn few_counters_are_kept() {
    const N_KEPT: u64 = 64;
    const N_LIVES: u64 = N_KEPT + 6;
    let bench = Bench::new(&tiny::all()[0]);
    let path = bench.file("stats.json");
    let config = Config {
        stats: StatsTo::Json(path.clone()),
        ..config(Some(30.0))
    };
    let _hook = take_hook(Some(&config));
    let n_tokens = |life: u64| 1 + life % 5;
    for life in 0..N_LIVES {
        live(&bench, &tokens(n_tokens(life) as usize, tiny::N_VOCAB));
    }
    let all: Vec<Value> = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let found: Vec<_> = all
        .iter()
        .map(|s| s["generation"]["tokens"].as_u64().unwrap())
        .collect();
    let per_token = found[0] / n_tokens(N_LIVES - N_KEPT);
    let expected: Vec<_> = (N_LIVES - N_KEPT..N_LIVES)
        .map(|life| n_tokens(life) * per_token)
        .collect();
    assert_eq!(found, expected);
}

const ARGS: &[&str] = &["-np", "1", "-c", "512", "--sleep-idle-seconds", "1"];

/// The share of what generation picked that was there, in each life of a server.
fn rates(all: &[Value]) -> Vec<f64> {
    let rate = |stats: &Value| {
        let of = |name: &str| stats["generation"][name].as_f64().unwrap();
        of("hits") / (of("hits") + of("misses"))
    };
    all.iter().map(rate).collect()
}

#[test]
fn a_server_that_wakes_is_warm() {
    let run = |prewarm: &str| {
        let file = StatsFile::new();
        let path = file.path();
        let vars = [
            ("HOTSET_RAM", "40%"),
            ("HOTSET_STATS", &*path),
            ("HOTSET_PREWARM", prewarm),
            ("HOTSET_PREFETCH", "off"),
        ];
        let mut server = LlamaServer::start(&polyglot(), &vars, ARGS);
        for n_sleeps in 1..=3 {
            (0..2).for_each(|_| drop(server.complete(TEXT.into())));
            server.wait_until_asleep(n_sleeps);
            let n_written = || file.try_read_all().len();
            server
                .running()
                .wait_until("counters", |_| n_written() == n_sleeps);
        }
        let said = server.stop();
        let all = file.read_all();
        assert_eq!(all.len(), 3, "{all:#?}");
        assert!(all.iter().all(|stats| count(stats, "misses") > 0));
        (said, rates(&all))
    };
    let (said, warm) = run("");
    let read = "hotset: profile 'this run': the hottest ";
    assert_eq!(said.matches(read).count(), 2, "{said}");
    let (said, cold) = run("off");
    assert!(!said.contains(read), "{said}");
    for (life, rate) in warm.iter().enumerate() {
        assert!(*rate >= warm[0] - 0.02, "life {life}: {warm:?}");
    }
    // The first tokens find what the others had to read.
    assert!(warm[1] > cold[1], "{warm:?} {cold:?}");
}

/// What it has to report comes when it goes to sleep; awake and idle it repeats nothing.
#[test]
fn a_server_reports_when_it_goes_to_sleep_and_no_more_than_there_is() {
    let vars = [("HOTSET_RAM", "40%"), ("HOTSET_STATS", "1")];
    let args = ["-np", "1", "-c", "512", "--sleep-idle-seconds", "6"];
    let mut server = LlamaServer::start(&polyglot(), &vars, &args);
    // Of a line and of a table.
    let [line, table] = [" s stalled of ", "best possible (Belady)"];
    let n_tables = |said: &str| {
        let ours = said
            .lines()
            .filter(|l| l.contains(table) && !l.contains(line));
        ours.count()
    };
    for n in 1..=2 {
        let before = server.running().stderr().matches(line).count();
        server.complete(TEXT.into());
        server.wait_for(line, before + 1);
        // It may have come while the server still computed: then another one is due.
        std::thread::sleep(Duration::from_millis(1500));
        let said = server.running().stderr();
        std::thread::sleep(Duration::from_millis(2500));
        let later = server.running().stderr();
        assert_eq!(
            later.matches(line).count(),
            said.matches(line).count(),
            "{later}"
        );
        assert_eq!(n_tables(&later), n - 1, "{later}");
        server.wait_until_asleep(n);
        let mut n_looks = 0;
        while n_tables(&server.running().stderr()) < n {
            n_looks += 1;
            assert!(n_looks < 500, "no table:\n{}", server.running().stderr());
            std::thread::sleep(Duration::from_millis(10));
        }
    }
    let said = server.stop();
    assert_eq!(n_tables(&said), 2, "{said}");
}

fn n_tokens(profile: &std::path::Path) -> u64 {
    let tokens = Profile::read(profile).map(|profile| profile.tokens);
    tokens.map_or(0, |tokens| tokens.prompt + tokens.generation)
}

/// Soon after the last token, and once: long before the next time that it would be saved anyway. A kill loses nothing then.
#[test]
fn an_idle_server_saves_once() {
    let stats = StatsFile::new();
    let bench = tempfile::tempdir().unwrap();
    let profile = bench.path().join("run.json");
    let json = stats.path();
    let vars = [
        ("HOTSET_RAM", "40%"),
        ("HOTSET_STATS", &*json),
        ("HOTSET_PROFILE_SAVE", text(&profile)),
    ];
    let mut server = LlamaServer::start(&polyglot(), &vars, &["-np", "1", "-c", "512"]);
    let mut n_sent = 0;
    let looks = |path: &std::path::Path| {
        use std::os::unix::fs::MetadataExt;
        let meta = std::fs::metadata(path).unwrap();
        (meta.ino(), meta.mtime(), meta.mtime_nsec())
    };
    // The first time is due by itself.
    for _ in 0..2 {
        let answer = server.complete(TEXT.into());
        // The last token is not computed.
        n_sent += answer["timings"]["prompt_n"].as_u64().unwrap() + 24 - 1;
        let begin = std::time::Instant::now();
        let is_saved = |_: &super::child::Running| n_tokens(&profile) == n_sent;
        server.running().wait_until("its profile", is_saved);
        let took = begin.elapsed();
        assert!(took < Duration::from_secs(40), "{took:?}");
    }
    std::thread::sleep(Duration::from_secs(1));
    let [saved, counted] = [&profile, std::path::Path::new(&json)].map(looks);
    std::thread::sleep(Duration::from_secs(13));
    assert_eq!(looks(&profile), saved);
    assert_eq!(looks(json.as_ref()), counted);
    server.running().signal(libc::SIGKILL);
    server.wait();
    assert_eq!(n_tokens(&profile), n_sent);
    let counters = stats.read();
    assert!(count(&counters, "hits") > 0, "{counters:#}");
}
