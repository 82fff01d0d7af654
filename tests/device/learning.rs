//! What is computed on a device is recorded and learnt as if it was not, each event once; and a profile warms the
//! device.

use super::{budget, config, load, smallest};
use crate::runner::{Options, Runner, take_hook, tokens};
use crate::tiny;
use flate2::read::MultiGzDecoder;
use hotset::config::{Config, ProfileSource, Ram};
use hotset::device::DeviceStats;
use hotset::profile::Profile;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// A prompt, generation, small batches, drafts of which two of four stay, and generation.
fn compute(runner: &mut Runner) {
    let given = tokens(160, tiny::N_VOCAB);
    let mut given = given.as_slice();
    let mut next = |n: usize| given.split_off(..n).expect("there are enough");
    let mut logits = Vec::new();
    runner.read(next(60));
    (0..12).for_each(|_| runner.decode(next(1), &mut logits));
    runner.read(next(7));
    for _ in 0..6 {
        runner.decode(next(5), &mut logits);
        runner.reject(2);
    }
    (0..8).for_each(|_| runner.decode(next(1), &mut logits));
}

/// Computes with a device that holds `n_bytes`, or with none; the counters of the device.
fn run(model: &Path, config: &Config, n_bytes: usize) -> Option<DeviceStats> {
    let _hook = take_hook(Some(config));
    let options = Options {
        n_batch: 200,
        ..Options::default()
    };
    let mut runner = load(model, options, n_bytes);
    compute(&mut runner);
    let mut stats = hotset::llama::stats();
    drop(runner);
    stats.pop().and_then(|mut stats| stats.devices.pop())
}

/// The lines of a recording without its header, which tells of the device.
pub fn lines(path: &Path) -> String {
    let mut text = String::new();
    let mut file = MultiGzDecoder::new(File::open(path).unwrap());
    file.read_to_string(&mut text).unwrap();
    text.split_once('\n').unwrap().1.to_string()
}

/// How often each expert of each layer was picked. Weights also tell how often that was saved, as the clock has it.
pub fn counts(profile: &Profile) -> Vec<[Vec<u64>; 2]> {
    let heats = profile.layers.iter().map(|l| [&l.prompt, &l.generation]);
    heats
        .map(|two| two.map(|heat| heat.count.clone()))
        .collect()
}

#[test]
fn what_is_recorded_and_learnt_is_what_was_computed() {
    let dir = tempfile::tempdir().unwrap();
    for spec in tiny::all() {
        let model = tiny::write(&spec, dir.path());
        let seen = |n_bytes: usize, ram: Option<Ram>, name: &str| {
            let [trace, profile] =
                [".trace.gz", ".json"].map(|end| dir.path().join(format!("{name}{end}")));
            let _ = std::fs::remove_file(&profile);
            let mut config = config("adaptive");
            config.trace = Some(trace.clone());
            config.profile_save = Some(profile.clone());
            config.ram = ram;
            let device = run(&model, &config, n_bytes);
            assert_eq!(device.is_some(), n_bytes > 0);
            if let Some(device) = device {
                assert!(
                    device.generation.events > 0 && device.n_uncached > 0,
                    "{device:?}"
                );
            }
            let learnt = Profile::read(&profile).unwrap();
            (lines(&trace), learnt.tokens, counts(&learnt))
        };
        let alone = seen(0, None, "alone");
        for n_bytes in [smallest(&spec), budget(&spec, 0.66), budget(&spec, 1.2)] {
            for ram in [None, Some(Ram::Percent(25.0)), Some(Ram::Auto)] {
                let what = format!("{} {n_bytes} {ram:?}", spec.name);
                assert!(seen(n_bytes, ram, "device") == alone, "{what}");
            }
        }
    }
}

#[test]
pub fn a_profile_warms_the_device() {
    let dir = tempfile::tempdir().unwrap();
    for spec in [&tiny::all()[0], &tiny::all()[1]] {
        let model = tiny::write(spec, dir.path());
        let path = dir.path().join(format!("{}.json", spec.name));
        let mut teaching = config("lru");
        teaching.profile_save = Some(path.clone());
        let n_bytes = budget(spec, 0.5);
        let cold = run(&model, &teaching, n_bytes).unwrap();
        assert_eq!((cold.n_warmed, cold.bytes_warmed), (0, 0));
        let mut warm = config("lru");
        warm.profile = Some(ProfileSource::Files(vec![(path.clone(), 1.0)]));
        let warmed = run(&model, &warm, n_bytes).unwrap();
        assert_eq!(warmed.n_warmed, u64::from(warmed.n_slots));
        assert!(warmed.bytes_warmed >= warmed.slot_bytes * 9 / 10);
        // Empty slots are not filled by misses any more.
        assert!(
            warmed.generation.misses < cold.generation.misses,
            "{cold:?} {warmed:?}"
        );
        assert_eq!(warmed.generation.misses, warmed.generation.evictions);
        warm.prewarm = std::time::Duration::ZERO;
        assert_eq!(run(&model, &warm, n_bytes).unwrap().n_warmed, 0);
    }
}

/// What is uploaded in advance is what is computed with, wherever it comes from.
#[test]
pub fn warm_starts_are_exact() {
    let dir = tempfile::tempdir().unwrap();
    for spec in tiny::all() {
        let model = tiny::write(&spec, dir.path());
        let path = dir.path().join(format!("{}.json", spec.name));
        let mut teaching = config("adaptive");
        teaching.profile_save = Some(path.clone());
        let n_bytes = budget(&spec, 0.6);
        run(&model, &teaching, n_bytes);
        let options = Options::default();
        let (stock, _) = super::run(&model, None, options, n_bytes);
        let mut warm = config("adaptive");
        warm.profile = Some(ProfileSource::Files(vec![(path, 1.0)]));
        let percents = [1.0, 40.0].map(|share| Some(Ram::Percent(share)));
        for ram in [None, percents[0], percents[1], Some(Ram::Auto)] {
            warm.ram = ram;
            let (output, stats) = super::run(&model, Some(&warm), options, n_bytes);
            assert!(output == stock, "{} {ram:?}", spec.name);
            assert!(stats.unwrap().devices[0].n_warmed > 0);
        }
    }
}
