//! Whatever a profile says, the logits are those of llama.cpp alone, to the bit; and experts are read
//! before the first token as far as memory and time go.

use super::runner::{self, Options, Output, Runner, take_hook, tokens};
use super::{Bench, made_up, tiny};
use hotset::config::{Config, ProfileSource, Repack};
use hotset::llama;
use hotset::profile::Profile;
use hotset::stats::Stats;
use hotset::store::Faults;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Prompts are scans, and the rest is generation.
const OPTIONS: Options = Options {
    n_threads: 2,
    n_batch: 40,
    n_ubatch: 40,
    n_tokens: 90,
    n_generated: 20,
    n_seq: 1,
    repacks: false,
};

/// Models, and how llama.cpp has their experts: as in the file, or repacked.
fn models() -> impl Iterator<Item = (tiny::Spec, Repack)> {
    let plain = tiny::all().into_iter().map(|spec| (spec, Repack::Off));
    plain.chain(tiny::repacked().into_iter().map(|spec| (spec, Repack::On)))
}

fn options(repack: Repack) -> Options {
    Options {
        repacks: repack == Repack::On,
        ..OPTIONS
    }
}

fn config(percent: f64, repack: Repack) -> Config {
    Config {
        repack,
        ..super::config(Some(percent))
    }
}

fn knowing(config: Config, path: &Path) -> Config {
    let profile = match path.is_dir() {
        true => ProfileSource::Folder(path.to_path_buf()),
        false => ProfileSource::Files(vec![(path.to_path_buf(), 1.0)]),
    };
    Config {
        profile: Some(profile),
        ..config
    }
}

/// The profiles of a folder that `bench` gets: of the run itself, and one that knows nothing right.
fn profiles(bench: &Bench, repack: Repack) -> [PathBuf; 3] {
    let folder = bench.file("profiles");
    std::fs::create_dir(&folder).unwrap();
    let [right, wrong] = ["right.json", "wrong.json.gz"].map(|name| folder.join(name));
    let config = Config {
        profile_save: Some(right.clone()),
        // What is repacked and not streamed is not seen.
        ..config(100.0, repack)
    };
    runner::run(&bench.model, Some(&config), options(repack));
    let profile = Profile::read(&right).unwrap();
    let mut made_up = made_up(&profile, |expert| expert % 5 == 1);
    made_up.name = "wrong".to_string();
    made_up.write(&wrong).unwrap();
    [right, wrong, folder]
}

#[track_caller]
fn same(bench: &Bench, config: &Config, stock: &Output, what: &str) -> Stats {
    let (output, stats) = runner::run(&bench.model, Some(config), options(config.repack));
    let stats = stats.expect("experts were streamed");
    assert_eq!(stats.is_repacked, config.repack == Repack::On, "{what}");
    assert!(output == *stock, "{what}");
    assert!(stats.generation.misses > 0, "{what}");
    assert!(stats.n_resident <= stats.n_slots, "{what}");
    stats
}

/// Every architecture; right, wrong, to be chosen; with and without reading, and no time for it.
#[test]
fn profiles_change_no_logit() {
    for (spec, repack) in models() {
        let bench = Bench::new(&spec);
        let (stock, _) = runner::run(&bench.model, None, options(repack));
        let cold = same(&bench, &config(30.0, repack), &stock, spec.name);
        assert_eq!(cold.bytes_read_uncounted, 0, "{}", spec.name);
        for path in profiles(&bench, repack) {
            for prewarm in [0, 1, 30_000_000_000].map(Duration::from_nanos) {
                let config = Config {
                    prewarm,
                    ..knowing(config(30.0, repack), &path)
                };
                let what = format!("{} {} {prewarm:?}", spec.name, path.display());
                let stats = same(&bench, &config, &stock, &what);
                let reads = !path.is_dir() && prewarm.as_secs() > 0;
                assert_eq!(stats.bytes_read_uncounted > 0, reads, "{what}");
                assert_eq!(stats.arena_bytes, cold.arena_bytes, "{what}");
                assert_eq!(stats.n_slots, cold.n_slots, "{what}");
            }
        }
    }
}

/// The counters when the model is loaded, and after its first token.
fn first_token(bench: &Bench, config: &Config) -> [Stats; 2] {
    let _hook = take_hook(Some(config));
    let mut runner = Runner::load(&bench.model, options(config.repack)).expect("the model loads");
    let stats = || llama::stats().pop().expect("experts were streamed");
    let loaded = stats();
    runner.read(&tokens(1, tiny::N_VOCAB));
    [loaded, stats()]
}

/// The first token hits all of what a profile of it has, and nothing of what one has that is hot
/// everywhere else.
#[test]
fn the_hottest_experts_are_there_before_the_first_token() {
    for (spec, repack) in models() {
        let bench = Bench::new(&spec);
        let path = bench.file("first.json");
        let learning = Config {
            profile_save: Some(path.clone()),
            ..config(60.0, repack)
        };
        first_token(&bench, &learning);
        let right = Profile::read(&path).unwrap();
        let n_picks = (right.layers.len() * spec.top_k) as u64;
        let mut wrong = right.clone();
        for layer in &mut wrong.layers {
            let picks = layer.generation.count.iter();
            layer.generation.weight = picks.map(|&n| 1.0 - n as f64).collect();
        }
        let warm = knowing(config(60.0, repack), &path);
        for (profile, n_hits) in [(&right, n_picks), (&wrong, 0)] {
            profile.write(&path).unwrap();
            let [loaded, after] = first_token(&bench, &warm);
            let what = spec.name;
            assert_eq!(loaded.n_resident, loaded.n_slots, "{what}");
            assert!(loaded.bytes_read_uncounted <= loaded.arena_bytes, "{what}");
            assert_eq!(after.generation.hits, n_hits, "{what}");
            assert_eq!(after.generation.misses, n_picks - n_hits, "{what}");
            assert_eq!(after.n_resident, after.n_slots, "{what}");
        }
    }
}

/// Without reading, as without a profile, there is nothing at the start.
#[test]
fn nothing_is_read_before_the_first_token_unless_asked_for() {
    let bench = Bench::new(&tiny::all()[0]);
    let [right, _, folder] = profiles(&bench, Repack::Off);
    let unread = Config {
        prewarm: Duration::ZERO,
        ..knowing(config(60.0, Repack::Off), &right)
    };
    for config in [
        config(60.0, Repack::Off),
        unread,
        knowing(config(60.0, Repack::Off), &folder),
    ] {
        let [loaded, after] = first_token(&bench, &config);
        assert_eq!(loaded.n_resident, 0);
        assert_eq!(after.generation.hits, 0);
        assert_eq!(after.n_resident as u64, after.generation.misses);
    }
}

/// Experts of 192 MiB, of which reading stops when the time is up: what was read is used, and the slots
/// of the rest are free for what is picked.
#[test]
fn reading_ends_when_the_time_is_up() {
    let spec = tiny::Spec {
        name: "large",
        n_layer: 2,
        n_expert: 64,
        n_ff: 1024,
        ..tiny::all()[2]
    };
    let bench = Bench::new(&spec);
    let path = bench.file("run.json");
    let learning = Config {
        profile_save: Some(path.clone()),
        ..config(95.0, Repack::Off)
    };
    let options = Options {
        n_tokens: 40,
        ..OPTIONS
    };
    let (stock, _) = runner::run(&bench.model, Some(&learning), options);
    // Reads that are slower than the limit are waited for, two batches of them.
    let cut = Config {
        prewarm: Duration::from_millis(40),
        faults: Faults::parse("delay_ms=5").unwrap(),
        ..knowing(config(95.0, Repack::Off), &path)
    };
    let [loaded, after] = first_token(&bench, &cut);
    assert!(loaded.n_resident > 0);
    assert!(loaded.n_resident < loaded.n_slots, "it was not cut");
    let expert_bytes = loaded.expert_bytes / loaded.n_experts as u64;
    let read_bytes = u64::from(loaded.n_resident) * expert_bytes;
    // Reads begin and end at whole sectors.
    let allowed = read_bytes..=read_bytes * 101 / 100;
    assert!(allowed.contains(&loaded.bytes_read_uncounted));
    assert_eq!(after.generation.evictions, 0, "there are free slots");
    let (output, stats) = runner::run(&bench.model, Some(&cut), options);
    assert!(output == stock);
    let stats = stats.expect("experts were streamed");
    assert!(stats.n_resident <= stats.n_slots);
    assert!(stats.generation.hits > 0);
}
