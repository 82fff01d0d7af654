//! What is known of a model's workload, and what is learnt of it: profiles that are used, and the one
//! that is saved.

use super::auto_profile::AutoProfiles;
use crate::config::{self, Config};
use crate::error::{Error, Result};
use crate::output;
use crate::profile::recognizer::{Known, Recognizer};
use crate::profile::{
    Blend, Chooser, Learner, Lesson, Memory, ModelLayers, PRIOR_TOKENS, Profile,
    read_folder_sparing, weight_beside,
};
use crate::report;
use crate::sync::lock_soon;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

/// The profiles of the settings. Those that are used are read before any model is loaded, so that a damaged file is
/// found in time. One that is only written is read when its model is known, and stops nothing.
#[derive(Default)]
pub struct Given {
    files: Vec<(PathBuf, Profile, f64)>,
    folder: Option<(PathBuf, Vec<(PathBuf, Profile)>)>,
    auto: Option<AutoProfiles>,
    /// What was learnt of models that are gone; `None` if that teaches nothing.
    memory: Option<Memory>,
    prewarm: Duration,
    /// Where a profile is saved.
    save: Option<PathBuf>,
    /// Whether other models of a router have the same settings.
    is_routed: bool,
    /// Whether the profiles came while a server ran: what does not fit then is left out.
    is_steered: bool,
    /// Whether a profile is learnt, saved or not.
    pub learns: bool,
}

const NOBODY_PANICS: &str = "no thread panics with it";

/// The workload of one model.
pub struct Workload {
    /// Its number among the models that are loaded.
    pub n: u32,
    layers_of_model: ModelLayers,
    /// The profiles that are mixed.
    parts: Vec<(Profile, f64)>,
    /// The profiles of which one is chosen.
    choice: Vec<Profile>,
    /// Whether somebody has named any of these.
    is_asked: bool,
    /// How long reading experts may take; 0: none are read.
    pub prewarm: Duration,
    learner: Option<Mutex<Learner>>,
    /// What a running server was asked to go by instead of `parts`, and to choose from instead of `choice`.
    used: Mutex<Option<String>>,
    folder: Mutex<Option<PathBuf>>,
}

impl Given {
    /// Reads the profiles that `config` names.
    pub fn read(config: &Config) -> Result<Self> {
        let mut given = Self {
            prewarm: config.prewarm,
            is_routed: config.routed.is_some(),
            memory: Some(Memory::default()),
            ..Self::default()
        };
        match &config.profile {
            None | Some(config::ProfileSource::Off) => {}
            Some(config::ProfileSource::Auto(folder)) => {
                given.auto = Some(AutoProfiles::new(folder.clone(), config));
            }
            Some(config::ProfileSource::Files(parts)) => {
                for (path, weight) in parts {
                    let profile = Profile::read(path)?;
                    given.files.push((path.clone(), profile, *weight));
                }
            }
            Some(config::ProfileSource::Folder(folder)) => {
                let is_spared = |path: &Path| config.may_save_to(path);
                let (profiles, damaged) = read_folder_sparing(folder, is_spared)?;
                // What is wrong with the file that is saved is said when its model is known.
                for (_, error) in damaged.iter().filter(|(path, _)| !config.saves_to(path)) {
                    report::say(&format!("hotset: {error}; it is none to choose"));
                }
                given.folder = Some((folder.clone(), profiles));
            }
        }
        if let Some(path) = &config.profile_save {
            given.save = Some(path.clone());
            given.learns = true;
        }
        Ok(given)
    }

    /// Whether what is learnt is kept.
    pub fn saves(&self) -> bool {
        self.save.is_some() || self.auto.as_ref().is_some_and(|auto| auto.saves)
    }

    /// What is computed from now on is no text: nothing is learnt from it.
    #[cfg(feature = "llama")]
    pub fn teach_nothing(&mut self) {
        (self.save, self.memory, self.learns) = (None, None, false);
        if let Some(auto) = &mut self.auto {
            auto.saves = false;
        }
    }

    /// Models that are loaded from now on go by a mix of these.
    pub fn go_by(&mut self, files: Vec<(PathBuf, Profile, f64)>) {
        (self.files, self.folder, self.is_steered) = (files, None, true);
    }

    /// Models that are loaded from now on choose one of a folder.
    pub fn choose_of(&mut self, folder: PathBuf, profiles: Vec<(PathBuf, Profile)>) {
        (self.files, self.folder, self.is_steered) = (Vec::new(), Some((folder, profiles)), true);
    }

    /// A model is freed that has picked `lesson` since it was loaded, by layer of the engine: if it comes back, it goes
    /// on with that.
    pub fn remember(&mut self, workload: &Workload, lesson: &Lesson) {
        if let Some(memory) = &mut self.memory {
            memory.learn(&workload.layers_of_model, lesson);
        }
    }

    /// What there is for model `n` of those that are loaded at the same time, counted from 1. Fails if
    /// the profiles are of another model; those given for the first one need not fit further models,
    /// draft models for example.
    pub fn of_model(&self, layers_of_model: ModelLayers, n: u32) -> Result<Workload> {
        let mut parts = Vec::new();
        for (path, profile, weight) in &self.files {
            match layers_of_model.difference(profile) {
                None => parts.push((profile.clone(), *weight)),
                Some(why) if self.is_routed => report::say(&format!(
                    "hotset: {}: {why}; this model does not start with it",
                    path.display()
                )),
                Some(why) if n == 1 && !self.is_steered => return Err(Error::file(path, why)),
                Some(_) => {}
            }
        }
        let mut choice = Vec::new();
        if let Some((folder, profiles)) = &self.folder {
            let fitting = profiles
                .iter()
                .filter(|(_, p)| layers_of_model.difference(p).is_none());
            choice.extend(fitting.map(|(_, profile)| profile.clone()));
            report::say(&format!(
                "hotset: {} of {} profiles in {} are of this model",
                choice.len(),
                profiles.len(),
                folder.display()
            ));
        }
        let is_asked = !parts.is_empty() || !choice.is_empty();
        let before = self.memory.as_ref();
        let before = before.and_then(|memory| memory.of(&layers_of_model));
        // Of a model that is on devices as a whole nothing is heard.
        let auto = self.auto.as_ref();
        let auto = auto.filter(|_| !layers_of_model.numbers.is_empty());
        let auto = auto.map(|auto| auto.of_model(&layers_of_model, before.is_none()));
        let auto = auto.unwrap_or_default();
        // What a running server was asked to go by takes its place.
        let known = auto.known.filter(|_| !self.is_steered);
        parts.extend(known.map(|profile| (profile, 1.0)));
        if let Some(profile) = before {
            let others = parts.iter().map(|(_, weight)| weight).sum();
            let weight = match parts.is_empty() {
                true => 1.0,
                false => weight_beside(profile, others),
            };
            parts.push((profile.clone(), weight));
        }
        let learner = match &self.save {
            Some(path) => {
                let path = output::numbered(path, n);
                Learner::continuing("HOTSET_PROFILE_SAVE", path, &layers_of_model, report::say)
            }
            None => auto.learner.or_else(|| {
                let learner = || Learner::new(&layers_of_model, report::say);
                self.learns.then(learner)
            }),
        };
        Ok(Workload {
            n,
            layers_of_model,
            parts,
            choice,
            is_asked,
            prewarm: self.prewarm,
            learner: learner.map(Mutex::new),
            used: Mutex::default(),
            folder: Mutex::new(self.folder.as_ref().map(|(folder, _)| folder.clone())),
        })
    }
}

impl Workload {
    /// What the mixed profiles say, if there are any.
    pub fn known(&self) -> Option<Known> {
        let parts: Vec<_> = self.parts.iter().map(|(p, weight)| (p, *weight)).collect();
        (!parts.is_empty()).then(|| self.blend(&parts))
    }

    /// What recognises which of the profiles it is, if there are any.
    pub fn recognizer(&self) -> Option<Recognizer> {
        let profiles: Vec<_> = self.choice.iter().collect();
        (!profiles.is_empty()).then(|| self.recognizer_of(&profiles))
    }

    /// What recognises which of `profiles` it is; they are of this model.
    pub fn recognizer_of(&self, profiles: &[&Profile]) -> Recognizer {
        let known = profiles.iter().map(|p| self.blend(&[(*p, 1.0)])).collect();
        let numbers = self.layers_of_model.numbers.clone();
        Recognizer::new(Chooser::new(profiles), known, numbers)
    }

    /// What a profile and the model differ in.
    pub fn difference(&self, profile: &Profile) -> Option<String> {
        self.layers_of_model.difference(profile)
    }

    /// The profiles that policies go by, in one name.
    pub fn used(&self) -> Option<String> {
        let asked = lock_soon(&self.used).and_then(|used| used.clone());
        let used = asked
            .or_else(|| (!self.parts.is_empty()).then(|| names(self.parts.iter().map(|(p, _)| p))));
        used.filter(|name| !name.is_empty())
    }

    /// Policies go by others now, which are called so, and nothing is chosen.
    pub fn note_used(&self, name: String) {
        *self.used.lock().expect(NOBODY_PANICS) = Some(name);
        *self.folder.lock().expect(NOBODY_PANICS) = None;
    }

    /// The folder of the profiles that one is chosen of.
    pub fn folder(&self) -> Option<PathBuf> {
        lock_soon(&self.folder).and_then(|folder| folder.clone())
    }

    /// It is another one now, and one is chosen of its profiles.
    pub fn note_folder(&self, folder: &Path) {
        *self.used.lock().expect(NOBODY_PANICS) = Some(String::new());
        *self.folder.lock().expect(NOBODY_PANICS) = Some(folder.to_path_buf());
    }

    /// Where a profile is saved, if it is.
    pub fn saves_to(&self) -> Option<PathBuf> {
        let learner = lock_soon(self.learner.as_ref()?)?;
        learner.path().map(Path::to_path_buf)
    }

    /// Why the profile could not be saved, the last time.
    pub fn unsaved(&self) -> Option<String> {
        let learner = lock_soon(self.learner.as_ref()?)?;
        learner.unsaved().map(str::to_string)
    }

    /// What a mix of `parts` says, which are of this model.
    pub fn blend(&self, parts: &[(&Profile, f64)]) -> Known {
        let blend = Blend::of(parts);
        let numbers = self.layers_of_model.numbers.iter();
        Known {
            name: names(parts.iter().map(|(profile, _)| *profile)),
            frequency: numbers.map(|&n| blend.layers[n].clone()).collect(),
            n_tokens: PRIOR_TOKENS,
        }
    }

    /// Whether profiles are used that somebody has named.
    pub fn is_asked(&self) -> bool {
        self.is_asked
    }

    /// Whether a profile is learnt.
    pub fn learns(&self) -> bool {
        self.learner.is_some()
    }

    /// Learns what `lesson`, all of this run by layer of the engine, adds to the profile, and saves it. Does nothing
    /// if that is under way and does not end: the end of the process may have interrupted it.
    pub fn learn(&self, lesson: &Lesson) {
        /// A disk may take its time.
        const N_TRIES: u32 = 10;
        let learner = self.learner.as_ref();
        let learner = learner.and_then(|l| (0..N_TRIES).find_map(|_| lock_soon(l)));
        let Some(mut learner) = learner else {
            return;
        };
        learner.learn(self.layers_of_model.whole(lesson), &self.layers_of_model);
    }

    /// The profile as it was last learnt, if one is.
    #[cfg(feature = "llama")]
    pub fn learnt(&self) -> Option<Profile> {
        let learner = self.learner.as_ref()?;
        let learner = learner.lock().expect("no thread panics with it");
        Some(learner.profile().clone())
    }
}

/// What a mix of profiles is called.
fn names<'a>(profiles: impl Iterator<Item = &'a Profile>) -> String {
    let names: Vec<&str> = profiles.map(|profile| profile.name.as_str()).collect();
    names.join(", ")
}
