//! A profile that is learnt, and the file that keeps it.
//!
//! Other processes may learn into the same file, so it is read again before it is written, and what this process has
//! learnt since is added. What is there and is no profile of the model is never replaced: the file is then one with
//! the model's name in it.

use super::workload::Shelves;
use crate::config;
use crate::error::Error;
use crate::output::{self, Place};
use crate::profile::{Lesson, Profile};
use crate::report;
use std::path::{Path, PathBuf};

/// A profile that is learnt.
pub struct Learner {
    file: Option<Kept>,
    profile: Profile,
    /// What the profile has been taught of this run.
    taught: Lesson,
}

/// Where a profile is saved.
struct Kept {
    /// What was asked for.
    wanted: PathBuf,
    /// That, or the file beside it that the model has for itself.
    path: PathBuf,
    /// Why it could not be saved, the last time.
    unsaved: String,
}

/// What is in a file.
enum Found {
    /// Nothing that could be lost. Said, if there should have been something.
    Nothing(Option<&'static str>),
    /// A profile of the model.
    Profile(Box<Profile>),
    /// Something else, and what.
    Other(String),
}

impl Learner {
    /// Of a profile without a name, which is not saved.
    pub fn new(shelves: &Shelves) -> Self {
        Self {
            file: None,
            profile: Profile::new("", shelves.model.clone(), &shelves.n_experts),
            taught: Lesson::new(&shelves.n_experts),
        }
    }

    /// Goes on with what is at `wanted`, or in the file of the model beside it. `None` if there is no name left.
    pub fn continuing(wanted: PathBuf, shelves: &Shelves) -> Option<Self> {
        let (path, old) = choose(&wanted, shelves)?;
        let mut learner = Self::new(shelves);
        learner.profile.name = config::profile_name(&path);
        learner.profile = old.unwrap_or(learner.profile);
        learner.file = Some(Kept {
            wanted,
            path,
            unsaved: String::new(),
        });
        Some(learner)
    }

    /// The profile as it was last learnt.
    #[cfg(feature = "llama")]
    pub fn profile(&self) -> &Profile {
        &self.profile
    }

    /// Learns what `whole`, all of this run, adds; saves it. What cannot be saved is said once, and tried again with
    /// what comes later.
    pub fn learn(&mut self, whole: Lesson, shelves: &Shelves) {
        if whole == self.taught {
            return;
        }
        let news = whole.since(&self.taught);
        let Some(file) = &mut self.file else {
            self.profile.learn(&news);
            self.taught = whole;
            return;
        };
        match file.save(&self.profile, &news, shelves) {
            Ok(profile) => {
                self.profile = profile;
                self.taught = whole;
                file.unsaved.clear();
            }
            Err(why) if why == file.unsaved => {}
            Err(why) => {
                report::say(&format!(
                    "hotset: warning: HOTSET_PROFILE_SAVE: {why}; what is learnt is not saved"
                ));
                file.unsaved = why;
            }
        }
    }
}

impl Kept {
    /// Adds `news` to what the file has by now, or to `profile` if it is gone.
    fn save(
        &mut self,
        profile: &Profile,
        news: &Lesson,
        shelves: &Shelves,
    ) -> Result<Profile, String> {
        let mut lock = output::lock(&self.path);
        let old = match look(&self.path, shelves) {
            Found::Nothing(_) => None,
            Found::Profile(old) => Some(*old),
            // Somebody has put something else there.
            Found::Other(why) => {
                drop(lock);
                let Some((path, _)) = choose(&self.wanted, shelves) else {
                    return Err(format!("{}: {why}", self.path.display()));
                };
                self.path = path;
                lock = output::lock(&self.path);
                match look(&self.path, shelves) {
                    Found::Profile(old) => Some(*old),
                    _ => None,
                }
            }
        };
        let mut profile = old.unwrap_or_else(|| profile.clone());
        profile.learn(news);
        let written = profile.write(&self.path);
        drop(lock);
        written.map_err(|error| error.to_string())?;
        Ok(profile)
    }
}

/// The file that keeps the profile of a model, which is `wanted` unless that holds something else; and the profile
/// that is there. Says what is not as expected.
fn choose(wanted: &Path, shelves: &Shelves) -> Option<(PathBuf, Option<Profile>)> {
    /// More names than anybody lets pile up.
    const N_NAMES_MAX: u32 = 99;
    let shown = wanted.display();
    let why = match look(wanted, shelves) {
        Found::Profile(old) => return Some((wanted.to_path_buf(), Some(*old))),
        Found::Nothing(what) => {
            if let Some(what) = what {
                report::say(&format!("hotset: {shown}: {what}; a new profile is begun"));
            }
            return Some((wanted.to_path_buf(), None));
        }
        Found::Other(why) => why,
    };
    let model = &shelves.model;
    let name = match model.name.is_empty() {
        true => &model.architecture,
        false => &model.name,
    };
    let own = config::model_path(wanted, name);
    for n in 1..=N_NAMES_MAX {
        let path = config::profile_path(&own, n);
        let old = match look(&path, shelves) {
            Found::Nothing(_) => None,
            Found::Profile(old) => Some(*old),
            Found::Other(_) => continue,
        };
        report::say(&format!(
            "hotset: {shown}: {why}; it is left alone, and what is learnt goes to {}",
            path.display()
        ));
        return Some((path, old));
    }
    report::say(&format!("hotset: {shown}: {why}; nothing is learnt"));
    None
}

/// What is at `path`.
fn look(path: &Path, shelves: &Shelves) -> Found {
    match Place::of(path) {
        Err(cause) => return Found::Other(cause.to_string()),
        Ok(Place::File { meta, .. }) if meta.len() == 0 => {
            return Found::Nothing(Some("it is empty"));
        }
        Ok(Place::File { .. }) => {}
        // Nothing is read from a pipe.
        Ok(_) => return Found::Nothing(None),
    }
    match Profile::read(path) {
        Ok(profile) => match shelves.difference(&profile) {
            None => Found::Profile(Box::new(profile)),
            Some(why) => Found::Other(why),
        },
        Err(Error::File { why, .. }) => Found::Other(why),
        Err(error) => Found::Other(error.to_string()),
    }
}
