//! The models that are loaded, as a server tells of them and changes them.

use super::device::{self, Cached};
use super::loaded::try_loaded_models;
use super::loaded_model::LoadedModel;
use super::model::Model;
use crate::device::DeviceStats;
use crate::engine::Engine;
use crate::profile::recognizer::Recognized;
use crate::stats::Stats;
use std::sync::Arc;

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

/// All models, in the order in which they were loaded. `None` while one is being loaded, which takes its time.
pub fn models() -> Option<Vec<Live>> {
    let loaded = try_loaded_models()?;
    let streamed = loaded.models.iter();
    let streamed = streamed.map(|(key, model)| (*key, LoadedModel::Streamed(model.clone())));
    let others = loaded.observers.iter();
    let others = others.map(|(key, observer)| (*key, LoadedModel::Loaded(observer.clone())));
    let caches = device::all();
    let mut all: Vec<Live> = Vec::new();
    for (key, model) in streamed.chain(others) {
        let name = name_of(&model);
        let is_taken = |name: &String| all.iter().any(|live| live.name == *name);
        let numbered = |n: u32| match n {
            1 => name.clone(),
            n => format!("{name} ({n})"),
        };
        let name = (1..).map(numbered).find(|name| !is_taken(name));
        let gone = loaded.devices.iter().filter(|(of, _)| *of == key);
        let caches = caches.iter().filter(|cached| cached.model == key);
        all.push(Live {
            name: name.expect("there are few models"),
            loaded: model,
            caches: caches.cloned().collect(),
            gone: gone.map(|(_, stats)| stats.clone()).collect(),
        });
    }
    Some(all)
}

/// What a model is called, after its first file if it streams.
pub fn name_of(model: &LoadedModel) -> String {
    match model {
        LoadedModel::Streamed(model) => model.file.display().to_string(),
        LoadedModel::Loaded(observer) => observer.name.clone().unwrap_or_default(),
    }
}

impl Live {
    /// The model, if it streams.
    pub fn streamed(&self) -> Option<&Arc<Model>> {
        match &self.loaded {
            LoadedModel::Streamed(model) => Some(model),
            LoadedModel::Loaded(_) => None,
        }
    }

    /// What reads its experts, if it streams and that is made.
    pub fn engine(&self) -> Option<&Engine> {
        self.loaded.made_engine()
    }

    /// The name of its policy.
    pub fn policy(&self) -> String {
        let of_devices = || self.caches.first().map(|cached| cached.policy());
        let streamed = self.streamed().map(|model| model.policy());
        streamed.or_else(of_devices).unwrap_or_default()
    }

    /// Its counters; `None` if an event is being planned and does not end.
    pub fn counters(&self) -> Option<Stats> {
        let counted = match self
            .streamed()
            .filter(|model| model.made_engine().is_some())
        {
            Some(model) => model.counters()?,
            None => Stats {
                policy: self.policy(),
                ..Stats::default()
            },
        };
        let live = self.caches.iter().flat_map(|cached| cached.stats(0));
        let devices = self.gone.iter().cloned().chain(live).collect();
        let named = Stats {
            model: self.name.clone(),
            ..counted
        };
        Some(named.with_devices(devices))
    }

    /// Bytes of its slots.
    pub fn budget_bytes(&self) -> u64 {
        self.engine().map_or(0, |engine| engine.size().n_bytes)
    }

    /// Which workload was recognised.
    pub fn recognized(&self) -> Option<Recognized> {
        let caches = self.caches.iter();
        let of_devices = || {
            caches
                .clone()
                .find_map(|cached| cached.cache()?.recognized())
        };
        self.engine()
            .and_then(Engine::recognized)
            .or_else(of_devices)
    }
}
