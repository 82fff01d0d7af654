//! What a server is asked to change while it runs. Everything is checked before anything changes, and what has changed is
//! one line.

use super::live_models::Live;
use super::loaded::{loaded_models, try_loaded_models};
use super::model::Model;
use super::pressure;
use super::room::{self, Budget};
use super::workload::Workload;
use crate::config::{ProfileSource, Ram};
use crate::error::{Error, Result};
use crate::live::ProfileWish;
use crate::memory;
use crate::numbers::bytes;
use crate::policy;
use crate::profile::recognizer::{Known, Recognizer};
use crate::profile::{Profile, read_folder};
use crate::report;
use serde_json::{Value, json};
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

const RAM: &str = "HOTSET_RAM";

/// One change at a time.
static TURN: Mutex<()> = Mutex::new(());

fn turn() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Gives the models of this process the memory that `text` says, as `HOTSET_RAM`.
pub fn set_budget(models: &[Live], text: &str) -> Result<Value> {
    let ram = Ram::parse(RAM, text)?;
    let _turn = turn();
    let wrong = |why: &str| Error::setting(RAM, text, why);
    if ram == Ram::IfNeeded {
        return Err(wrong(
            "a model that is loaded is not loaded anew; expected a size, a share, or auto",
        ));
    }
    let streamed: Vec<_> = models.iter().filter_map(Live::streamed).collect();
    if streamed.is_empty() {
        let streams = try_loaded_models().is_some_and(|loaded| loaded.config.ram.is_some());
        return Err(wrong(match streams && models.is_empty() {
            true => "no model is loaded now, it may be asleep",
            false => "nothing is streamed: the server is to be started with HOTSET_RAM",
        }));
    }
    if streamed.iter().any(|model| model.is_shared()) {
        return Err(wrong(
            "this model shares its size with others of its router: the router is to be started with another one",
        ));
    }
    let budgets = budgets(&streamed, ram);
    let mut more = (0, 0);
    for (model, budget) in streamed.iter().zip(&budgets) {
        let (wanted, now) = check(model, *budget, text)?;
        more = (more.0 + wanted, more.1 + now);
    }
    // A size is checked as at the start: also what of it no model could use.
    let asked = match ram {
        Ram::Bytes(n) => n.max(more.0),
        Ram::Percent(_) | Ram::Auto | Ram::IfNeeded => more.0,
    };
    memory::check_more(asked, more.1)?;
    for (model, budget) in streamed.iter().zip(&budgets) {
        give(model, *budget)?;
    }
    {
        let mut loaded = loaded_models();
        loaded.config.ram = Some(ram);
        // What was a share of its own stays one when the model comes back.
        loaded.config.routed = None;
        loaded.config.ram_text = text.to_string();
    }
    let mut all = Vec::new();
    for (live, model) in models
        .iter()
        .filter_map(|live| Some((live, live.streamed()?)))
    {
        let size = model.made_engine().map(|engine| engine.size());
        let (n_bytes, n_slots) = size.map_or((0, 0), |size| (size.n_bytes, size.n_slots));
        let holds = match size {
            Some(size) => format!("{} slots in {}", size.n_slots, bytes(size.n_bytes)),
            None => "when something is computed".to_string(),
        };
        report::say(&format!("hotset: {RAM}={text} from now on: {holds}"));
        all.push(
            json!({"model": live.name, "ram": text, "budget_bytes": n_bytes, "n_slots": n_slots}),
        );
    }
    Ok(json!({"models": all}))
}

/// What each model gets: of a size, what those before it have left.
fn budgets(models: &[&Arc<Model>], ram: Ram) -> Vec<Budget> {
    let mut left = match ram {
        Ram::Bytes(n) => n,
        Ram::Percent(_) | Ram::Auto | Ram::IfNeeded => 0,
    };
    let of = |model: &&Arc<Model>| match ram {
        Ram::Auto | Ram::IfNeeded => Budget::UpTo(u64::MAX),
        Ram::Percent(percent) => {
            Budget::Fixed((model.expert_bytes as f64 * percent / 100.0) as u64)
        }
        Ram::Bytes(_) => {
            let mine = left;
            left -= left.min(
                model
                    .made_engine()
                    .map_or(mine, |engine| engine.layout().arena_bytes as u64),
            );
            Budget::Fixed(mine)
        }
    };
    models.iter().map(of).collect()
}

/// Whether `model` can have `budget`; returns bytes of slots that it will have, and has.
fn check(model: &Model, budget: Budget, text: &str) -> Result<(u64, u64)> {
    let (Some(engine), Budget::Fixed(n_bytes)) = (model.made_engine(), budget) else {
        return Ok((0, 0));
    };
    let layout = engine.layout();
    if n_bytes < layout.least_bytes() {
        return Err(room::below_least(layout, text.to_string()));
    }
    let most = layout.slot_bytes_most();
    let wanted = layout.slot_bytes_of(n_bytes);
    let all = layout.n_experts() as u64;
    if wanted > most && u64::from(layout.n_slots()) < all {
        let allowed = format!(
            "this model has addresses for {} of experts and no more",
            bytes(layout.arena_bytes as u64)
        );
        return Err(Error::setting(RAM, text, allowed));
    }
    Ok((wanted.min(most), engine.size().n_bytes))
}

/// Gives it.
fn give(model: &Arc<Model>, budget: Budget) -> Result<()> {
    /// Slots of events that are being computed stay for a moment.
    const N_TRIES: u32 = 20;
    const PAUSE: Duration = Duration::from_millis(10);
    let mut held = model.hold_budget();
    let Budget::Fixed(n_bytes) = budget else {
        *held = budget;
        drop(held);
        pressure::watch(model);
        return Ok(());
    };
    let Some(engine) = model.made_engine() else {
        *held = budget;
        return Ok(());
    };
    let wanted = engine.layout().slot_bytes_of(n_bytes);
    let mut size = engine.resize(wanted)?;
    *held = budget;
    for _ in 0..N_TRIES {
        if size.n_bytes <= wanted {
            break;
        }
        thread::sleep(PAUSE);
        size = engine.resize(wanted)?;
    }
    Ok(())
}

/// Policies of this name rank the experts of all models from now on.
pub fn set_policy(models: &[Live], name: &str) -> Result<Value> {
    policy::find(name)?;
    let _turn = turn();
    for model in models {
        if let Some(model) = model.streamed() {
            model.rank_with(name)?;
        }
        model
            .caches
            .iter()
            .try_for_each(|cached| cached.rank_with(name))?;
    }
    loaded_models().config.policy = name.to_string();
    report::say(&format!("hotset: HOTSET_POLICY={name} from now on"));
    Ok(json!({"policy": name}))
}

/// Does what is wished about profiles.
pub fn set_profile(models: &[Live], wish: &ProfileWish) -> Result<Value> {
    let _turn = turn();
    match wish {
        ProfileWish::Save => save(models),
        ProfileWish::Use(text) => match ProfileSource::parse(PROFILE, &found(models, text))? {
            ProfileSource::Files(parts) => go_by(models, &parts, text),
            ProfileSource::Folder(folder) => choose_of(models, &folder),
            ProfileSource::Auto(_) | ProfileSource::Off => {
                let allowed = "a server that runs takes FILE[:WEIGHT],... or a folder";
                Err(Error::setting(PROFILE, text.display(), allowed))
            }
        },
        ProfileWish::Folder(text) => match ProfileSource::parse(PROFILE, text) {
            Ok(ProfileSource::Folder(folder)) => choose_of(models, &folder),
            Ok(_) | Err(_) => Err(Error::setting(
                PROFILE,
                text.display(),
                "there is no such folder",
            )),
        },
    }
}

const PROFILE: &str = "HOTSET_PROFILE";

fn save(models: &[Live]) -> Result<Value> {
    let learning = models.iter().filter(|model| {
        let workload = model.loaded.workload();
        workload.is_some_and(|workload| workload.saves_to().is_some())
    });
    let mut saved = Vec::new();
    for model in learning {
        model.loaded.save();
        let workload = model.loaded.workload();
        if let Some(why) = workload.and_then(Workload::unsaved) {
            return Err(Error::system(
                "saving the profile",
                std::io::Error::other(why),
            ));
        }
        let path = workload.and_then(Workload::saves_to);
        saved.extend(path.map(|path| path.display().to_string()));
    }
    if saved.is_empty() {
        let why = "nothing is learnt: the server is to be started with it";
        return Err(Error::setting("HOTSET_PROFILE_SAVE", "", why));
    }
    report::say(&format!("hotset: profile saved to {}", saved.join(", ")));
    Ok(json!({"saved": saved}))
}

/// What is meant by a name without a folder that is no file: one of the folder that is in use.
fn found(models: &[Live], text: &OsStr) -> OsString {
    let (name, weight) = match text.to_str().and_then(|text| text.rsplit_once(':')) {
        Some((name, weight)) if weight.parse::<f64>().is_ok() => {
            (name.into(), format!(":{weight}"))
        }
        _ => (text.to_os_string(), String::new()),
    };
    let is_bare = Path::new(&name).components().count() == 1 && !Path::new(&name).exists();
    let folders = models.iter().filter_map(|model| model.loaded.workload());
    let folders = folders.flat_map(|workload| {
        let beside = workload
            .saves_to()
            .and_then(|path| Some(path.parent()?.to_path_buf()));
        workload.folder().into_iter().chain(beside)
    });
    let paths = folders.flat_map(|folder| {
        ["", ".json", ".json.gz"].map(|suffix| {
            let mut file = name.clone();
            file.push(suffix);
            folder.join(file)
        })
    });
    match paths.filter(|_| is_bare).find(|path| path.is_file()) {
        Some(path) => {
            let mut text = path.into_os_string();
            text.push(weight);
            text
        }
        None => text.to_os_string(),
    }
}

/// Policies go by a mix of profiles from now on, beside what they have learnt.
fn go_by(models: &[Live], parts: &[(PathBuf, f64)], text: &OsStr) -> Result<Value> {
    let mut profiles = Vec::new();
    for (path, weight) in parts {
        profiles.push((Profile::read(path)?, *weight));
    }
    let workloads = || {
        models
            .iter()
            .filter_map(|model| Some((model, model.loaded.workload()?)))
    };
    let fits = |workload: &Workload| {
        profiles
            .iter()
            .zip(parts)
            .try_for_each(|((profile, _), (path, _))| {
                workload
                    .difference(profile)
                    .map_or(Ok(()), |why| Err(Error::file(path, why)))
            })
    };
    let Some((_, first)) = workloads().next() else {
        return Err(Error::setting(
            PROFILE,
            text.display(),
            "no model with experts is loaded",
        ));
    };
    // Those of the first one need not fit others, draft models for example.
    fits(first)?;
    let mut name = String::new();
    for (model, workload) in workloads().filter(|(_, workload)| fits(workload).is_ok()) {
        let parts: Vec<_> = profiles
            .iter()
            .map(|(profile, weight)| (profile, *weight))
            .collect();
        let known = workload.blend(&parts);
        recognize(model, || None);
        tell(model, &known);
        name.clone_from(&known.name);
        workload.note_used(known.name);
    }
    let files = profiles.into_iter().zip(parts);
    let files = files.map(|((profile, weight), (path, _))| (path.clone(), profile, weight));
    loaded_models().given.go_by(files.collect());
    report::say(&format!("hotset: profile '{name}' from now on"));
    Ok(json!({"used": [name]}))
}

fn tell(model: &Live, known: &Known) {
    if let Some(engine) = model.loaded.made_engine() {
        engine.prime(known);
    }
    let caches = model.caches.iter().filter_map(|cached| cached.cache());
    caches.for_each(|cache| cache.prime(known));
}

/// The workload is recognised among the profiles of `folder` from now on.
fn choose_of(models: &[Live], folder: &Path) -> Result<Value> {
    let all = read_folder(folder)?;
    let n_all = all.len();
    let mut n_used = 0;
    for (model, workload) in models
        .iter()
        .filter_map(|model| Some((model, model.loaded.workload()?)))
    {
        let profiles = all.iter().map(|(_, profile)| profile);
        let fitting: Vec<&Profile> = profiles
            .filter(|profile| workload.difference(profile).is_none())
            .collect();
        n_used = n_used.max(fitting.len());
        if !fitting.is_empty() {
            recognize(model, || Some(workload.recognizer_of(&fitting)));
            workload.note_folder(folder);
        }
    }
    if n_used == 0 {
        let why = format!("none of its {n_all} profiles is of this model");
        return Err(Error::setting(PROFILE, folder.display(), why));
    }
    loaded_models().given.choose_of(folder.to_path_buf(), all);
    report::say(&format!(
        "hotset: the workload is recognised among {n_used} of {n_all} profiles in {} from now on",
        folder.display()
    ));
    Ok(json!({"folder": folder.display().to_string(), "profiles": n_used}))
}

/// Recognises the workload of a model from now on, or not any more.
fn recognize(model: &Live, recognizer: impl Fn() -> Option<Recognizer>) {
    if let Some(engine) = model.loaded.made_engine() {
        engine.recognize_with(recognizer());
    }
    for cache in model.caches.iter().filter_map(|cached| cached.cache()) {
        cache.recognize_with(recognizer());
    }
}
