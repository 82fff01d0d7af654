//! How well routing tells which of several profiles a workload is.
//!
//! ```text
//! cargo run --release --example profile_choice -- PERIOD MIXED.trace.gz TRACE.trace.gz...
//! ```
//!
//! There is one TRACE for each workload. Profiles are made of every other 100 tokens of it; what lies between is
//! recognised 64 tokens at a time, then the whole trace is gone through for changes that are none. MIXED has a change
//! every PERIOD tokens; the profiles have not seen it.

use anyhow::{Context, bail};
use hotset::profile::{Chooser, Fingerprint, Lesson, Profile, Verdict};
use hotset::trace::Trace;
use hotset::tracker::Phase;
use std::ops::Range;
use std::path::Path;
use std::time::Instant;

/// Tokens that are learnt, and as many that are not.
const BLOCK: u32 = 100;
/// Tokens that are recognised at a time.
const SNIPPET: u32 = 64;

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [period, mixed, paths @ ..] = &args[..] else {
        bail!("usage: profile_choice PERIOD MIXED.trace.gz TRACE.trace.gz...");
    };
    let period: u32 = period.parse().context("PERIOD is a number of tokens")?;
    let open = |path: &String| Trace::open(Path::new(path), u32::MAX);
    let traces: Vec<Trace> = paths.iter().map(open).collect::<Result<_, _>>()?;
    let learnt: Vec<Profile> = paths.iter().zip(&traces).map(profile).collect();
    let profiles: Vec<&Profile> = learnt.iter().collect();
    for (right, trace) in traces.iter().enumerate() {
        println!("{}", snippets(&profiles, right, trace));
    }
    let trace = open(mixed)?;
    println!("{mixed}:");
    for (token, verdict) in decisions(&profiles, &trace, 0..trace.n_tokens()) {
        let name = &profiles[verdict.profile].name;
        let (since, sure) = (token % period, 100.0 * verdict.confidence);
        println!("token {token}: {name} ({sure:.0} %), {since} after a change");
    }
    let started = Instant::now();
    decisions(&profiles, &trace, 0..trace.n_tokens());
    let n_picks: usize = trace.events().map(|(_, e)| e.experts.len()).sum();
    let ns = started.elapsed().as_nanos() as f64 / n_picks as f64;
    println!("{ns:.1} ns per pick with {} profiles", profiles.len());
    Ok(())
}

/// Of every other block.
fn profile((path, trace): (&String, &Trace)) -> Profile {
    let header = trace.header();
    let n_experts = vec![header.n_experts; header.n_layers as usize];
    let model = Fingerprint {
        architecture: String::new(),
        name: String::new(),
        n_layers: header.n_layers,
        n_experts: header.n_experts,
        top_k: header.top_k,
    };
    let mut lesson = Lesson::new(&n_experts);
    let is_learnt = |token: u32| (token / BLOCK).is_multiple_of(2);
    for (_, event) in trace.events().filter(|(token, _)| is_learnt(*token)) {
        let picks = &mut lesson.layers[event.layer as usize][Phase::Decode as usize];
        for (&expert, &rows) in event.experts.iter().zip(event.rows) {
            picks[expert as usize] += u64::from(rows);
        }
    }
    lesson.tokens.generation = (0..trace.n_tokens()).filter(|t| is_learnt(*t)).count() as u64;
    let name = Path::new(path)
        .file_name()
        .unwrap_or_default()
        .to_string_lossy();
    let mut profile = Profile::new(name.trim_end_matches(".trace.gz"), model, &n_experts);
    profile.learn(&lesson);
    profile
}

/// With the tokens after which they were made.
fn decisions(profiles: &[&Profile], trace: &Trace, tokens: Range<u32>) -> Vec<(u32, Verdict)> {
    let mut chooser = Chooser::new(profiles);
    let mut decisions = Vec::new();
    for (token, e) in trace.events().filter(|(token, _)| tokens.contains(token)) {
        let layer = e.layer as usize;
        let verdict = chooser.observe(layer, Phase::Decode, e.n_tokens, e.experts, e.rows);
        decisions.extend(verdict.map(|verdict| (token, verdict)));
    }
    decisions.extend(chooser.finish().map(|verdict| (tokens.end, verdict)));
    decisions
}

/// How the workload with the number `right` is recognised.
fn snippets(profiles: &[&Profile], right: usize, trace: &Trace) -> String {
    let within = |block| (0..=BLOCK - SNIPPET).step_by(12).map(move |at| block + at);
    let blocks = (BLOCK..trace.n_tokens()).step_by(2 * BLOCK as usize);
    let (mut n, mut n_right, mut n_none, mut sure) = (0, 0, 0, 0.0);
    let mut needed = Vec::new();
    for first in blocks.flat_map(within) {
        let found = decisions(profiles, trace, first..first + SNIPPET);
        n += 1;
        let Some((_, verdict)) = found.first() else {
            n_none += 1;
            continue;
        };
        n_right += u32::from(verdict.profile == right);
        sure += 100.0 * verdict.confidence;
        needed.push(verdict.n_tokens);
    }
    needed.sort_unstable();
    let changes = decisions(profiles, trace, 0..trace.n_tokens()).len();
    format!(
        "{}: {n_right} of {n} right, {n_none} undecided, {:.0} % sure, after {:?} tokens (median) and at most {:?}; \
         {changes} decisions in {} tokens",
        profiles[right].name,
        sure / f64::from(n - n_none).max(1.0),
        needed.get(needed.len() / 2),
        needed.last(),
        trace.n_tokens(),
    )
}
