//! Profiles that are kept by themselves: `HOTSET_PROFILE=auto`. Nothing about them stops a program.

use crate::config::Config;
use crate::output;
use crate::profile::{Learner, ModelLayers, Profile, Tokens, own_name};
use crate::report;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

const SETTING: &str = "HOTSET_PROFILE=auto";

/// Where they are.
pub struct AutoProfiles {
    /// `None` if this user has no place for data.
    folder: Option<PathBuf>,
    /// Whether what is learnt goes there, and not elsewhere.
    pub saves: bool,
}

/// That of one model.
#[derive(Default)]
pub struct AutoProfile {
    /// What it has learnt before.
    pub known: Option<Profile>,
    /// What goes on with it.
    pub learner: Option<Learner>,
}

impl AutoProfiles {
    /// Those in `folder`. With `config` what is learnt may go elsewhere.
    pub fn new(folder: Option<PathBuf>, config: &Config) -> Self {
        Self {
            folder,
            saves: config.profile_save.is_none(),
        }
    }

    /// That of this model. What there is to say is said where it `is_first`: a server loads a model again and again.
    pub fn of_model(&self, layers_of_model: &ModelLayers, is_first: bool) -> AutoProfile {
        let tell = |line: &str| {
            if is_first {
                report::say(line);
            }
        };
        let Some(folder) = &self.folder else {
            tell(&unkept(
                "there is no folder for data of this user (XDG_DATA_HOME, HOME)",
            ));
            return AutoProfile::default();
        };
        let path = folder.join(own_name(&layers_of_model.model));
        let may_save = self.saves
            && match prepare(folder, &path) {
                Ok(()) => true,
                Err(why) => {
                    tell(&unkept(&format!("{}: {why}", path.display())));
                    false
                }
            };
        let known = |profile: &Profile, path: &Path| {
            let Tokens { prompt, generation } = profile.tokens;
            let n_tokens = prompt.saturating_add(generation);
            let what = match n_tokens {
                0 => "new, learns from this run (HOTSET_PROFILE=off: none)".to_string(),
                n => format!("used, has learnt from {n} tokens"),
            };
            tell(&format!("hotset: profile {}: {what}", path.display()));
            (n_tokens > 0).then(|| profile.clone())
        };
        if !may_save {
            return AutoProfile {
                known: read(&path, layers_of_model, tell).and_then(|old| known(&old, &path)),
                learner: None,
            };
        }
        let learner = Learner::continuing(SETTING, path, layers_of_model, report::say);
        AutoProfile {
            known: learner
                .as_ref()
                .and_then(|learner| known(learner.profile(), learner.path()?)),
            learner,
        }
    }
}

/// What is at `path`, which is only used.
fn read(path: &Path, layers_of_model: &ModelLayers, tell: impl Fn(&str)) -> Option<Profile> {
    if !path.exists() {
        return None;
    }
    let read = Profile::read(path).map_err(|error| error.to_string());
    let fitting = read.and_then(|profile| match layers_of_model.difference(&profile) {
        None => Ok(profile),
        Some(why) => Err(format!("{}: {why}", path.display())),
    });
    let unused = |why: &String| tell(&format!("hotset: {why}; it is not used"));
    fitting.inspect_err(unused).ok()
}

fn unkept(why: &str) -> String {
    format!("hotset: warning: {SETTING}: {why}; what is learnt is not kept")
}

/// Makes the folder, which is nobody else's, and sees whether `path` in it can be written.
fn prepare(folder: &Path, path: &Path) -> Result<(), String> {
    let mut builder = DirBuilder::new();
    let made = builder.recursive(true).mode(0o700).create(folder);
    made.map_err(|cause| format!("its folder cannot be made: {cause}"))?;
    output::check(path)
}
