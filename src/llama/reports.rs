//! What is reported of models: while they are loaded, when they go, and at the end.
//!
//! The comparison with other policies takes time. It is made before a model leaves the loaded models, which is free
//! meanwhile: others come and go, and an end of the process that comes sooner still finds the model there.

use super::device::{self, Cached};
use super::drawing;
use super::loaded::{LoadedModels, loaded_models, try_loaded_models};
use super::loaded_model::LoadedModel;
use super::metering;
use super::model::Model;
use super::observer::{self, Observer};
use super::speaker;
use super::workload::Workload;
use crate::config::StatsTo;
use crate::device::DeviceStats;
use crate::error::Result;
use crate::profile::Lesson;
use crate::report;
use crate::stats::{RECENT_PICKS, Stats};
use std::collections::HashMap;
use std::sync::{Arc, MutexGuard};
use std::time::Duration;

/// The counters of a streaming model, with the comparison or without.
type Counting = fn(&Model) -> Option<Stats>;

/// Takes the loaded models, as long as that may take or not.
type Lock = fn() -> Option<MutexGuard<'static, LoadedModels>>;

/// However long it takes, as a load of another model may.
const WAITING: Lock = || Some(loaded_models());

/// Counters of models that are gone, at most: a server that sleeps frees its model each time.
const N_REPORTS_MAX: usize = 64;

/// A cache goes away: its counters wait for the end of the model.
pub fn close(cached: &Arc<Cached>) {
    count(cached, usize::MAX, WAITING);
    device::remove(cached);
    speaker::flush();
}

/// Notes the counters of a cache, with a comparison over `n_picks_max` picks at most. Does nothing if the loaded models
/// are not to be had.
fn count(cached: &Cached, n_picks_max: usize, lock: Lock) {
    let settled = cached.settle();
    let n_picks_max = match is_wanted(lock) {
        true => n_picks_max,
        false => 0,
    };
    let stats = cached.stats(n_picks_max).into_iter();
    if let Some(mut loaded) = lock() {
        loaded.note_failure(settled);
        let stats = stats.map(|stats| (cached.model, stats));
        loaded.devices.extend(stats);
    }
}

/// Whether somebody wants a report, and can have one.
fn is_wanted(lock: Lock) -> bool {
    lock().is_some_and(|loaded| loaded.config.stats != StatsTo::Off)
}

/// Forgets the model at address `key`, which no graph uses, and reports on it.
pub fn stop(key: usize) {
    let leaving = loaded_models().leave(key);
    match leaving {
        None => {}
        Some(LoadedModel::Loaded(observer)) => {
            observer.settle();
            observer::end(&observer);
            park(key);
            remember(observer.workload(), observer.lesson());
            end_observer(key, &observer, WAITING);
        }
        Some(LoadedModel::Streamed(model)) => {
            model.settle();
            park(key);
            remember(model.workload(), model.lesson());
            end_model(key, &model, Model::stats, WAITING);
        }
    }
    speaker::flush();
}

/// What a model has picked is there when it comes back, whether it is saved or not.
fn remember(workload: Option<&Workload>, lesson: Option<Lesson>) {
    if let (Some(workload), Some(lesson)) = (workload, lesson) {
        loaded_models().remember(workload, &lesson);
    }
}

/// Writes what was recorded of the model at address `key`. A disk may take its time, and the loaded models is free.
fn park(key: usize) {
    let recording = loaded_models().tapes.park(key);
    if let Some(recording) = recording {
        recording.pause();
    }
}

/// Reports on the models that are still loaded, as if they went now, and prints the tables that were held back.
/// Returns false if any report of this process could not be written.
///
/// They stay: threads may still compute with them. What is in use by a thread that the end of the process has
/// interrupted is left out.
pub fn rest(stats: Counting, n_picks_max: usize) -> bool {
    let recordings = try_loaded_models().map(|mut loaded| loaded.tapes.end());
    for cached in device::all() {
        count(&cached, n_picks_max, try_loaded_models);
    }
    let loaded = try_loaded_models().map(|loaded| {
        let (models, observers) = (&loaded.models, &loaded.observers);
        (models.clone(), observers.clone())
    });
    let (models, observers) = loaded.unwrap_or_default();
    for (key, observer) in observers {
        end_observer(key, &observer, try_loaded_models);
    }
    for (key, model) in models {
        end_model(key, &model, stats, try_loaded_models);
    }
    let is_reported = try_loaded_models().is_none_or(|mut loaded| {
        loaded.release_tables();
        !loaded.has_failed
    });
    drawing::write();
    // Last: whoever waits for the end may lose patience with a slow disk, or with who should read a pipe.
    for recording in recordings.iter().flatten() {
        recording.finish();
    }
    speaker::flush();
    is_reported
}

/// Saves what a model that streams has learnt, and reports on it, if nobody else has.
fn end_model(key: usize, model: &Model, stats: Counting, lock: Lock) {
    model.save_profile();
    if let Some(stats) = model.counters() {
        let devices = lock()
            .map(|loaded| loaded.devices_of(key))
            .unwrap_or_default();
        let name = model.file.display().to_string();
        metering::note_end(model.life.number, &name, &stats.with_devices(devices));
    }
    let counted = match is_wanted(lock) {
        true => stats(model),
        false => None,
    };
    let Some(mut loaded) = lock() else { return };
    let n_before = loaded.models.len();
    loaded.models.retain(|(k, _)| *k != key);
    if loaded.models.len() == n_before {
        return;
    }
    let devices = loaded.take_devices(key);
    if let Some(stats) = counted {
        loaded.report(stats.with_devices(devices));
    }
}

/// Saves what a model that does not stream has learnt, and reports on its devices, if nobody else has.
fn end_observer(key: usize, observer: &Observer, lock: Lock) {
    observer.save_profile();
    let counted = lock().map(|loaded| loaded.device_stats(observer, loaded.devices_of(key)));
    if let Some(stats) = counted.filter(|stats| !stats.devices.is_empty()) {
        metering::note_end(observer.life.number, &stats.model, &stats);
    }
    let Some(mut loaded) = lock() else { return };
    let n_before = loaded.observers.len();
    loaded.observers.retain(|(k, _)| *k != key);
    if loaded.observers.len() == n_before {
        return;
    }
    let devices = loaded.take_devices(key);
    if !devices.is_empty() {
        let stats = loaded.device_stats(observer, devices);
        loaded.report(stats);
    } else if observer.workload().is_some_and(Workload::is_asked) {
        report::say(
            "hotset: HOTSET_PROFILE does nothing for a model that is not streamed (HOTSET_RAM) and has no experts \
             on a device (--moe-cache-mib)",
        );
    }
}

/// The counters of all loaded models, those that stream and those with experts on devices.
pub fn stats(of: Counting, n_picks_max: usize) -> Vec<Stats> {
    let live = live(of, n_picks_max, WAITING);
    live.into_iter().map(|(_, stats)| stats).collect()
}

/// The same with the addresses of the models; nothing if the loaded models is not to be had.
fn live(of: Counting, n_picks_max: usize, lock: Lock) -> Vec<(usize, Stats)> {
    let known = lock().map(|loaded| {
        let (models, observers) = (&loaded.models, &loaded.observers);
        (models.clone(), observers.clone(), loaded.devices.clone())
    });
    let (models, observers, gone) = known.unwrap_or_default();
    let devices = |key: usize| -> Vec<DeviceStats> {
        let gone = gone.iter().filter(|(model, _)| *model == key);
        let caches = device::all().into_iter().filter(|c| c.model == key);
        let live = caches.flat_map(|cached| cached.stats(n_picks_max));
        gone.map(|(_, stats)| stats.clone()).chain(live).collect()
    };
    let streamed = models.iter().filter_map(|(key, model)| {
        let devices = devices(*key);
        Some((*key, of(model)?.with_devices(devices)))
    });
    let loaded = observers.iter().filter_map(|(key, observer)| {
        let devices = devices(*key);
        if devices.is_empty() {
            return None;
        }
        Some((*key, lock()?.device_stats(observer, devices)))
    });
    streamed.chain(loaded).collect()
}

/// Writes the counters so far, without comparisons, to where those of the end will be, if that is a file and
/// anything has changed: for a process that does not live to its end.
pub fn write_so_far() {
    let is_json = try_loaded_models().is_some_and(|r| matches!(r.config.stats, StatsTo::Json(_)));
    if !is_json {
        return;
    }
    let live = live(Model::counters, 0, try_loaded_models);
    let Some(mut loaded) = try_loaded_models() else {
        return;
    };
    let StatsTo::Json(path) = loaded.config.stats.clone() else {
        return;
    };
    // Some may have ended meanwhile.
    let is_loaded = |key: &usize| {
        let models = loaded.models.iter().map(|(k, _)| k);
        let observers = loaded.observers.iter().map(|(k, _)| k);
        models.chain(observers).any(|k| k == key)
    };
    let live = live.into_iter().filter(|(key, _)| is_loaded(key));
    let mut all = loaded.reports.clone();
    all.extend(live.map(|(_, stats)| stats));
    forget_oldest(&mut all);
    let n_heard: Vec<u64> = all.iter().map(Stats::n_heard).collect();
    if all.is_empty() || n_heard == loaded.n_heard {
        return;
    }
    loaded.n_heard = n_heard;
    loaded.note_written(report::write_json(&all, &path));
}

/// Keeps the latest counters of all that there are.
fn forget_oldest(all: &mut Vec<Stats>) {
    let n_too_many = all.len().saturating_sub(N_REPORTS_MAX);
    all.drain(..n_too_many);
}

impl LoadedModels {
    /// The counters of the devices of the model at address `key`, whose caches are gone, while they stay.
    fn devices_of(&self, key: usize) -> Vec<DeviceStats> {
        let mine = self.devices.iter().filter(|(model, _)| *model == key);
        mine.map(|(_, stats)| stats.clone()).collect()
    }

    /// The counters of the devices of the model at address `key`, whose caches are gone.
    fn take_devices(&mut self, key: usize) -> Vec<DeviceStats> {
        let mine = self.devices.extract_if(.., |(model, _)| *model == key);
        mine.map(|(_, stats)| stats).collect()
    }

    fn device_stats(&self, observer: &Observer, devices: Vec<DeviceStats>) -> Stats {
        Stats {
            model: observer.name.clone().unwrap_or_default(),
            policy: self.config.policy.clone(),
            ..Stats::default()
        }
        .with_devices(devices)
    }

    fn note_failure(&mut self, result: Result<()>) {
        if let Err(error) = result {
            report::say(&format!("hotset: error: {error}"));
            self.has_failed = true;
        }
    }

    /// Prints the tables that were held back.
    fn release_tables(&mut self) {
        speaker::flush();
        for table in std::mem::take(&mut self.tables) {
            report::say(&table);
        }
    }

    /// Reports `stats`, if anybody wants it.
    fn report(&mut self, stats: Stats) {
        let to = self.config.stats.clone();
        if to == StatsTo::Off {
            return;
        }
        self.reports.push(stats);
        forget_oldest(&mut self.reports);
        // The same numbers may be those of other models now.
        self.n_heard.clear();
        let result = match &to {
            StatsTo::Json(path) => report::write_json(&self.reports, path),
            _ => {
                let last = self.reports.last().expect("one was pushed");
                self.tables.push(report::text(last));
                if !self.holds_tables {
                    self.release_tables();
                }
                Ok(())
            }
        };
        self.note_written(result);
    }

    /// Says why the counters are not written, if that is news.
    fn note_written(&mut self, result: Result<()>) {
        let unwritten = result.map_or_else(|error| error.to_string(), |()| String::new());
        if !unwritten.is_empty() && unwritten != self.unwritten {
            report::say(&format!(
                "hotset: warning: HOTSET_STATS: {unwritten}; the counters are not written"
            ));
        }
        self.unwritten = unwritten;
    }
}

/// Prints a line for each model and each device, again and again, when something was computed since the last one;
/// ends with the process.
pub fn report_every(interval: Duration) -> ! {
    let mut said = News::default();
    loop {
        std::thread::sleep(interval);
        said.next_round();
        // The loaded models is free while the comparison runs: models come and go meanwhile.
        let models: Vec<_> = loaded_models().models().cloned().collect();
        for model in &models {
            let counted = model.counters();
            if counted.is_some_and(|stats| said.is_new(Arc::as_ptr(model).cast(), stats.n_heard()))
                && let Some(stats) = model.recent()
            {
                report::say(&report::line(&stats));
            }
        }
        for cached in device::all() {
            let n_heard = |stats: &DeviceStats| stats.generation.events + stats.n_uncached;
            let n = cached.stats(0).iter().map(n_heard).sum();
            if said.is_new(Arc::as_ptr(&cached).cast(), n) {
                for stats in cached.stats(RECENT_PICKS) {
                    report::say(&report::device_line(&stats));
                }
            }
        }
    }
}

/// What the last round of reports has heard.
#[derive(Default)]
struct News {
    /// By address: the numbers of the round before, and of this one.
    before: HashMap<*const (), u64>,
    now: HashMap<*const (), u64>,
}

impl News {
    /// Another round begins. What the last one did not look at is forgotten: another thing may be at its address.
    fn next_round(&mut self) {
        self.before = std::mem::take(&mut self.now);
    }

    /// Whether what is at this address has heard something since the last round.
    fn is_new(&mut self, address: *const (), n_heard: u64) -> bool {
        self.now.insert(address, n_heard);
        self.before.get(&address).copied().unwrap_or(0) != n_heard
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_heard_nothing_is_no_news() {
        let [a, b] = [&1u8, &2].map(|n| std::ptr::from_ref(n).cast::<()>());
        let mut news = News::default();
        assert!(!news.is_new(a, 0), "it has not begun");
        for round in 1..4 {
            news.next_round();
            assert!(news.is_new(a, 7 * round));
            assert_eq!(news.is_new(b, 5), round == 1);
        }
        news.next_round();
        assert!(!news.is_new(a, 21));
        news.next_round();
        news.next_round();
        assert!(news.is_new(a, 21), "it is another one");
    }
}
