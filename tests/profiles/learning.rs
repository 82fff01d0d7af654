//! What a run teaches is what it routed, streamed or not, without the drafts that were rejected.

use super::runner::{Options, Runner, take_hook, tokens};
use super::{Bench, Picks, config, counted, tiny};
use flate2::read::MultiGzDecoder;
use hotset::config::Config;
use hotset::profile::{Fingerprint, Profile, Tokens};
use hotset::trace::{Header, Trace};
use hotset::tracker::Phase;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Prompts of which the last layer computes the end only, and generation by one sequence and by four.
fn compute(bench: &Bench, config: &Config) {
    let _hook = take_hook(Some(config));
    let options = Options {
        n_threads: 1,
        n_batch: 200,
        n_ubatch: 60,
        n_seq: 4,
        ..Options::default()
    };
    let mut runner = Runner::load(&bench.model, options).expect("the model loads");
    let given = tokens(8 + 160 + 24, tiny::N_VOCAB);
    let mut given = given.as_slice();
    let mut next = |n: usize| given.split_off(..n).expect("there are enough");
    (0..8).for_each(|_| runner.decode(next(1), &mut Vec::new()));
    // 60, 60 and 40: all of them scans, each of which has an output or none.
    runner.read(next(160));
    (0..6).for_each(|_| runner.decode(next(4), &mut Vec::new()));
}

/// What the recording at `path` says of the layers.
fn recorded(path: &Path) -> Picks {
    let trace = Trace::open(path, u32::MAX).unwrap();
    let header = trace.header();
    let layers = vec![vec![0; header.n_experts as usize]; header.n_layers as usize];
    let mut picks: Picks = [layers.clone(), layers];
    for (_, event) in trace.events() {
        let layer = &mut picks[Phase::of(&event) as usize][event.layer as usize];
        for (&expert, &rows) in event.experts.iter().zip(event.rows) {
            layer[expert as usize] += u64::from(rows);
        }
    }
    picks
}

/// Models with other experts: all layers have some, the first has none, gate and up are one tensor, and
/// one in three files.
const SPECS: [usize; 4] = [0, 4, 5, 7];

/// Loaded as usual, thrashing, streamed, and streamed with all experts in memory.
#[test]
fn a_profile_counts_what_the_recording_has() {
    for spec in SPECS.map(|i| tiny::all()[i]) {
        let bench = Bench::new(&spec);
        let trace = bench.file("run.trace.gz");
        for percent in [None, Some(12.0), Some(30.0), Some(100.0)] {
            let what = format!("{} {percent:?} %", spec.name);
            let path = bench.file("run.json.gz");
            let config = Config {
                trace: Some(trace.clone()),
                profile_save: Some(path.clone()),
                ..config(percent)
            };
            compute(&bench, &config);
            let profile = Profile::read(&path).unwrap();
            std::fs::remove_file(&path).unwrap();
            assert_eq!(counted(&profile), recorded(&trace), "{what}");
            let expected = Tokens {
                prompt: 160,
                generation: 8 + 24,
            };
            assert_eq!(profile.tokens, expected, "{what}");
            assert_eq!(profile.name, "run", "{what}");
            let model = Fingerprint {
                architecture: spec.arch.name().to_string(),
                name: String::new(),
                n_layers: (spec.n_layer - spec.arch.n_layer_dense()) as u32,
                n_experts: spec.n_expert as u32,
                top_k: spec.top_k as u32,
            };
            assert_eq!(profile.model, model, "{what}");
            let prompts = counted(&profile)[Phase::Prefill as usize].clone();
            let n_picks: u64 = prompts[0].iter().sum();
            assert_eq!(n_picks, 160 * spec.top_k as u64, "{what}");
        }
    }
}

/// Picks of the tokens that stayed, all of them generation, from the lines of a recording.
fn recorded_of(path: &Path, has_stayed: &[bool]) -> Vec<Vec<u64>> {
    let mut text = String::new();
    let mut file = MultiGzDecoder::new(File::open(path).unwrap());
    file.read_to_string(&mut text).unwrap();
    let (header, lines) = text.split_once('\n').unwrap();
    let header: Header = serde_json::from_str(header).unwrap();
    let mut picks = vec![vec![0; header.n_experts as usize]; header.n_layers as usize];
    for line in lines.lines().filter(|l| !l.is_empty()) {
        let fields: Vec<&str> = line.split(' ').collect();
        let number = |i: usize| fields[i].parse::<usize>().unwrap();
        if has_stayed[number(0)] {
            for id in fields[2].split(',') {
                picks[number(1)][id.parse::<usize>().unwrap()] += 1;
            }
        }
    }
    picks
}

/// Computes a text, after its first token in batches of a token, one right guess and two wrong ones, which are taken back.
/// Says of each token that was computed whether it stayed.
fn compute_drafts(bench: &Bench, config: &Config) -> Vec<bool> {
    let _hook = take_hook(Some(config));
    let options = Options {
        n_threads: 1,
        ..Options::default()
    };
    let mut runner = Runner::load(&bench.model, options).expect("the model loads");
    runner.decode(&[7], &mut Vec::new());
    let mut has_stayed = vec![true];
    for right in tokens(40, tiny::N_VOCAB).chunks(2) {
        let wrong = [right[1] + 1, right[0] + 2].map(|token| token % 250);
        runner.decode(&[right, &wrong].concat(), &mut Vec::new());
        runner.reject(2);
        has_stayed.extend([true, true, false, false]);
    }
    has_stayed
}

/// The last right guess is not followed by anything, and is learnt at the end.
#[test]
fn rejected_drafts_teach_nothing() {
    for spec in SPECS.map(|i| tiny::all()[i]) {
        let bench = Bench::new(&spec);
        let trace = bench.file("run.trace.gz");
        for percent in [None, Some(30.0)] {
            let what = format!("{} {percent:?} %", spec.name);
            let path = bench.file("run.json");
            let config = Config {
                trace: Some(trace.clone()),
                profile_save: Some(path.clone()),
                ..config(percent)
            };
            let has_stayed = compute_drafts(&bench, &config);
            let profile = Profile::read(&path).unwrap();
            std::fs::remove_file(&path).unwrap();
            let [generation, prompts] = counted(&profile);
            assert_eq!(generation, recorded_of(&trace, &has_stayed), "{what}");
            assert!(prompts.concat().iter().all(|&n| n == 0), "{what}");
            assert_eq!(profile.tokens.generation, 41, "{what}");
        }
    }
}
