//! The chooser: what it decides, when, and how sure it is. Profiles are of every other hundred tokens of a recorded
//! trace; what is to be recognised lies between.

use hotset::profile::{Chooser, Fingerprint, Profile, Verdict};
use hotset::trace::Trace;
use hotset::tracker::Phase;
use std::ops::Range;
use std::path::Path;

/// Tokens of one workload in the mixed trace, which are Italian, English, code and German in turn.
const PERIOD: u32 = 400;
const WORKLOADS: [&str; 4] = ["it", "en", "code", "de"];

fn mixed() -> Trace {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/mixed.trace.gz");
    Trace::open(&path, u32::MAX).unwrap()
}

/// The workload of a token.
fn workload(token: u32) -> usize {
    (token / PERIOD) as usize % WORKLOADS.len()
}

fn empty(name: &str, n_experts: &[u32]) -> Profile {
    let model = Fingerprint {
        architecture: "qwen3moe".to_string(),
        name: String::new(),
        n_layers: n_experts.len() as u32,
        n_experts: *n_experts.iter().max().unwrap(),
        top_k: 1,
    };
    Profile::new(name, model, n_experts)
}

/// What `phase` picks in the tokens that are `learnt`.
fn learnt(trace: &Trace, name: &str, phase: Phase, learnt: impl Fn(u32) -> bool) -> Profile {
    let header = trace.header();
    let mut profile = empty(name, &vec![header.n_experts; header.n_layers as usize]);
    for (_, event) in trace.events().filter(|(token, _)| learnt(*token)) {
        let heat = profile.layers[event.layer as usize].heat_mut(phase);
        for &expert in event.experts {
            heat.weight[expert as usize] += 1.0;
            heat.count[expert as usize] += 1;
        }
    }
    profile
}

fn is_taught(token: u32) -> bool {
    (token / 100).is_multiple_of(2)
}

fn workloads(trace: &Trace) -> Vec<Profile> {
    let profile = |(i, name): (usize, &&str)| {
        let of_it = |token| is_taught(token) && workload(token) == i;
        learnt(trace, name, Phase::Decode, of_it)
    };
    WORKLOADS.iter().enumerate().map(profile).collect()
}

fn refs(profiles: &[Profile]) -> Vec<&Profile> {
    profiles.iter().collect()
}

/// The decisions on some tokens, each with the token whose end it was made at.
fn decisions(chooser: &mut Chooser, trace: &Trace, tokens: Range<u32>) -> Vec<(u32, Verdict)> {
    let mut decisions = Vec::new();
    for (token, e) in trace.events().filter(|(token, _)| tokens.contains(token)) {
        let layer = e.layer as usize;
        let verdict = chooser.observe(layer, Phase::Decode, 1, e.experts, e.rows);
        decisions.extend(verdict.map(|verdict| (token - 1, verdict)));
    }
    let last = chooser.finish();
    decisions.extend(last.map(|verdict| (tokens.end - 1, verdict)));
    decisions
}

/// 64 tokens from anywhere in a workload, none of which was learnt.
#[test]
fn snippets_are_recognised() {
    let trace = mixed();
    let profiles = workloads(&trace);
    let (mut n, mut n_right, mut sum_confidence) = (0.0, 0.0, 0.0);
    let of_hundred = |first| (0..=36).step_by(12).map(move |more| first + more);
    for first in (100..trace.n_tokens()).step_by(200).flat_map(of_hundred) {
        let mut chooser = Chooser::new(&refs(&profiles));
        let found = decisions(&mut chooser, &trace, first..first + 64);
        n += 1.0;
        let Some((token, verdict)) = found.first() else {
            assert_eq!(chooser.chosen(), None);
            continue;
        };
        assert!((24..=64).contains(&verdict.n_tokens), "{verdict:?}");
        assert_eq!(u64::from(token - first) + 1, verdict.n_tokens);
        assert!(!verdict.is_change);
        assert!(
            verdict.n_tokens == 64 || verdict.confidence > 0.7,
            "{verdict:?}"
        );
        sum_confidence += verdict.confidence;
        n_right += f64::from(u8::from(verdict.profile == workload(first)));
    }
    assert!(n_right / n >= 0.9, "{n_right} of {n}");
    // It is as sure as it is right.
    assert!(
        (sum_confidence / n - n_right / n).abs() < 0.1,
        "{sum_confidence} {n_right} {n}"
    );
}

#[test]
fn changes_are_noticed_and_no_others() {
    let trace = mixed();
    let profiles = workloads(&trace);
    let mut chooser = Chooser::new(&refs(&profiles));
    let found = decisions(&mut chooser, &trace, 0..trace.n_tokens());
    let mut last = None;
    let mut n_before = 0;
    for (token, verdict) in &found {
        assert_eq!(verdict.is_change, last.is_some());
        assert_ne!(last, Some(verdict.profile), "a change to the same");
        assert!((0.0..=1.0).contains(&verdict.confidence));
        assert_eq!(verdict.n_tokens, u64::from(token + 1 - n_before));
        n_before = token + 1;
        last = Some(verdict.profile);
    }
    let names: Vec<(u32, &str)> = found
        .iter()
        .map(|(t, v)| (*t, WORKLOADS[v.profile]))
        .collect();
    for change in (0..trace.n_tokens()).step_by(PERIOD as usize) {
        let right = WORKLOADS[workload(change)];
        let in_time = change..change + 100;
        assert!(
            names
                .iter()
                .any(|(t, name)| in_time.contains(t) && *name == right),
            "{right} at {change}: {names:?}"
        );
    }
    assert!(found.len() == 10, "{names:?}");
    assert_eq!(chooser.chosen(), last);
}

/// Two profiles of two layers of four experts: one picks the even experts, one the odd.
fn even_and_odd() -> [Profile; 2] {
    [0, 1].map(|odd| {
        let mut profile = empty("x", &[4, 4]);
        for layer in &mut profile.layers {
            layer.generation.weight[odd] = 500.0;
            layer.generation.weight[odd + 2] = 500.0;
        }
        profile
    })
}

/// A batch of tokens that all pick `expert` in both layers.
fn batch(chooser: &mut Chooser, n_tokens: u32, expert: u32) -> Option<Verdict> {
    let first = chooser.observe(0, Phase::Decode, n_tokens, &[expert], &[n_tokens]);
    let second = chooser.observe(1, Phase::Decode, n_tokens, &[expert], &[n_tokens]);
    assert_eq!(second, None, "a batch ends when the next begins");
    first
}

#[test]
fn a_long_prompt_decides_at_once_and_a_token_does_not() {
    let [even, odd] = even_and_odd();
    let mut chooser = Chooser::new(&[&even, &odd]);
    assert_eq!(batch(&mut chooser, 512, 1), None);
    let verdict = batch(&mut chooser, 1, 1).unwrap();
    assert_eq!(
        (verdict.profile, verdict.n_tokens, verdict.is_change),
        (1, 512, false)
    );
    assert!(verdict.confidence > 0.99);

    let mut chooser = Chooser::new(&[&even, &odd]);
    for _ in 0..24 {
        assert_eq!(batch(&mut chooser, 1, 0), None);
    }
    let verdict = batch(&mut chooser, 1, 0).unwrap();
    assert_eq!((verdict.profile, verdict.n_tokens), (0, 24));
}

/// It picks each like the other: after 64 tokens the first is as good as any.
#[test]
fn what_is_not_clear_is_decided_late() {
    let [even, _] = even_and_odd();
    let mut chooser = Chooser::new(&[&even, &even]);
    for _ in 0..64 {
        assert_eq!(batch(&mut chooser, 1, 2), None);
    }
    let verdict = batch(&mut chooser, 1, 2).unwrap();
    assert_eq!((verdict.profile, verdict.n_tokens), (0, 64));
    assert_eq!(verdict.confidence, 0.5);
}

/// In a model of one layer each event is a batch.
#[test]
fn a_layer_that_comes_again_begins_a_batch() {
    let mut profile = empty("x", &[4]);
    profile.layers[0].generation.weight[2] = 100.0;
    let mut chooser = Chooser::new(&[&profile]);
    let mut pick = || chooser.observe(0, Phase::Decode, 1, &[2], &[1]);
    for _ in 0..24 {
        assert_eq!(pick(), None);
    }
    assert_eq!(pick().map(|verdict| verdict.n_tokens), Some(24));
}

/// A profile and one that picks expert 0 a little more, and expert 2 less: 3 % more are 0.03 nats.
fn alike() -> [Profile; 2] {
    let [even, mut other] = [0, 0].map(|i| even_and_odd()[i].clone());
    for layer in &mut other.layers {
        layer.generation.weight = vec![515.0, 0.0, 485.0, 0.0];
    }
    [even, other]
}

#[test]
fn a_profile_that_is_hardly_better_is_no_change() {
    let [even, other] = alike();
    let mut chooser = Chooser::new(&[&even, &other]);
    let first = (0..65).find_map(|_| batch(&mut chooser, 1, 2));
    assert_eq!(first.map(|verdict| verdict.profile), Some(0));
    for _ in 0..10_000 {
        assert_eq!(batch(&mut chooser, 1, 0), None);
    }
}

#[test]
fn many_tokens_of_a_kind_make_no_surer_than_a_few() {
    let [even, other] = alike();
    let sure = |n_tokens| {
        let mut chooser = Chooser::new(&[&even, &other]);
        batch(&mut chooser, n_tokens, 0);
        chooser.finish();
        chooser.confidences()[1]
    };
    assert!(0.5 < sure(6) && sure(6) < sure(24) && sure(24) < 0.6);
    assert!((sure(24) - sure(2400)).abs() < 1e-9);
}

#[test]
fn what_is_like_no_profile_is_not_decided_and_forgotten() {
    let [even, _] = even_and_odd();
    let mut chooser = Chooser::new(&[&even]);
    for _ in 0..6400 {
        assert_eq!(batch(&mut chooser, 1, 1), None);
    }
    assert_eq!(chooser.chosen(), None);
    assert!(chooser.scores()[0] < -2.0);
    // At most 64 tokens of what came before are held against it.
    let decided = (0..128).find_map(|_| batch(&mut chooser, 1, 0));
    assert_eq!(decided.map(|verdict| verdict.profile), Some(0));
}

/// Experts that a profile never saw cost 3 nats at most, so that a few do not outweigh the rest.
#[test]
fn a_pick_costs_a_bounded_amount() {
    let [even, odd] = even_and_odd();
    let mut chooser = Chooser::new(&[&even, &odd]);
    batch(&mut chooser, 24, 0);
    assert_eq!(chooser.finish().map(|v| v.profile), Some(0));
    assert!(chooser.scores()[1] >= -3.0 && chooser.scores()[0] <= 2f64.ln());
    // A token of the other kind now and then is no change.
    for i in 0..10_000 {
        assert_eq!(batch(&mut chooser, 1, u32::from(i % 4 == 0)), None, "{i}");
    }
    let changed = (1..).find_map(|n| batch(&mut chooser, 1, 1).map(|verdict| (n, verdict)));
    let (n, verdict) = changed.unwrap();
    assert!(
        n < 8 && verdict.is_change && verdict.profile == 1,
        "{n} {verdict:?}"
    );
}

/// Batches are as good as tokens one by one, and the number of layers does not count.
#[test]
fn scores_are_means_over_picks() {
    let [even, odd] = even_and_odd();
    let mut one_by_one = Chooser::new(&[&even, &odd]);
    for expert in [0, 0, 0, 1] {
        batch(&mut one_by_one, 1, expert);
    }
    one_by_one.finish();
    let mut together = Chooser::new(&[&even, &odd]);
    for layer in [0, 1] {
        together.observe(layer, Phase::Decode, 4, &[0, 1], &[3, 1]);
    }
    together.finish();
    for (a, b) in one_by_one.scores().into_iter().zip(together.scores()) {
        assert!((a - b).abs() < 1e-9, "{a} {b}");
    }
    // Nothing was added to one layer twice: the last layer may compute fewer tokens.
    let mut fewer = Chooser::new(&[&even, &odd]);
    fewer.observe(0, Phase::Decode, 4, &[0], &[4]);
    fewer.observe(1, Phase::Decode, 1, &[0], &[1]);
    fewer.finish();
    let mut all = Chooser::new(&[&even, &odd]);
    batch(&mut all, 4, 0);
    all.finish();
    for (a, b) in fewer.scores().into_iter().zip(all.scores()) {
        assert!((a - b).abs() < 1e-9, "{a} {b}");
    }
    assert!((all.confidences().iter().sum::<f64>() - 1.0).abs() < 1e-12);
    assert!(all.confidences()[0] > 0.9 && all.confidences()[1] < 0.1);
}

#[test]
fn a_phase_that_was_not_learnt_is_taken_from_the_other() {
    let trace = mixed();
    let of_first = |token| token < 200;
    let generation = learnt(&trace, "x", Phase::Decode, of_first);
    let prompt = learnt(&trace, "x", Phase::Prefill, of_first);
    let both = [&generation, &prompt];
    for phase in Phase::ALL {
        let mut chooser = Chooser::new(&both);
        for (_, e) in trace.events().filter(|(token, _)| *token < 20) {
            chooser.observe(e.layer as usize, phase, 1, e.experts, e.rows);
        }
        chooser.finish();
        let scores = chooser.scores();
        assert!(scores[0] == scores[1] && scores[0] > 0.1, "{scores:?}");
    }
    // Where both are known, each is used for itself.
    let mut two = generation.clone();
    let late = learnt(&trace, "x", Phase::Prefill, |token| {
        (400..600).contains(&token)
    });
    for (layer, late) in two.layers.iter_mut().zip(&late.layers) {
        layer.prompt = late.prompt.clone();
    }
    let mut chooser = Chooser::new(&[&generation, &two]);
    for (_, e) in trace.events().filter(|(token, _)| *token < 20) {
        chooser.observe(e.layer as usize, Phase::Prefill, 1, e.experts, e.rows);
    }
    chooser.finish();
    let scores = chooser.scores();
    assert!(scores[0] > scores[1] + 0.1, "{scores:?}");
}

#[test]
fn profiles_that_know_nothing_and_no_profiles_are_never_chosen() {
    let nothing = empty("x", &[4, 4]);
    for profiles in [&[&nothing][..], &[]] {
        let mut chooser = Chooser::new(profiles);
        for _ in 0..200 {
            assert_eq!(batch(&mut chooser, 1, 1), None);
        }
        assert_eq!(chooser.finish(), None);
        assert_eq!(chooser.scores(), vec![0.0; profiles.len()]);
    }
}

#[test]
#[should_panic(expected = "profiles of one shape")]
fn profiles_of_two_shapes_are_refused() {
    Chooser::new(&[&empty("x", &[4, 4]), &empty("x", &[4, 5])]);
}
