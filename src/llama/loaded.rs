//! The models that are loaded or being loaded, and what is reported about them.
//!
//! State belongs to a model and is found by the address of a tensor: a draft model or a second
//! model has its own, and freeing a model frees what belongs to it.

use super::bound::{BOUND, Bound};
use super::budget;
use super::device::{self, Cached};
use super::loaded_model::LoadedModel;
use super::loading::Loading;
use super::model::{Model, Parts, places};
use super::observer::{self, Observer};
use super::packed;
use super::pressure;
use super::repack::Repacker;
use super::shares;
use super::tapes::Tapes;
use super::target::Target;
use super::title::Title;
use super::workload::{Given, Workload};
use crate::config::{Asked, Config, ProfileSource, Ram, Repack};
use crate::device::DeviceStats;
use crate::engine::layout::expert_bytes;
use crate::error::Result;
use crate::gguf::expert_part;
use crate::memory::fits::Fit;
use crate::memory::{self, Mapped};
use crate::profile::{Fingerprint, Lesson, ModelLayers};
use crate::report;
use crate::stats::Stats;
use crate::store::ModelFile;
use crate::sync::lock_soon;
use crate::timeline::{Pen, Timeline};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard};

/// What the load-time callbacks share.
pub struct LoadedModels {
    /// The settings in force.
    pub(super) config: Config,
    loading: Vec<Loading>,
    /// Of the model that is being loaded, where that decides whether it streams.
    fit: Option<Fit>,
    /// The model of which that was said last, and what.
    said_fit: Option<(String, bool)>,
    /// Whether there is room for the model whose tensors are asked for, if that is decided.
    is_wanted: Option<bool>,
    pub(super) models: Vec<(usize, Arc<Model>)>,
    /// Of models that do not stream.
    pub(super) observers: Vec<(usize, Arc<Observer>)>,
    /// The profiles of the settings.
    pub(super) given: Given,
    /// What is recorded with these settings.
    pub(super) tapes: Tapes,
    /// What is drawn with these settings.
    pub(super) timeline: Option<Arc<Timeline>>,
    /// The blocks of loaded models whose experts are repacked.
    repacked: Vec<(usize, Vec<u32>)>,
    /// Whether the next model is to be packed, and what it is made of.
    #[cfg(feature = "llama")]
    pub(super) leaves_unpacked: bool,
    #[cfg(feature = "llama")]
    pub(super) unpacked: Option<packed::Unpacked>,
    /// Why there was no cache, the last time.
    uncached: String,
    /// The counters of caches that are gone, with the addresses of their models.
    pub(super) devices: Vec<(usize, DeviceStats)>,
    /// What models, by their addresses, have mapped of their files and will read.
    mapped: Vec<(usize, Mapped)>,
    /// The counters of models that are gone.
    pub(super) reports: Vec<Stats>,
    /// Of each model of the file that was written during the run: how much it had heard.
    pub(super) n_heard: Vec<u64>,
    /// Whether tables wait until a program's own text is written.
    pub holds_tables: bool,
    pub(super) tables: Vec<String>,
    /// Why the counters could not be written, the last time.
    pub(super) unwritten: String,
    /// Whether what was computed could not be reported.
    pub has_failed: bool,
}

static LOADED: LazyLock<Mutex<LoadedModels>> = LazyLock::new(|| {
    Mutex::new(LoadedModels {
        config: Config::default(),
        loading: Vec::new(),
        fit: None,
        said_fit: None,
        is_wanted: None,
        models: Vec::new(),
        observers: Vec::new(),
        given: Given::default(),
        tapes: Tapes::default(),
        timeline: None,
        repacked: Vec::new(),
        #[cfg(feature = "llama")]
        leaves_unpacked: false,
        #[cfg(feature = "llama")]
        unpacked: None,
        uncached: String::new(),
        devices: Vec::new(),
        mapped: Vec::new(),
        reports: Vec::new(),
        n_heard: Vec::new(),
        holds_tables: false,
        tables: Vec::new(),
        unwritten: String::new(),
        has_failed: false,
    })
});

/// The loaded models.
pub fn loaded_models() -> MutexGuard<'static, LoadedModels> {
    LOADED
        .lock()
        .expect("no thread panics with the loaded models")
}

/// The loaded models, unless it is not to be had: if the end of the process has interrupted who uses it, say.
pub fn try_loaded_models() -> Option<MutexGuard<'static, LoadedModels>> {
    lock_soon(&LOADED)
}

impl LoadedModels {
    /// Puts settings in force.
    pub fn configure(&mut self, config: Config, given: Given) {
        self.timeline = config.timeline.is_some().then(Arc::default);
        self.config = config;
        self.given = given;
        self.uncached.clear();
        #[cfg(feature = "llama")]
        {
            self.leaves_unpacked = false;
        }
        self.tapes = Tapes::default();
    }

    /// Profiles are learnt from now on, whether they are saved or not.
    #[cfg(feature = "llama")]
    pub fn learn(&mut self) {
        self.given.learns = true;
    }

    /// What is computed from now on teaches nothing.
    #[cfg(feature = "llama")]
    pub fn teach_nothing(&mut self) {
        self.given.teach_nothing();
    }

    /// A model is about to go, which may come back.
    pub(super) fn remember(&mut self, workload: &Workload, lesson: &Lesson) {
        self.given.remember(workload, lesson);
    }

    /// A model with experts is about to be loaded, of which `fit` says whether it fits in memory. Returns whether any
    /// tensors may be left on disk.
    pub fn begin(&mut self, fit: impl FnOnce(&Asked) -> Fit) -> bool {
        let is_asked = self.config.ram == Some(Ram::IfNeeded);
        self.fit = is_asked.then(|| fit(&self.config.asked));
        self.has_budget()
    }

    /// Whether there is a budget, and another model has not used it up.
    pub fn has_budget(&self) -> bool {
        match self.config.ram {
            None => false,
            Some(Ram::Bytes(n)) => self.used_bytes() < n,
            Some(Ram::Percent(_) | Ram::Auto) => true,
            Some(Ram::IfNeeded) => self.fit.is_some_and(|fit| !fit.is_whole()),
        }
    }

    /// Whether an expert tensor of a model that is being loaded, of which one expert has `part_bytes`, is left on
    /// disk. All tensors of a model get the answer of the first one.
    pub fn wants(&mut self, part_bytes: u64) -> bool {
        let used_bytes = self.used_bytes();
        match self.config.ram {
            Some(Ram::Bytes(n)) if used_bytes > 0 => {
                // What others have left is of use if it holds one expert: three parts, or two that are larger.
                let holds_one = used_bytes + 3 * part_bytes <= n;
                *self.is_wanted.get_or_insert(holds_one)
            }
            _ => self.has_budget(),
        }
    }

    /// Bytes that the loaded models' arenas take.
    fn used_bytes(&self) -> u64 {
        self.models.iter().map(|(_, m)| m.arena_bytes()).sum()
    }

    /// The model at address `key` that is being loaded.
    pub fn loading(&mut self, key: usize) -> &mut Loading {
        let at = self.loading.iter().position(|l| l.key == key);
        let at = at.unwrap_or_else(|| {
            self.loading.push(Loading::new(key));
            self.loading.len() - 1
        });
        &mut self.loading[at]
    }

    /// Whether the loaded model at address `key` streams, is observed, or has experts on a device.
    pub fn is_known(&self, key: usize) -> bool {
        let mut models = self.models.iter().map(|(k, _)| *k);
        let mut awake = self.observers.iter().filter(|(_, o)| o.is_awake());
        models.any(|k| k == key)
            || awake.any(|(k, _)| *k == key)
            || device::all().iter().any(|cached| cached.model == key)
    }

    /// The cache at address `key` of a context of the model at address `model`; made on first sight. `None` if the
    /// model is not known.
    pub fn cached(&self, key: usize, model: usize) -> Option<Arc<Cached>> {
        device::find(key).or_else(|| {
            let streamed = self.models.iter().find(|(k, _)| *k == model);
            let loaded = self.observers.iter().find(|(k, _)| *k == model);
            let loaded_model = match (streamed, loaded) {
                (Some((_, model)), _) => LoadedModel::Streamed(model.clone()),
                (None, Some((_, observer))) => LoadedModel::Loaded(observer.clone()),
                (None, None) => return None,
            };
            let repacked = self.repacked(model).to_vec();
            Some(device::add(
                key,
                model,
                loaded_model,
                repacked,
                &self.config,
            ))
        })
    }

    /// The blocks of the model at address `key` whose experts are repacked, ascending.
    pub fn repacked(&self, key: usize) -> &[u32] {
        let of_model = self.repacked.iter().find(|(k, _)| *k == key);
        of_model.map_or(&[], |(_, blocks)| blocks)
    }

    /// Why there was no cache, the last time; empty if nobody said so.
    pub fn uncached(&self) -> &str {
        &self.uncached
    }

    /// There can be no cache. Returns whether that has not just been said.
    pub fn has_news(&mut self, why: &str) -> bool {
        let is_known = self.uncached == why;
        self.uncached = why.to_string();
        !is_known
    }

    /// The models that stream.
    pub fn models(&self) -> impl Iterator<Item = &Arc<Model>> {
        self.models.iter().map(|(_, model)| model)
    }

    /// Turns the loading model into a streaming one and lets compute threads find its tensors. It says
    /// what it is called and of which architecture; a token uses `top_k` experts of a layer.
    pub fn start(&mut self, key: usize, title: Title, top_k: u32) -> Result<()> {
        // The next one to load the model goes on with what was recorded of it.
        let started = self.try_start(key, title, top_k);
        started.inspect_err(|_| drop(self.tapes.park(key)))
    }

    fn try_start(&mut self, key: usize, title: Title, top_k: u32) -> Result<()> {
        let has_room = self.is_wanted.take().unwrap_or_else(|| self.has_budget());
        let fit = self.fit.take();
        let at = self.loading.iter().position(|l| l.key == key);
        let Some(mut loading) = at.map(|at| self.loading.remove(at)) else {
            return Ok(());
        };
        if let Some(error) = loading.error.take() {
            return Err(error);
        }
        let in_host = std::mem::take(&mut loading.in_host);
        let addresses: Vec<usize> = in_host.iter().map(|span| span.start).collect();
        memory::note_weights(&addresses);
        self.mapped.push((key, Mapped::of(in_host)));
        if !loading.repacked.is_empty() {
            let blocks = loading.repacked.iter().copied().collect();
            self.repacked.push((key, blocks));
        }
        if let Some(fit) = &fit {
            self.say_fit(&title, fit);
        }
        let is_whole = fit.is_some_and(|fit| fit.is_whole());
        if self.config.ram.is_some() && loading.tensors.is_empty() && !is_whole {
            let why = match (loading.blocks.len(), has_room) {
                (0, _) => "the model has no experts",
                (_, false) => "other models have used up HOTSET_RAM",
                (_, true) => "its experts cannot be left on disk on this system",
            };
            report::say(&format!("hotset: nothing is streamed: {why}"));
        }
        let name = title.name.clone();
        let target = self.target(&loading, &title, top_k);
        let workload = match is_whole && self.keeps_profile_of_streams() {
            true => None,
            false => self.workload(&loading, title, top_k)?,
        };
        if loading.tensors.is_empty() {
            if !loading.residents.is_empty() {
                let addresses = &loading.resident_addresses;
                let tensors = &loading.residents;
                let observer = observer::observe(name, top_k, target, workload, addresses, tensors);
                self.observers.push((key, observer));
            }
            return Ok(());
        }
        let mut order: Vec<usize> = (0..loading.tensors.len()).collect();
        order.sort_by_key(|&i| expert_part(&loading.tensors[i].name));
        let tensors: Vec<_> = order.iter().map(|&i| loading.tensors[i].clone()).collect();
        let places = places(&tensors);
        let streamed: Vec<_> = order.iter().map(|&i| loading.streamed[i]).collect();
        let mut files: Vec<_> = loading.files.into_iter().map(|(_, file)| file).collect();
        #[cfg(feature = "llama")]
        if self.leaves_unpacked {
            self.unpacked = Some(packed::Unpacked {
                tensors,
                places,
                files,
                streamed,
            });
            return Ok(());
        }
        let used_bytes = self.used_bytes();
        let is_first = |i: &usize| *i == 0 || tensors[*i].block != tensors[*i - 1].block;
        let firsts = (0..tensors.len()).filter(is_first);
        let routers = loading.routers.of_blocks(firsts.map(|i| tensors[i].block));
        let title = first_name(&files);
        let pen = self
            .timeline
            .as_ref()
            .map(|timeline| Pen::new(timeline, &title));
        let packed = match self.config.packs {
            // SAFETY: llama.cpp has loaded its tensors.
            true => unsafe { packed::find(&tensors, &files, &streamed, self.config.repack) },
            false => None,
        };
        let mut repack = self.config.repack;
        let (tensors, layouts) = match packed {
            None => (tensors, None),
            Some(packed) => {
                files.push(packed.file);
                if repack == Repack::Auto {
                    repack = Repack::On;
                }
                (packed.tensors, Some(packed.layouts))
            }
        };
        let mut parts = Parts {
            tensors,
            files,
            pen,
            foresight: self.config.prefetch.then_some(routers),
            repacker: None,
            target,
            workload,
        };
        let budget = budget::of_model(&parts, &self.config, used_bytes)?;
        let share = budget.share(expert_bytes(&parts.tensors));
        // SAFETY: the model is being loaded, and ends later than its engine.
        parts.repacker = unsafe { Repacker::choose(&streamed, &places, repack, share) };
        if let Some(layouts) = layouts {
            packed::note(&mut parts.repacker, &places, &layouts)?;
        }
        let model = Model::new(parts, &self.config, budget, top_k)?;
        let model = Arc::new(model);
        if model.is_elastic() {
            pressure::watch(&model);
        }
        if model.is_shared() {
            shares::follow(&model);
        }
        let mut table = BOUND.load().to_vec();
        for (i, (layer, part)) in order.into_iter().zip(places) {
            let bound = Bound {
                model: model.clone(),
                layer,
                part,
            };
            table.push((loading.streamed[i].weights as usize, Arc::new(bound)));
        }
        table.sort_by_key(|(address, _)| *address);
        BOUND.store(Arc::new(table));
        self.models.push((key, model));
        Ok(())
    }

    /// Says whether a model fits, unless that was said of it last.
    fn say_fit(&mut self, title: &Title, fit: &Fit) {
        let name = title.name.clone().unwrap_or("the model".to_string());
        let line = report::fit_line(&name, fit);
        let said = Some((name, fit.is_whole()));
        if self.said_fit != said {
            self.said_fit = said;
            report::say(&line);
        }
    }

    /// Whether profiles are those that are kept by themselves. They are to start warm, which only what streams does.
    fn keeps_profile_of_streams(&self) -> bool {
        let is_auto = matches!(self.config.profile, Some(ProfileSource::Auto(_)));
        is_auto && self.config.profile_save.is_none()
    }

    /// Where the routing of a model is to be recorded, if it is and can be.
    fn target(&mut self, loading: &Loading, title: &Title, top_k: u32) -> Option<Target> {
        let path = self.config.trace.as_ref()?;
        if loading.tensors.is_empty() && loading.residents.is_empty() {
            let why = match loading.blocks.len() {
                0 => "the model has no experts",
                _ => "its experts are on a device or repacked (--no-repack)",
            };
            report::say(&format!("hotset: nothing is recorded: {why}"));
            return None;
        }
        Some(self.tapes.target(path, loading, title, top_k))
    }

    /// What is known and learnt of the workload of a model with experts, if anything is to be.
    fn workload(
        &mut self,
        loading: &Loading,
        title: Title,
        top_k: u32,
    ) -> Result<Option<Workload>> {
        if loading.blocks.is_empty() {
            return Ok(None);
        }
        let streams = !loading.tensors.is_empty();
        let tensors = if streams {
            &loading.tensors
        } else {
            &loading.residents
        };
        let mut blocks: Vec<u32> = tensors.iter().map(|t| t.block).collect();
        blocks.sort_unstable();
        blocks.dedup();
        let number = |block: &u32| loading.blocks.range(..block).count();
        let n_experts: Vec<u32> = loading.blocks.values().copied().collect();
        let layers_of_model = ModelLayers {
            model: Fingerprint {
                architecture: title.architecture.unwrap_or_default(),
                name: title.name.unwrap_or_default(),
                n_layers: n_experts.len() as u32,
                n_experts: n_experts.iter().copied().max().unwrap_or(0),
                top_k,
            },
            numbers: blocks.iter().map(number).collect(),
            n_experts,
        };
        // A model that comes back after it was freed goes on with its own file.
        let models = self.models.iter().filter_map(|(_, m)| m.workload());
        let observers = self.observers.iter().filter_map(|(_, o)| o.workload());
        let taken: Vec<u32> = models.chain(observers).map(|w| w.n).collect();
        let n = (1..)
            .find(|n| !taken.contains(n))
            .expect("there are few models");
        self.given.of_model(layers_of_model, n).map(Some)
    }

    /// The model at address `key` leaves, if it was there: no graph uses it. Compute threads do not find its tensors
    /// any more; it stays here until it is reported on.
    pub(super) fn leave(&mut self, key: usize) -> Option<LoadedModel> {
        self.loading.retain(|l| l.key != key);
        self.is_wanted = None;
        self.fit = None;
        self.repacked.retain(|(k, _)| *k != key);
        self.mapped.retain(|(k, _)| *k != key);
        if let Some((_, observer)) = self.observers.iter().find(|(k, _)| *k == key) {
            return Some(LoadedModel::Loaded(observer.clone()));
        }
        let (_, model) = self.models.iter().find(|(k, _)| *k == key)?;
        let mut table = BOUND.load().to_vec();
        table.retain(|(_, bound)| !Arc::ptr_eq(&bound.model, model));
        BOUND.store(Arc::new(table));
        Some(LoadedModel::Streamed(model.clone()))
    }

    /// All models that are loaded, for saving their profiles: to be done when the loaded models is free.
    #[cfg(feature = "llama")]
    pub fn all(&self) -> Vec<LoadedModel> {
        let models = self
            .models
            .iter()
            .map(|(_, m)| LoadedModel::Streamed(m.clone()));
        let observers = self.observers.iter();
        models
            .chain(observers.map(|(_, o)| LoadedModel::Loaded(o.clone())))
            .collect()
    }
}

/// What a model is called after its first file.
fn first_name(files: &[ModelFile]) -> String {
    let name = files.first().and_then(|file| file.path().file_name());
    name.map_or(String::new(), |name| name.to_string_lossy().into_owned())
}
