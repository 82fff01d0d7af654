//! What a running server answers, of the models that are loaded: see [`crate::live`].
//!
//! Threads of the server ask. What takes long is done by a thread that gives way to all others, and not often; no lock
//! that a token waits for is held meanwhile.

use super::device::{self, Cached};
use super::loaded::try_loaded_models;
use super::loaded_model::LoadedModel;
use super::model::Model;
use super::{signals, steering};
use crate::config::StatsTo;
use crate::device::DeviceStats;
use crate::engine::Engine;
use crate::error::Error;
use crate::hindsight::Hindsight;
use crate::live::{
    Answer, Counters, DeviceUse, LivePlan, Metered, ModelHeat, PAGE, Pace, Request, Speed, Tick,
    WINDOW_PICKS, ticks_text,
};
use crate::memory;
use crate::policy::REGISTRY;
use crate::profile::recognizer::Recognized;
use crate::report;
use crate::stats::{RECENT_PICKS, Stats};
use crate::sync::Busy;
use serde::Serialize;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A model, as a server tells of it.
pub struct Live {
    /// What it is called: no other one is called so.
    pub name: String,
    /// The model.
    pub loaded: LoadedModel,
    /// What devices keep of it.
    pub caches: Vec<Arc<Cached>>,
    /// Of caches that are gone.
    gone: Vec<DeviceStats>,
}

/// What is kept from one request to the next.
struct Kept {
    /// When the process began to answer.
    began: Instant,
    counters: Counters,
    /// By life of a model.
    models: HashMap<u64, Looked>,
    tick: Option<Ticked>,
}

/// What was looked up of a model.
#[derive(Default)]
struct Looked {
    /// The counters when they were to begin anew, and when that was.
    begin: Option<(Stats, Instant)>,
    hindsight: Option<Hindsight>,
    hindsight_pace: Pace,
    plan: Option<LivePlan>,
    plan_pace: Pace,
}

/// The latest second.
struct Ticked {
    second: u64,
    at: Instant,
    sample: Vec<(u64, Stats)>,
    text: String,
}

static KEPT: LazyLock<Mutex<Kept>> = LazyLock::new(|| {
    Mutex::new(Kept {
        began: Instant::now(),
        counters: Counters::default(),
        models: HashMap::new(),
        tick: None,
    })
});

fn kept() -> MutexGuard<'static, Kept> {
    KEPT.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// All models, in the order in which they were loaded. `None` while one is being loaded, which takes its time.
pub fn models() -> Option<Vec<Live>> {
    let loaded = try_loaded_models()?;
    let streamed = loaded
        .models
        .iter()
        .map(|(key, model)| (*key, LoadedModel::Streamed(model.clone())));
    let others = loaded
        .observers
        .iter()
        .map(|(key, observer)| (*key, LoadedModel::Loaded(observer.clone())));
    let caches = device::all();
    let mut all: Vec<Live> = Vec::new();
    for (key, model) in streamed.chain(others) {
        let name = match &model {
            LoadedModel::Streamed(model) => model.file.display().to_string(),
            LoadedModel::Loaded(observer) => observer.name.clone().unwrap_or_default(),
        };
        let is_taken = |name: &String| all.iter().any(|live| live.name == *name);
        let numbered = |n: u32| match n {
            1 => name.clone(),
            n => format!("{name} ({n})"),
        };
        let name = (1..).map(numbered).find(|name| !is_taken(name));
        let gone = loaded.devices.iter().filter(|(of, _)| *of == key);
        all.push(Live {
            name: name.expect("there are few models"),
            loaded: model,
            caches: caches
                .iter()
                .filter(|cached| cached.model == key)
                .cloned()
                .collect(),
            gone: gone.map(|(_, stats)| stats.clone()).collect(),
        });
    }
    Some(all)
}

impl Live {
    /// The model, if it streams.
    pub fn streamed(&self) -> Option<&Arc<Model>> {
        match &self.loaded {
            LoadedModel::Streamed(model) => Some(model),
            LoadedModel::Loaded(_) => None,
        }
    }

    fn engine(&self) -> Option<&Engine> {
        self.loaded.made_engine()
    }

    fn policy(&self) -> String {
        self.streamed()
            .map_or_else(String::new, |model| model.policy())
    }

    fn counters(&self) -> Stats {
        let counted = self.streamed().and_then(|model| model.counters());
        let live = self.caches.iter().flat_map(|cached| cached.stats(0));
        let devices = self.gone.iter().cloned().chain(live).collect();
        let counted = counted.unwrap_or_else(|| Stats {
            policy: self.policy(),
            ..Stats::default()
        });
        Stats {
            model: self.name.clone(),
            ..counted
        }
        .with_devices(devices)
    }

    /// Bytes of its slots.
    fn budget_bytes(&self) -> u64 {
        self.engine().map_or(0, |engine| engine.size().n_bytes)
    }

    fn recognized(&self) -> Option<Recognized> {
        let of_devices = || {
            self.caches
                .iter()
                .find_map(|cached| cached.cache()?.recognized())
        };
        self.engine()
            .and_then(Engine::recognized)
            .or_else(of_devices)
    }

    /// Other policies on its latest routing. Takes some tenths of a second.
    fn look_back(&self) -> Option<Hindsight> {
        match self.streamed() {
            Some(model) => model.recent()?.hindsight,
            None => {
                let mut stats = self
                    .caches
                    .iter()
                    .flat_map(|cached| cached.stats(RECENT_PICKS));
                stats.next()?.hindsight
            }
        }
    }
}

/// The answer to a request of HTTP.
pub fn answer(request: &Request) -> Answer {
    match request {
        Request::Page => Answer::page(PAGE),
        Request::Events => events(),
        _ => {
            // A signal that came now would wait for locks of ours.
            let busy = Busy::begin();
            let answer = answer_of_models(request);
            drop(busy);
            answer
        }
    }
}

fn answer_of_models(request: &Request) -> Answer {
    let Some(models) = models() else {
        return Answer::error(503, "a model is being loaded");
    };
    let changed = match request {
        Request::Stats => return Answer::json(&stats(&models)),
        Request::Heat => return Answer::json(&heat(&models)),
        Request::Plan => return plan(&models),
        Request::Budget(text) => steering::set_budget(&models, text),
        Request::Policy(name) => steering::set_policy(&models, name),
        Request::Profile(wish) => steering::set_profile(&models, wish),
        Request::Reset => Ok(reset(&models)),
        Request::Page | Request::Events | Request::Sequence(_) => {
            return Answer::error(500, "it is answered elsewhere");
        }
    };
    match changed {
        Ok(value) => Answer::json(&value),
        Err(error @ Error::System { .. }) => Answer::error(500, &error.to_string()),
        Err(error) => Answer::error(400, &error.to_string()),
    }
}

/// The text for `/metrics`.
pub fn metrics() -> String {
    let busy = Busy::begin();
    let models = models().unwrap_or_default();
    let uncached = try_loaded_models().map(|loaded| loaded.uncached().to_string());
    let uncached = uncached.filter(|why| !why.is_empty());
    let counted: Vec<Stats> = models.iter().map(Live::counters).collect();
    let mut kept = kept();
    let metered = models.iter().zip(&counted).map(|(model, stats)| Metered {
        model: short(&model.name),
        life: model.loaded.life(),
        stats,
        budget_bytes: model.budget_bytes(),
        hindsight: kept.hindsight(model, stats),
        profile: model.loaded.workload().and_then(|workload| workload.used()),
        recognized: model.recognized(),
        devices: devices(model, stats, uncached.as_deref()),
    });
    let metered: Vec<Metered> = metered.collect();
    let text = kept.counters.text(&metered);
    drop(kept);
    drop(busy);
    text.unwrap_or_else(|error| {
        report::say(&format!("hotset: error: {error}"));
        String::new()
    })
}

/// The name of a file without the folder.
fn short(name: &str) -> &str {
    name.rsplit('/').next().unwrap_or(name)
}

/// Whether devices are used, and why not.
fn devices(model: &Live, stats: &Stats, uncached: Option<&str>) -> Vec<DeviceUse> {
    let is_aside = model.caches.iter().any(|cached| cached.is_aside());
    let mut names: Vec<&String> = stats.devices.iter().map(|device| &device.device).collect();
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

fn stats(models: &[Live]) -> Vec<StatsNow> {
    let ram = try_loaded_models().map(|loaded| loaded.config.ram_text.clone());
    let ram = ram.unwrap_or_default();
    let now = Instant::now();
    let mut kept = kept();
    let of = |model: &Live| {
        let counted = model.counters();
        let hindsight = kept.hindsight(model, &counted);
        let looked = kept.looked(model);
        let begin = looked.begin.clone();
        let hindsight_age_s = hindsight
            .as_ref()
            .and(looked.hindsight_pace.age(now))
            .map(|age| age.as_secs_f64());
        let uptime = now.saturating_duration_since(kept.began).as_secs_f64();
        let counted = match &begin {
            Some((before, _)) => counted.since(before),
            None => counted,
        };
        let all_bytes = |engine: &Engine| {
            engine
                .layout()
                .pools
                .iter()
                .map(|pool| pool.n_bytes())
                .sum()
        };
        StatsNow {
            stats: Stats {
                hindsight,
                ..counted
            },
            live: Now {
                ram: model.streamed().map_or_else(String::new, |_| ram.clone()),
                budget_bytes: model.budget_bytes(),
                budget_bytes_max: model.engine().map_or(0, all_bytes),
                available_bytes: memory::available().bytes,
                disk_bytes_per_s: model
                    .streamed()
                    .and_then(|model| model.disk_bytes_per_second()),
                policies: REGISTRY.iter().map(PolicyNow::of).collect(),
                profile: ProfileNow::of(model),
                uptime_s: uptime,
                since_s: begin.map_or(uptime, |(_, at)| {
                    now.saturating_duration_since(at).as_secs_f64()
                }),
                hindsight_age_s,
            },
        }
    };
    models.iter().map(of).collect()
}

impl PolicyNow {
    fn of(spec: &crate::policy::Spec) -> Self {
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

fn heat(models: &[Live]) -> Vec<ModelHeat> {
    let of = |model: &Live| {
        let devices: Vec<_> = model
            .caches
            .iter()
            .filter_map(|cached| cached.cache())
            .collect();
        ModelHeat::look(
            model.name.clone(),
            model.loaded.blocks(),
            model.engine(),
            &devices,
        )
    };
    models.iter().map(of).collect()
}

/// What the next second brings: waits for its end.
fn events() -> Answer {
    /// A sample that is older than this is no begin of a second.
    const AGE_MAX: Duration = Duration::from_millis(2500);
    let is_old = |tick: &Ticked| tick.at.elapsed() > AGE_MAX;
    {
        let _busy = Busy::begin();
        let mut kept = kept();
        if kept.tick.as_ref().is_none_or(is_old) {
            kept.tick = Some(Ticked {
                second: since_1970().as_secs(),
                at: Instant::now(),
                sample: sample(&models().unwrap_or_default()),
                text: String::new(),
            });
        }
    }
    let now = since_1970();
    let next = Duration::from_secs(now.as_secs() + 1);
    thread::sleep(next.saturating_sub(now));
    let _busy = Busy::begin();
    let mut kept = kept();
    // Threads for other listeners may have been here.
    let second = since_1970().as_secs();
    if let Some(tick) = kept
        .tick
        .as_mut()
        .filter(|tick| tick.second != second || tick.text.is_empty())
    {
        let models = models().unwrap_or_default();
        let (now, at) = (sample(&models), Instant::now());
        let seconds = at.saturating_duration_since(tick.at).as_secs_f64();
        let ticks = models.iter().zip(&now).map(|(model, (life, now))| {
            let before = tick.sample.iter().find(|(before, _)| before == life);
            let before = before.map_or_else(Stats::default, |(_, stats)| stats.clone());
            Tick::between(&before, now, seconds, model.budget_bytes())
        });
        let text = ticks_text(since_1970().as_secs_f64(), &ticks.collect::<Vec<_>>());
        *tick = Ticked {
            second,
            at,
            sample: now,
            text,
        };
    }
    let text = kept
        .tick
        .as_ref()
        .map_or_else(String::new, |tick| tick.text.clone());
    Answer::events(text)
}

fn sample(models: &[Live]) -> Vec<(u64, Stats)> {
    models
        .iter()
        .map(|model| (model.loaded.life(), model.counters()))
        .collect()
}

fn since_1970() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}

fn reset(models: &[Live]) -> serde_json::Value {
    let now = Instant::now();
    let mut kept = kept();
    for model in models {
        let counted = model.counters();
        *kept.looked(model) = Looked {
            begin: Some((counted, now)),
            ..Looked::default()
        };
        if let Some(engine) = model.engine() {
            engine.forget_recent();
        }
        let caches = model.caches.iter().filter_map(|cached| cached.cache());
        caches.for_each(|cache| cache.forget_recent());
    }
    report::say("hotset: the counters of /hotset/stats begin anew");
    serde_json::json!({"reset": true})
}

impl Kept {
    fn looked(&mut self, model: &Live) -> &mut Looked {
        // Of models that are gone nobody asks any more.
        const MANY: usize = 64;
        let life = model.loaded.life();
        if self.models.len() >= MANY && !self.models.contains_key(&life) {
            self.models.clear();
        }
        self.models.entry(life).or_default()
    }

    /// What other policies would have done of late, as far as that is known; it is looked up if that is due.
    fn hindsight(&mut self, model: &Live, counted: &Stats) -> Option<Hindsight> {
        let is_kept = try_loaded_models().is_some_and(|loaded| loaded.config.stats != StatsTo::Off);
        let looked = self.looked(model);
        if is_kept && counted.n_heard() > 0 && looked.hindsight_pace.begin(Instant::now()) {
            let (life, again) = (model.loaded.life(), model.again());
            apart(move || {
                let begin = Instant::now();
                let found = again.look_back();
                let mut kept = kept();
                if let Some(looked) = kept.models.get_mut(&life) {
                    looked.hindsight_pace.end(Instant::now(), begin.elapsed());
                    looked.hindsight = found.filter(|hindsight| hindsight.picks > 0);
                }
            });
        }
        looked.hindsight.clone()
    }
}

impl Live {
    /// The same once more, for a thread.
    fn again(&self) -> Self {
        Self {
            name: self.name.clone(),
            loaded: self.loaded.clone(),
            caches: self.caches.clone(),
            gone: Vec::new(),
        }
    }

    fn plan(&self) -> Option<LivePlan> {
        let model = self.streamed()?;
        let engine = self.engine()?;
        let (stats, windows) = Stats::look(engine, &model.policy(), WINDOW_PICKS)?;
        let n_tokens = stats.generation.tokens as f64;
        let each = |sum: f64| (n_tokens > 0.0).then(|| sum / n_tokens);
        let time = stats.generation_time;
        let layout = engine.layout();
        let missed =
            stats.generation.misses as f64 * layout.expert_bytes as f64 / layout.n_experts() as f64;
        let speed = Speed {
            disk_bytes_per_s: model.disk_bytes_per_second(),
            compute_ms_per_token: each(time.busy_ms - time.stalled_ms),
            stalled_ms_per_token: each(time.stalled_ms),
            bytes_per_token: each(missed),
        };
        let budget = self.budget_bytes();
        let name = self.name.clone();
        LivePlan::of(
            name,
            &stats.policy,
            layout,
            model.top_k(),
            budget,
            &windows,
            speed,
        )
        .ok()
    }
}

fn plan(models: &[Live]) -> Answer {
    let of = |model: &Live| {
        if kept().looked(model).plan_pace.begin(Instant::now()) {
            let (again, begin) = (model.again(), Instant::now());
            let made = apart(move || again.plan()).and_then(|thread| thread.join().ok());
            let mut kept = kept();
            let looked = kept.looked(model);
            looked.plan = made.flatten();
            // Before anything was generated it may be asked for again at once.
            match looked
                .plan
                .as_ref()
                .is_some_and(|plan| !plan.plan.rows.is_empty())
            {
                true => looked.plan_pace.end(Instant::now(), begin.elapsed()),
                false => looked.plan_pace = Pace::default(),
            }
        }
        let mut kept = kept();
        let looked = kept.looked(model);
        let age = looked.plan_pace.age(Instant::now()).unwrap_or_default();
        let nothing = || LivePlan::nothing(model.name.clone(), model.policy());
        LivePlan {
            age_s: age.as_secs_f64(),
            ..looked.plan.clone().unwrap_or_else(nothing)
        }
    };
    let plans: Vec<LivePlan> = models.iter().map(of).collect();
    Answer::json(&plans)
}

/// Does `work` in a thread that gives way to all others, if there is one to be had.
fn apart<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<thread::JoinHandle<T>> {
    let quietly = move || {
        signals::leave_to_others();
        // SAFETY: a plain system call, about the calling thread.
        #[cfg(target_os = "linux")]
        unsafe {
            libc::setpriority(libc::PRIO_PROCESS, 0, 19);
        }
        work()
    };
    thread::Builder::new()
        .name("hotset-look".to_string())
        .spawn(quietly)
        .ok()
}

/// A file as a person knows it.
pub fn shown(path: &Path) -> String {
    path.display().to_string()
}
