//! Drafts that are rejected leave no trace in what is learnt of the routing.

#![cfg(all(feature = "llama", feature = "cli"))]

mod runner;
mod tiny;

use flate2::read::MultiGzDecoder;
use hotset::config::{Config, Ram, StatsTo};
use hotset::expert::Event;
use hotset::llama;
use hotset::trace::Header;
use hotset::tracker::{Phase, Span, Tracker};
use runner::{Options, Runner, take_hook, tokens};
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Tokens before the first draft.
const N_PROMPT: usize = 8;
/// All tokens of the text.
const N_TOKENS: usize = 60;

/// All text of a recording.
fn text(path: &Path) -> String {
    let mut text = String::new();
    let mut file = MultiGzDecoder::new(File::open(path).unwrap());
    file.read_to_string(&mut text).unwrap();
    text
}

/// Computes a text in batches of a token, none to three right guesses and `n_wrong` wrong ones, which
/// are taken back. Says of each token that was computed whether it stayed.
fn compute(runner: &mut Runner, n_wrong: usize) -> Vec<bool> {
    let text = tokens(N_TOKENS, tiny::N_VOCAB);
    let (prompt, mut rest) = text.split_at(N_PROMPT);
    runner.read(prompt);
    let mut has_stayed = vec![true; prompt.len()];
    for n_right in [0, 1, 2, 3].into_iter().cycle() {
        if rest.len() < 8 {
            break;
        }
        let right = rest.split_off(..1 + n_right).expect("there are enough");
        let wrong = right.iter().map(|token| (token + 1) % 250);
        let wrong: Vec<i32> = wrong.cycle().take(n_wrong).collect();
        runner.decode(&[right, &wrong].concat(), &mut Vec::new());
        runner.reject(n_wrong as i32);
        has_stayed.extend([vec![true; right.len()], vec![false; n_wrong]].concat());
    }
    // What the last batch left open is learnt with the next one.
    for token in rest {
        runner.decode(&[*token], &mut Vec::new());
        has_stayed.push(true);
    }
    has_stayed
}

/// The entropy of what `trace` says of the tokens that stayed, as the mean over the layers.
fn entropy(trace: &str, has_stayed: &[bool]) -> f64 {
    let (header, lines) = trace.split_once('\n').unwrap();
    let header: Header = serde_json::from_str(header).unwrap();
    let mut tracker = Tracker::new(header.shape());
    let mut is_seen = vec![false; has_stayed.len()];
    for line in lines.lines().filter(|l| !l.is_empty()) {
        let mut fields = line.split(' ');
        let mut number = || fields.next().unwrap().parse::<u32>().unwrap();
        let (token, layer) = (number(), number());
        is_seen[token as usize] = true;
        let ids = fields.next().unwrap().split(',');
        let mut experts: Vec<u32> = ids.map(|id| id.parse().unwrap()).collect();
        experts.sort_unstable();
        if has_stayed[token as usize] {
            tracker.count(&Event {
                layer,
                n_tokens: 1,
                experts: &experts,
                rows: &vec![1; experts.len()],
                ..Event::default()
            });
        }
    }
    assert!(
        !is_seen.contains(&false),
        "all that is computed is recorded"
    );
    let of = |layer| tracker.counts(Phase::Decode, Span::Lifetime, layer);
    let layers = (0..header.n_layers).map(|layer| of(layer).entropy().unwrap());
    layers.sum::<f64>() / f64::from(header.n_layers)
}

#[test]
fn rejected_drafts_are_not_learnt() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run.trace.gz");
    let config = Config {
        ram: Some(Ram::Percent(40.0)),
        stats: StatsTo::Off,
        trace: Some(path.clone()),
        ..Config::default()
    };
    for spec in [0, 3, 5].map(|i| tiny::all()[i]) {
        let model = tiny::write(&spec, dir.path());
        for n_wrong in [0, 1, 3] {
            let what = format!("{} {n_wrong}", spec.name);
            let _hook = take_hook(Some(&config));
            let options = Options {
                n_threads: 1,
                ..Options::default()
            };
            let mut runner = Runner::load(&model, options).expect("the model loads");
            let has_stayed = compute(&mut runner, n_wrong);
            let stats = llama::stats().pop().expect("experts were streamed");
            drop(runner);
            assert_eq!(has_stayed.contains(&false), n_wrong > 0, "{what}");
            // What was rejected was computed all the same.
            assert_eq!(stats.generation.tokens, has_stayed.len() as u64, "{what}");

            let learnt = stats.generation_heat.unwrap().entropy_bits;
            let text = text(&path);
            let differs = |has_stayed: &[bool]| (entropy(&text, has_stayed) - learnt).abs() > 1e-9;
            assert!(!differs(&has_stayed), "{what}");
            let all = vec![true; has_stayed.len()];
            assert_eq!(differs(&all), n_wrong > 0, "{what}");
        }
    }
}
