//! What is reported of models: while they are loaded, when they go, and at the end.

use super::device::{self, Cached};
use super::model::Model;
use super::record::Observer;
use super::registry::{Registry, registry};
use super::workload::Workload;
use crate::config::StatsTo;
use crate::device::DeviceStats;
use crate::error::Result;
use crate::report;
use crate::stats::{RECENT_PICKS, Stats};
use std::sync::Arc;
use std::time::Duration;

impl Registry {
    /// A cache goes away: its counters wait for the end of the model.
    pub fn close(&mut self, cached: &Arc<Cached>) {
        device::remove(cached);
        self.count(cached, usize::MAX);
    }

    fn count(&mut self, cached: &Cached, n_picks_max: usize) {
        let settled = cached.settle();
        self.note_failure(settled);
        let n_picks_max = match self.config.stats {
            StatsTo::Off => 0,
            _ => n_picks_max,
        };
        let stats = cached.stats(n_picks_max).into_iter();
        self.devices
            .extend(stats.map(|stats| (cached.model, stats)));
    }

    /// The counters of the devices of the model at address `key`, whose caches are gone.
    pub(super) fn take_devices(&mut self, key: usize) -> Vec<DeviceStats> {
        let mine = self.devices.extract_if(.., |(model, _)| *model == key);
        mine.map(|(_, stats)| stats).collect()
    }

    /// The counters of all loaded models, those that stream and those with experts on devices.
    pub fn stats(&self, of: fn(&Model) -> Option<Stats>, n_picks_max: usize) -> Vec<Stats> {
        let devices = |key: usize| -> Vec<DeviceStats> {
            let gone = self.devices.iter().filter(|(model, _)| *model == key);
            let caches = device::all().into_iter().filter(|c| c.model == key);
            let live = caches.flat_map(|cached| cached.stats(n_picks_max));
            gone.map(|(_, stats)| stats.clone()).chain(live).collect()
        };
        let streamed = self.models.iter().filter_map(|(key, model)| {
            let devices = devices(*key);
            Some(of(model)?.with_devices(devices))
        });
        let loaded = self.observers.iter().filter_map(|(key, observer)| {
            let devices = devices(*key);
            (!devices.is_empty()).then(|| self.device_stats(observer, devices))
        });
        streamed.chain(loaded).collect()
    }

    fn device_stats(&self, observer: &Observer, devices: Vec<DeviceStats>) -> Stats {
        Stats {
            model: observer.name.clone().unwrap_or_default(),
            policy: self.config.policy.clone(),
            ..Stats::default()
        }
        .with_devices(devices)
    }

    /// Saves what a model that does not stream has taught, and reports on its devices.
    pub(super) fn end(&mut self, observer: &Observer, devices: Vec<DeviceStats>) {
        observer.save_profile();
        if !devices.is_empty() {
            let stats = self.device_stats(observer, devices);
            self.report(|| Some(stats));
        } else if observer.workload().is_some_and(Workload::uses_any) {
            report::say(
                "hotset: HOTSET_PROFILE does nothing for a model that is not streamed (HOTSET_RAM) and has no experts \
                 on a device (--moe-cache-mib)",
            );
        }
    }

    /// Reports on the models that are still loaded, as if they went now.
    pub fn report_rest(&mut self, stats: fn(&Model) -> Option<Stats>, n_picks_max: usize) {
        self.tapes.finish();
        // They stay: threads may still compute with them.
        for cached in device::all() {
            self.count(&cached, n_picks_max);
        }
        for (key, observer) in std::mem::take(&mut self.observers) {
            let devices = self.take_devices(key);
            self.end(&observer, devices);
        }
        for (key, model) in std::mem::take(&mut self.models) {
            model.save_profile();
            let devices = self.take_devices(key);
            self.report(|| Some(stats(&model)?.with_devices(devices)));
        }
    }

    /// Writes the counters of all models so far, if they go to a file.
    pub fn write_so_far(&mut self) {
        let StatsTo::Json(path) = self.config.stats.clone() else {
            return;
        };
        let live = self.stats(Model::counters, 0);
        let all: Vec<_> = self.reports.iter().cloned().chain(live).collect();
        if !all.is_empty() {
            self.note_failure(report::write_json(&all, &path));
        }
    }

    pub(super) fn note_failure(&mut self, result: Result<()>) {
        if let Err(error) = result {
            report::say(&format!("hotset: error: {error}"));
            self.has_failed = true;
        }
    }

    /// Prints the tables that were held back.
    pub fn release_tables(&mut self) {
        for table in std::mem::take(&mut self.tables) {
            report::say(&table);
        }
    }

    /// Reports what `stats` says, which takes time, if anybody wants it.
    pub(super) fn report(&mut self, stats: impl FnOnce() -> Option<Stats>) {
        let to = self.config.stats.clone();
        if to == StatsTo::Off {
            return;
        }
        let Some(stats) = stats() else {
            return;
        };
        self.reports.push(stats);
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
        let unwritten = result.map_or_else(|error| error.to_string(), |()| String::new());
        if !unwritten.is_empty() && unwritten != self.unwritten {
            report::say(&format!(
                "hotset: warning: HOTSET_STATS: {unwritten}; the counters are not written"
            ));
        }
        self.unwritten = unwritten;
    }
}

/// Prints a line for each model, again and again; ends with the process.
pub fn report_every(interval: Duration) -> ! {
    loop {
        std::thread::sleep(interval);
        // The registry is free while the comparison runs: models come and go meanwhile.
        let models: Vec<_> = registry().models().cloned().collect();
        for stats in models.iter().filter_map(|model| model.recent()) {
            report::say(&report::line(&stats));
        }
        for stats in device::all().iter().flat_map(|c| c.stats(RECENT_PICKS)) {
            report::say(&report::device_line(&stats));
        }
    }
}
