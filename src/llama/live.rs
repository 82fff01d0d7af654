//! What a running server shows, of the models that are loaded: see [`crate::live`].
//!
//! Threads of the server ask. What takes long is done by a thread that gives way to all others and holds no lock, of
//! copies, and not often.

use super::live_models::{Live, models};
use super::loaded::try_loaded_models;
use super::metering;
use super::quietly::apart;
use crate::config::StatsTo;
use crate::engine::Engine;
use crate::hindsight::{Hindsight, Lookback};
use crate::live::{
    Answer, DeviceUse, LivePlan, Metered, ModelHeat, Pace, Speed, Tick, WINDOW_PICKS, ticks_text,
};
use crate::memory;
use crate::policy::{REGISTRY, Spec};
use crate::profile::recognizer::Recognized;
use crate::report;
use crate::stats::{RECENT_PICKS, Stats};
use crate::sync::Busy;
use serde::Serialize;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{LazyLock, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// What is kept from one request to the next. Nothing is waited for while it is locked.
#[derive(Default)]
struct Kept {
    /// By life of a model.
    models: HashMap<u64, Looked>,
    tick: Option<Ticked>,
}

/// What was looked up of a model.
#[derive(Default)]
struct Looked {
    /// The counters when they were to begin anew, and when that was.
    begin: Option<(Stats, Instant)>,
    /// How often they were.
    n_begun: u64,
    hindsight: Option<Hindsight>,
    hindsight_pace: Pace,
    plan: Option<LivePlan>,
    plan_pace: Pace,
}

/// The latest second.
#[derive(Clone)]
struct Ticked {
    second: u64,
    at: Instant,
    sample: Vec<Sample>,
    text: String,
}

/// A model as it was at a time.
#[derive(Clone)]
struct Sample {
    life: u64,
    stats: Stats,
    budget_bytes: u64,
}

static KEPT: LazyLock<Mutex<Kept>> = LazyLock::new(Mutex::default);
/// When the process began to answer.
static BEGAN: LazyLock<Instant> = LazyLock::new(Instant::now);

fn kept() -> MutexGuard<'static, Kept> {
    KEPT.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// The process begins.
pub fn begin() {
    LazyLock::force(&BEGAN);
}

/// The text for `/metrics`.
pub fn metrics() -> String {
    // A signal that came now would wait for locks of ours.
    let _busy = Busy::begin();
    let models = models().unwrap_or_default();
    let uncached = try_loaded_models().map(|loaded| loaded.uncached().to_string());
    let uncached = uncached.filter(|why| !why.is_empty());
    let counted: Vec<_> = models
        .iter()
        .filter_map(|model| Some((model, model.counters()?)))
        .collect();
    let mut names: Vec<String> = Vec::new();
    for (model, _) in &counted {
        // Files of one name in several folders are told apart.
        let short = metering::short(&model.name).to_string();
        names.push(match names.contains(&short) {
            true => model.name.clone(),
            false => short,
        });
    }
    let metered = counted
        .iter()
        .zip(&names)
        .map(|((model, stats), name)| Metered {
            model: name,
            life: model.loaded.life(),
            stats,
            budget_bytes: model.budget_bytes(),
            hindsight: hindsight(model, stats),
            profile: model.loaded.workload().and_then(|workload| workload.used()),
            recognized: model.recognized(),
            devices: devices(model, stats, uncached.as_deref()),
        });
    let metered: Vec<Metered> = metered.collect();
    metering::text(&metered).unwrap_or_else(|error| {
        report::say(&format!("hotset: error: {error}"));
        String::new()
    })
}

/// Whether devices are used, and why not.
fn devices(model: &Live, stats: &Stats, uncached: Option<&str>) -> Vec<DeviceUse> {
    let is_aside = model.caches.iter().any(|cached| cached.is_aside());
    let mut names: Vec<&String> = stats.devices.iter().map(|device| &device.device).collect();
    names.sort_unstable();
    names.dedup();
    if names.is_empty() {
        return vec![DeviceUse {
            device: String::new(),
            reason: Some(
                uncached
                    .unwrap_or("there is none (--moe-cache-mib)")
                    .to_string(),
            ),
        }];
    }
    let device = |name: &String| DeviceUse {
        device: name.clone(),
        reason: is_aside.then(|| "a token takes longer with it".to_string()),
    };
    names.into_iter().map(device).collect()
}

/// What is said of a model besides its counters.
#[derive(Serialize)]
struct Now {
    ram: String,
    budget_bytes: u64,
    budget_bytes_max: u64,
    available_bytes: u64,
    disk_bytes_per_s: Option<f64>,
    policies: Vec<PolicyNow>,
    profile: ProfileNow,
    uptime_s: f64,
    since_s: f64,
    hindsight_age_s: Option<f64>,
}

#[derive(Serialize)]
struct PolicyNow {
    name: &'static str,
    choice: String,
    about: &'static str,
}

#[derive(Serialize)]
struct ProfileNow {
    saves_to: Option<PathBuf>,
    used: Vec<String>,
    folder: Option<PathBuf>,
    workload: Option<Recognized>,
}

#[derive(Serialize)]
struct StatsNow {
    #[serde(flatten)]
    stats: Stats,
    live: Now,
}

/// The counters of each model, and how things are.
pub fn stats(models: &[Live]) -> Answer {
    let ram = try_loaded_models().map(|loaded| loaded.config.ram_text.clone());
    let ram = ram.unwrap_or_default();
    let now = Instant::now();
    let of = |model: &Live| {
        let counted = model.counters()?;
        let hindsight = hindsight(model, &counted);
        let profile = ProfileNow::of(model);
        let (begin, age) = {
            let mut kept = kept();
            let looked = kept.looked(model);
            (looked.begin.clone(), looked.hindsight_pace.age(now))
        };
        let since = begin
            .as_ref()
            .map_or(model.loaded.loaded_at(), |(_, at)| *at);
        let counted = match &begin {
            Some((before, _)) => counted.since(before),
            None => counted,
        };
        let most = |engine: &Engine| engine.layout().slot_bytes_most();
        let seconds = |at: Instant| now.saturating_duration_since(at).as_secs_f64();
        Some(StatsNow {
            live: Now {
                ram: model.streamed().map_or_else(String::new, |_| ram.clone()),
                budget_bytes: model.budget_bytes(),
                budget_bytes_max: model.engine().map_or(0, most),
                available_bytes: memory::available().bytes,
                disk_bytes_per_s: model.streamed().and_then(|m| m.disk_bytes_per_second()),
                policies: REGISTRY.iter().map(PolicyNow::of).collect(),
                profile,
                uptime_s: seconds(*BEGAN),
                since_s: seconds(since),
                hindsight_age_s: hindsight.as_ref().and(age).map(|age| age.as_secs_f64()),
            },
            stats: Stats {
                hindsight,
                ..counted
            },
        })
    };
    Answer::json(&models.iter().filter_map(of).collect::<Vec<_>>())
}

impl PolicyNow {
    fn of(spec: &Spec) -> Self {
        Self {
            name: spec.name,
            choice: spec.choice(),
            about: spec.about,
        }
    }
}

impl ProfileNow {
    fn of(model: &Live) -> Self {
        let workload = model.loaded.workload();
        Self {
            saves_to: workload.and_then(|workload| workload.saves_to()),
            used: workload
                .and_then(|workload| workload.used())
                .into_iter()
                .collect(),
            folder: workload.and_then(|workload| workload.folder()),
            workload: model.recognized(),
        }
    }
}

/// How hot each expert is, and where.
pub fn heat(models: &[Live]) -> Answer {
    let of = |model: &Live| {
        let caches = model.caches.iter();
        let devices: Vec<_> = caches.filter_map(|cached| cached.cache()).collect();
        let blocks = model.loaded.blocks();
        ModelHeat::look(model.name.clone(), blocks, model.engine(), &devices)
    };
    Answer::json(&models.iter().map(of).collect::<Vec<_>>())
}

/// What the next second brings: waits for its end.
pub fn events() -> Answer {
    /// A sample that is older than this is no begin of a second.
    const AGE_MAX: Duration = Duration::from_millis(2500);
    let is_old = |tick: &Ticked| tick.at.elapsed() > AGE_MAX;
    if kept().tick.as_ref().is_none_or(is_old) {
        let first = Ticked {
            second: since_1970().as_secs(),
            at: Instant::now(),
            sample: sample(&[]),
            text: String::new(),
        };
        kept().tick = Some(first);
    }
    let now = since_1970();
    let next = Duration::from_secs(now.as_secs() + 1);
    thread::sleep(next.saturating_sub(now));
    // One at a time: the others take what the first has found.
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let second = since_1970().as_secs();
    let Some(tick) = kept().tick.clone() else {
        return Answer::events(String::new());
    };
    if tick.second == second && !tick.text.is_empty() {
        return Answer::events(tick.text);
    }
    let now = sample(&tick.sample);
    let at = Instant::now();
    let seconds = at.saturating_duration_since(tick.at).as_secs_f64();
    let nothing = Stats::default();
    let ticks = now.iter().map(|now| {
        let before = tick.sample.iter().find(|before| before.life == now.life);
        let before = before.map_or(&nothing, |before| &before.stats);
        Tick::between(before, &now.stats, seconds, now.budget_bytes)
    });
    let text = ticks_text(since_1970().as_secs_f64(), &ticks.collect::<Vec<_>>());
    kept().tick = Some(Ticked {
        second,
        at,
        sample: now,
        text: text.clone(),
    });
    Answer::events(text)
}

/// All models now; as `before` one whose counters are not to be had.
fn sample(before: &[Sample]) -> Vec<Sample> {
    let _busy = Busy::begin();
    let Some(models) = models() else {
        return before.to_vec();
    };
    let of = |model: &Live| {
        let life = model.loaded.life();
        let last = || before.iter().find(|last| last.life == life).cloned();
        let now = model.counters().map(|stats| Sample {
            life,
            stats,
            budget_bytes: model.budget_bytes(),
        });
        now.or_else(last)
    };
    models.iter().filter_map(of).collect()
}

fn since_1970() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}

/// The counters of [`stats`] begin anew, and so does what is compared with other policies.
pub fn reset(models: &[Live]) {
    let now = Instant::now();
    for model in models {
        let counted = model.counters().unwrap_or_default();
        if let Some(engine) = model.engine() {
            engine.forget_recent();
        }
        let caches = model.caches.iter().filter_map(|cached| cached.cache());
        caches.for_each(|cache| cache.forget_recent());
        let mut kept = kept();
        let looked = kept.looked(model);
        *looked = Looked {
            begin: Some((counted, now)),
            n_begun: looked.n_begun + 1,
            ..Looked::default()
        };
    }
    report::say("hotset: the counters of /hotset/stats begin anew");
}

impl Kept {
    fn looked(&mut self, model: &Live) -> &mut Looked {
        /// A server that sleeps has another model whenever it wakes.
        const MANY: usize = 64;
        let life = model.loaded.life();
        while self.models.len() >= MANY && !self.models.contains_key(&life) {
            let oldest = self.models.keys().min().copied();
            oldest.map(|oldest| self.models.remove(&oldest));
        }
        self.models.entry(life).or_default()
    }
}

/// What other policies would have done of late, as far as that is known; it is looked up if that is due.
fn hindsight(model: &Live, counted: &Stats) -> Option<Hindsight> {
    let is_kept = try_loaded_models().is_some_and(|loaded| loaded.config.stats != StatsTo::Off);
    let (is_due, n_begun, known) = {
        let mut kept = kept();
        let looked = kept.looked(model);
        let is_due =
            is_kept && counted.n_heard() > 0 && looked.hindsight_pace.begin(Instant::now());
        (is_due, looked.n_begun, looked.hindsight.clone())
    };
    if is_due {
        let life = model.loaded.life();
        // Of copies: the model may go meanwhile.
        let windows = windows(model, RECENT_PICKS);
        let policy = model.policy();
        apart(
            move || windows.map(|windows| Hindsight::of(&windows, &policy)),
            move |found, took| {
                let mut kept = kept();
                let looked = kept
                    .models
                    .get_mut(&life)
                    .filter(|looked| looked.n_begun == n_begun);
                if let Some(looked) = looked {
                    looked.hindsight_pace.end(Instant::now(), took);
                    looked.hindsight = found.flatten().filter(|hindsight| hindsight.picks > 0);
                }
            },
        );
    }
    known
}

/// The latest routing of memory, or of devices where nothing is streamed.
fn windows(model: &Live, n_picks_max: usize) -> Option<Vec<Lookback>> {
    match (model.engine(), model.streamed()) {
        (Some(engine), Some(model)) => Some(Stats::look(engine, &model.policy(), n_picks_max)?.1),
        _ => model
            .caches
            .iter()
            .find_map(|cached| Some(cached.cache()?.windows(n_picks_max))),
    }
}

/// What each amount of memory would bring. The models may go while it is found out.
pub fn plan(models: Vec<Live>) -> Answer {
    /// A plan that is being made is waited for, looking so often.
    const PAUSE: Duration = Duration::from_millis(20);
    const LIMIT: Duration = Duration::from_secs(60);
    for model in &models {
        let life = model.loaded.life();
        if !kept().looked(model).plan_pace.begin(Instant::now()) {
            continue;
        }
        let planning = planning(model);
        let done = move |made: Option<Option<LivePlan>>, took| {
            let mut kept = kept();
            if let Some(looked) = kept.models.get_mut(&life) {
                looked.plan = made.flatten();
                // Before anything was generated it may be asked for again at once.
                match looked
                    .plan
                    .as_ref()
                    .is_some_and(|plan| !plan.plan.rows.is_empty())
                {
                    true => looked.plan_pace.end(Instant::now(), took),
                    false => looked.plan_pace = Pace::default(),
                }
            }
        };
        apart(move || planning.and_then(|plan| plan()), done);
    }
    let names: Vec<_> = models
        .iter()
        .map(|model| (model.loaded.life(), model.name.clone(), model.policy()))
        .collect();
    drop(models);
    let begin = Instant::now();
    let of = |(life, name, policy)| {
        loop {
            let (is_running, plan) = match kept().models.get(&life) {
                Some(looked) => (looked.plan_pace.is_running(), looked.aged_plan()),
                None => (false, None),
            };
            if !is_running || begin.elapsed() > LIMIT {
                return plan.unwrap_or_else(|| LivePlan::nothing(name, policy));
            }
            thread::sleep(PAUSE);
        }
    };
    Answer::json(&names.into_iter().map(of).collect::<Vec<_>>())
}

impl Looked {
    fn aged_plan(&self) -> Option<LivePlan> {
        let age = self.plan_pace.age(Instant::now()).unwrap_or_default();
        self.plan.clone().map(|plan| LivePlan {
            age_s: age.as_secs_f64(),
            ..plan
        })
    }
}

/// What makes the plan of a model that streams, of copies of what it knows.
fn planning(live: &Live) -> Option<impl FnOnce() -> Option<LivePlan> + Send + use<>> {
    let model = live.streamed()?;
    let engine = live.engine()?;
    let (stats, windows) = Stats::look(engine, &model.policy(), WINDOW_PICKS)?;
    let layout = engine.layout().clone();
    let n_tokens = stats.generation.tokens as f64;
    let each = |sum: f64| (n_tokens > 0.0).then(|| sum / n_tokens);
    let time = stats.generation_time;
    let expert_bytes = layout.expert_bytes as f64 / layout.n_experts() as f64;
    let speed = Speed {
        disk_bytes_per_s: model.disk_bytes_per_second(),
        compute_ms_per_token: each(time.busy_ms - time.stalled_ms),
        stalled_ms_per_token: each(time.stalled_ms),
        bytes_per_token: each(stats.generation.misses as f64 * expert_bytes),
    };
    let (name, top_k, budget) = (live.name.clone(), model.top_k(), live.budget_bytes());
    Some(move || LivePlan::of(name, &stats.policy, &layout, top_k, budget, &windows, speed).ok())
}
