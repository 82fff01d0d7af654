//! What profiles are worth: misses with the right, a wrong, a merged, a stale and no profile.
//!
//! ```text
//! cargo run --release --example warm_starts -- CLASS.trace.gz...
//! ```
//!
//! Each trace is of one class of text, at least 3000 tokens. The first 2000 make the profile of the class, the
//! rest is replayed with the engine's own residency and the default policy.

use anyhow::{Context, ensure};
use hotset::config::DEFAULT_POLICY;
use hotset::expert::{Event, Shape};
use hotset::policy::{self, Prior};
use hotset::profile::{Blend, Fingerprint, Lesson, PRIOR_TOKENS, Profile, merge};
use hotset::replay::belady;
use hotset::residency::{Buffers, Residency};
use hotset::trace::Trace;
use hotset::tracker::Phase;
use std::path::Path;

/// Shares of the experts that fit, in percent.
const PERCENT: [u32; 4] = [10, 20, 30, 50];
/// Tokens that make a profile.
const N_TAUGHT: u32 = 2000;
/// Tokens of a class that are replayed.
const N_HELD_OUT: u32 = 1000;

/// A class of text.
struct Class {
    name: String,
    trace: Trace,
    profile: Profile,
}

/// A cache that can start warm.
struct Session {
    residency: Residency,
    buffers: Buffers,
}

impl Session {
    /// With the hottest experts of `profile` resident and the policy primed, or empty.
    fn new(shape: &Shape, percent: u32, profile: Option<&Profile>, is_warmed: bool) -> Self {
        let n_slots = n_slots(shape, percent);
        let policy = policy::by_name(DEFAULT_POLICY, shape).expect("it is the default");
        let mut residency = Residency::new(shape.clone(), n_slots, policy);
        if let Some(profile) = profile {
            let frequency = Blend::of(&[(profile, 1.0)]).layers.concat();
            residency.prime(&Prior {
                frequency: &frequency,
                n_tokens: n_prior_tokens(),
            });
            let mut order: Vec<usize> = (0..shape.n_total()).collect();
            order.sort_by(|&a, &b| frequency[b].total_cmp(&frequency[a]));
            if is_warmed {
                residency.fill_free(order);
            }
        }
        Self {
            residency,
            buffers: Buffers::default(),
        }
    }

    /// Replays tokens of a trace; returns its picks and misses.
    fn run(&mut self, trace: &Trace, first: u32, n_tokens: u32) -> (u64, u64) {
        let (mut n_picks, mut n_misses) = (0, 0);
        for event in events(trace, first, n_tokens) {
            let buffers = std::mem::take(&mut self.buffers);
            let planned = self.residency.plan(&event, buffers);
            let plan = self.residency.commit(planned.expect("traces are checked"));
            n_picks += event.experts.len() as u64;
            n_misses += (event.experts.len() - plan.hits.len()) as u64;
            self.buffers = self.residency.release(plan);
        }
        (n_picks, n_misses)
    }
}

/// What a profile is worth: as released, or what the variable says, for experiments.
fn n_prior_tokens() -> f32 {
    let given = std::env::var("PRIOR_TOKENS").ok();
    given.map_or(PRIOR_TOKENS, |n| {
        n.parse().expect("PRIOR_TOKENS is a number")
    })
}

fn events(trace: &Trace, first: u32, n_tokens: u32) -> impl Iterator<Item = Event<'_>> {
    let tokens = first..first + n_tokens;
    let events = trace.events().filter(move |(t, _)| tokens.contains(t));
    events.map(|(_, event)| event)
}

impl Class {
    fn open(path: &str) -> anyhow::Result<Self> {
        let trace = Trace::open(Path::new(path), N_TAUGHT + N_HELD_OUT)?;
        ensure!(
            trace.n_tokens() == N_TAUGHT + N_HELD_OUT,
            "{path} is too short"
        );
        let header = trace.header();
        let name = header
            .workload
            .clone()
            .context("the trace names no workload")?;
        let model = Fingerprint {
            architecture: String::new(),
            name: header.model.clone().unwrap_or_default(),
            n_layers: header.n_layers,
            n_experts: header.n_experts,
            top_k: header.top_k,
        };
        let n_experts = vec![header.n_experts; header.n_layers as usize];
        let mut lesson = Lesson::new(&n_experts);
        lesson.tokens.generation = N_TAUGHT.into();
        for event in events(&trace, 0, N_TAUGHT) {
            let picks = &mut lesson.layers[event.layer as usize][Phase::Decode as usize];
            event.experts.iter().for_each(|&e| picks[e as usize] += 1);
        }
        let mut profile = Profile::new(&name, model, &n_experts);
        profile.learn(&lesson);
        Ok(Self {
            name,
            trace,
            profile,
        })
    }

    /// The fewest misses of the same starts that there can be: of the offline optimum, which begins with the experts
    /// it will need first. From an empty cache it would miss each of these once.
    fn fewest_misses(&self, shape: &Shape, percent: u32, n_tokens: u32) -> u64 {
        let n_slots = n_slots(shape, percent);
        let start = |first| {
            let counts = belady(events(&self.trace, first, n_tokens), shape, n_slots);
            let misses = counts.expect("traces are checked").decode.misses;
            misses.saturating_sub(n_slots.into())
        };
        starts(n_tokens).map(start).sum()
    }

    /// Misses of starts all over the held-out text, `n_tokens` each.
    fn misses(&self, shape: &Shape, percent: u32, n_tokens: u32, profile: Option<&Profile>) -> u64 {
        let start = |first| {
            let mut session = Session::new(shape, percent, profile, true);
            session.run(&self.trace, first, n_tokens).1
        };
        starts(n_tokens).map(start).sum()
    }
}

/// First tokens of starts.
fn starts(n_tokens: u32) -> impl Iterator<Item = u32> {
    (N_TAUGHT..N_TAUGHT + N_HELD_OUT - n_tokens + 1).step_by(64)
}

fn n_slots(shape: &Shape, percent: u32) -> u32 {
    shape.n_total() as u32 * percent / 100
}

fn change(with: u64, without: u64) -> String {
    format!("{:+.1} %", 100.0 * (with as f64 / without as f64 - 1.0))
}

fn main() -> anyhow::Result<()> {
    let paths: Vec<String> = std::env::args().skip(1).collect();
    let classes: Vec<Class> = paths
        .iter()
        .map(|p| Class::open(p))
        .collect::<Result<_, _>>()?;
    ensure!(
        classes.len() > 1,
        "usage: warm_starts CLASS.trace.gz CLASS.trace.gz..."
    );
    let shape = classes[0].trace.header().shape();
    let parts: Vec<_> = classes.iter().map(|c| (&c.profile, 1.0)).collect();
    let all = merge("all", &parts)?;
    for percent in PERCENT {
        println!("\n{percent} % of the experts fit; misses against those without a profile");
        let mut sums = [0u64; 7];
        for class in &classes {
            let misses = |n, profile| class.misses(&shape, percent, n, profile);
            let (none, long) = (misses(64, None), misses(512, None));
            let (right, merged) = (misses(64, Some(&class.profile)), misses(64, Some(&all)));
            let (right_512, merged_512) =
                (misses(512, Some(&class.profile)), misses(512, Some(&all)));
            let fewest = class.fewest_misses(&shape, percent, 64);
            for (sum, n) in sums
                .iter_mut()
                .zip([none, right, merged, long, right_512, merged_512, fewest])
            {
                *sum += n;
            }
            let others = classes.iter().filter(|other| other.name != class.name);
            let wrong: Vec<_> = others
                .map(|o| format!("{} {}", o.name, change(misses(512, Some(&o.profile)), long)))
                .collect();
            println!(
                "{:<5} 64 tokens: right {}, merged {}; 512 tokens: right {}, merged {}, wrong: {}",
                class.name,
                change(right, none),
                change(merged, none),
                change(right_512, long),
                change(merged_512, long),
                wrong.join(", ")
            );
        }
        let [none, right, merged, long, right_512, merged_512, fewest] = sums;
        println!(
            "all   64 tokens: right {}, merged {}, best possible {}; 512 tokens: right {}, merged {}",
            change(right, none),
            change(merged, none),
            change(fewest, none),
            change(right_512, long),
            change(merged_512, long)
        );
        apart(&shape, percent, &classes);
        stale(&shape, percent, &classes);
    }
    Ok(())
}

/// Workloads whose prompts are of one class and whose answers are of another: what is lost if a profile does not
/// keep the two apart.
fn apart(shape: &Shape, percent: u32, classes: &[Class]) {
    let (mut none, mut kept, mut mixed) = (0, 0, 0);
    for answers in classes {
        for prompts in classes
            .iter()
            .filter(|prompts| prompts.name != answers.name)
        {
            let parts = [(&answers.profile, 1.0), (&prompts.profile, 1.0)];
            let both = merge("both", &parts).expect("one model");
            none += answers.misses(shape, percent, 64, None);
            kept += answers.misses(shape, percent, 64, Some(&answers.profile));
            mixed += answers.misses(shape, percent, 64, Some(&both));
        }
    }
    println!(
        "prompts of another class than the answers, 64 tokens: kept apart {}, mixed up {}",
        change(kept, none),
        change(mixed, none)
    );
}

/// A session changes from the first class to each other one: hit rates with the profile of the first, and of a
/// fresh start, by tokens after the change.
fn stale(shape: &Shape, percent: u32, classes: &[Class]) {
    let (first, others) = classes.split_first().expect("there are classes");
    for other in others {
        let mut before = Session::new(shape, percent, Some(&first.profile), true);
        before.run(&first.trace, N_TAUGHT, 400);
        let mut fresh = Session::new(shape, percent, None, true);
        let mut rates = Vec::new();
        for begin in (0..256).step_by(64) {
            let rate = |session: &mut Session| {
                let (picks, misses) = session.run(&other.trace, N_TAUGHT + begin, 64);
                100.0 * (1.0 - misses as f64 / picks as f64)
            };
            rates.push(format!(
                "{:.1} ({:.1})",
                rate(&mut before),
                rate(&mut fresh)
            ));
        }
        println!(
            "{} > {}: hit rates in four times 64 tokens after the change, fresh start in brackets: {}",
            first.name,
            other.name,
            rates.join(", ")
        );
    }
}
