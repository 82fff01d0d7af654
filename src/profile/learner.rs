//! A profile that is learnt, and the file that keeps it.
//!
//! Other processes may learn into the same file, so it is read again before it is written, and what this process has
//! learnt since is added. What is there and is no profile of the model is never replaced: the file is then one with
//! the model's name in it.

use super::file::{Unread, profile_name};
use super::format::{Fingerprint, Profile};
use super::learn::Lesson;
use crate::output::{self, Place};
use std::path::{Path, PathBuf};

/// The layers of a model.
pub struct ModelLayers {
    /// What the model is.
    pub model: Fingerprint,
    /// Experts of each layer that has any.
    pub n_experts: Vec<u32>,
    /// Which of these each layer of the engine is.
    pub numbers: Vec<usize>,
}

impl ModelLayers {
    /// What a profile and the model differ in.
    pub fn difference(&self, profile: &Profile) -> Option<String> {
        profile.model.difference(&self.model).or_else(|| {
            (profile.n_experts() != self.n_experts)
                .then(|| "its layers do not have the model's numbers of experts".to_string())
        })
    }

    /// A lesson of all layers of the model, of one by layer of the engine.
    pub fn whole(&self, lesson: &Lesson) -> Lesson {
        let mut whole = Lesson::new(&self.n_experts);
        whole.tokens = lesson.tokens;
        for (&number, picks) in self.numbers.iter().zip(&lesson.layers) {
            whole.layers[number].clone_from(picks);
        }
        whole
    }
}

/// Tells people something.
pub type Say = fn(&str);

/// A profile that is learnt.
pub struct Learner {
    file: Option<Kept>,
    say: Say,
    profile: Profile,
    /// What the profile has learnt of this run.
    learnt: Lesson,
}

/// Where a profile is saved.
struct Kept {
    /// What asks for it.
    setting: &'static str,
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
    pub fn new(layers_of_model: &ModelLayers, say: Say) -> Self {
        Self {
            file: None,
            say,
            profile: Profile::new(
                "",
                layers_of_model.model.clone(),
                &layers_of_model.n_experts,
            ),
            learnt: Lesson::new(&layers_of_model.n_experts),
        }
    }

    /// Goes on with what is at `wanted`, as `setting` asks for, or in the file of the model beside it. `None` if there
    /// is no name left.
    ///
    /// What cannot be read now is looked at again before anything is saved.
    pub fn continuing(
        setting: &'static str,
        wanted: PathBuf,
        layers_of_model: &ModelLayers,
        say: Say,
    ) -> Option<Self> {
        let (path, old, unsaved) = match choose(&wanted, layers_of_model, say) {
            Ok(chosen) => {
                let (path, old) = chosen?;
                (path, old, String::new())
            }
            Err(why) => {
                say(&unsaved_line(setting, &why));
                (wanted.clone(), None, why)
            }
        };
        let mut learner = Self::new(layers_of_model, say);
        learner.profile.name = profile_name(&path);
        learner.profile = old.unwrap_or(learner.profile);
        learner.file = Some(Kept {
            setting,
            wanted,
            path,
            unsaved,
        });
        Some(learner)
    }

    /// The file, if it is saved.
    pub fn path(&self) -> Option<&Path> {
        self.file.as_ref().map(|file| file.path.as_path())
    }

    /// Why it could not be saved, the last time; `None` if it could.
    pub fn unsaved(&self) -> Option<&str> {
        let file = self.file.as_ref()?;
        Some(file.unsaved.as_str()).filter(|why| !why.is_empty())
    }

    /// The profile as it was last learnt.
    pub fn profile(&self) -> &Profile {
        &self.profile
    }

    /// Learns what `whole`, all of this run, adds; saves it. What cannot be saved is said once, and tried again with
    /// what comes later.
    pub fn learn(&mut self, whole: Lesson, layers_of_model: &ModelLayers) {
        if whole == self.learnt {
            return;
        }
        let news = whole.since(&self.learnt);
        let Some(file) = &mut self.file else {
            self.profile.learn(&news);
            self.learnt = whole;
            return;
        };
        match file.save(&self.profile, &news, layers_of_model, self.say) {
            Ok(profile) => {
                self.profile = profile;
                self.learnt = whole;
                file.unsaved.clear();
            }
            Err(why) if why == file.unsaved => {}
            Err(why) => {
                (self.say)(&unsaved_line(file.setting, &why));
                file.unsaved = why;
            }
        }
    }
}

fn unsaved_line(setting: &str, why: &str) -> String {
    format!("hotset: warning: {setting}: {why}; what is learnt is not saved")
}

impl Kept {
    /// Adds `news` to what the file has by now, or to `profile` if it is gone.
    fn save(
        &mut self,
        profile: &Profile,
        news: &Lesson,
        layers_of_model: &ModelLayers,
        say: Say,
    ) -> Result<Profile, String> {
        let mut lock = output::lock(&self.path);
        let mut found = look(&self.path, layers_of_model)?;
        if let Found::Other(why) = &found {
            // Somebody has put something else there.
            drop(lock);
            let Some((path, _)) = choose(&self.wanted, layers_of_model, say)? else {
                return Err(format!("{}: {why}", self.path.display()));
            };
            self.path = path;
            lock = output::lock(&self.path);
            found = look(&self.path, layers_of_model)?;
        }
        let mut profile = match found {
            Found::Nothing(_) => profile.clone(),
            Found::Profile(old) => *old,
            // Here, too, meanwhile: the next save will see.
            Found::Other(why) => return Err(format!("{}: {why}", self.path.display())),
        };
        profile.learn(news);
        let written = profile.write(&self.path);
        drop(lock);
        written.map_err(|error| error.to_string())?;
        Ok(profile)
    }
}

/// The file that keeps the profile of a model, which is `wanted` unless that holds something else, and the profile
/// that is there; `None` if there is no name left. Says what is not as expected. The error is why a file could not be
/// looked into, which says nothing of what it holds.
fn choose(
    wanted: &Path,
    layers_of_model: &ModelLayers,
    say: Say,
) -> Result<Option<(PathBuf, Option<Profile>)>, String> {
    /// More names than anybody lets pile up.
    const N_NAMES_MAX: u32 = 99;
    let shown = wanted.display();
    let why = match look(wanted, layers_of_model)? {
        Found::Profile(old) => return Ok(Some((wanted.to_path_buf(), Some(*old)))),
        Found::Nothing(what) => {
            if let Some(what) = what {
                say(&format!("hotset: {shown}: {what}; a new profile is begun"));
            }
            return Ok(Some((wanted.to_path_buf(), None)));
        }
        Found::Other(why) => why,
    };
    let model = &layers_of_model.model;
    let name = match model.name.is_empty() {
        true => &model.architecture,
        false => &model.name,
    };
    let own = output::model_path(wanted, name);
    for n in 1..=N_NAMES_MAX {
        let path = output::numbered(&own, n);
        let old = match look(&path, layers_of_model)? {
            Found::Nothing(_) => None,
            Found::Profile(old) => Some(*old),
            Found::Other(_) => continue,
        };
        say(&format!(
            "hotset: {shown}: {why}; it is left alone, and what is learnt goes to {}",
            path.display()
        ));
        return Ok(Some((path, old)));
    }
    say(&format!("hotset: {shown}: {why}; nothing is learnt"));
    Ok(None)
}

/// What is at `path`; why that cannot be told for now, if the system does not say.
fn look(path: &Path, layers_of_model: &ModelLayers) -> Result<Found, String> {
    let unread = |cause: std::io::Error| format!("{}: {cause}", path.display());
    match Place::of(path).map_err(unread)? {
        Place::File { meta, .. } if meta.len() == 0 => {
            return Ok(Found::Nothing(Some("it is empty")));
        }
        Place::File { .. } => {}
        // Nothing is read from a pipe.
        _ => return Ok(Found::Nothing(None)),
    }
    match Profile::try_read(path) {
        Ok(profile) => Ok(match layers_of_model.difference(&profile) {
            None => Found::Profile(Box::new(profile)),
            Some(why) => Found::Other(why),
        }),
        Err(Unread::Content(why)) => Ok(Found::Other(why)),
        Err(Unread::System(cause)) => Err(unread(cause)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tracker::Phase;
    use std::cell::RefCell;
    use std::fs;
    use std::os::unix::fs::symlink;

    thread_local! {
        static SAID: RefCell<Vec<String>> = RefCell::default();
    }

    fn say(line: &str) {
        SAID.with_borrow_mut(|said| said.push(line.to_string()));
    }

    fn said() -> Vec<String> {
        SAID.take()
    }

    fn layers_of_model() -> ModelLayers {
        ModelLayers {
            model: Fingerprint {
                architecture: "test".to_string(),
                name: "mine".to_string(),
                n_layers: 1,
                n_experts: 3,
                top_k: 1,
            },
            n_experts: vec![3],
            numbers: vec![0],
        }
    }

    /// All of a run of so many tokens.
    fn lesson(n_tokens: u64) -> Lesson {
        let mut lesson = Lesson::new(&[3]);
        lesson.tokens.generation = n_tokens;
        lesson.layers[0][Phase::Decode as usize] = vec![n_tokens, 0, 0];
        lesson
    }

    fn n_tokens(path: &Path) -> u64 {
        Profile::read(path).unwrap().tokens.generation
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let mut names: Vec<_> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    /// The file of a profile, with a way to make it unreadable for anybody, and back.
    struct Bench {
        dir: tempfile::TempDir,
        path: PathBuf,
        aside: PathBuf,
    }

    impl Bench {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let [path, aside] = ["q.json", "aside"].map(|name| dir.path().join(name));
            Self { dir, path, aside }
        }

        fn hide(&self) {
            fs::rename(&self.path, &self.aside).unwrap();
            symlink("q.json", &self.path).unwrap();
        }

        fn show(&self) {
            fs::rename(&self.aside, &self.path).unwrap();
        }
    }

    #[test]
    fn what_cannot_be_read_for_a_while_is_read_and_added_to_later() {
        let (bench, layers_of_model) = (Bench::new(), layers_of_model());
        let begin = || {
            let path = bench.path.clone();
            Learner::continuing("HOTSET_PROFILE_SAVE", path, &layers_of_model, say).unwrap()
        };
        begin().learn(lesson(5), &layers_of_model);
        assert_eq!(n_tokens(&bench.path), 5);
        assert_eq!(said(), [""; 0]);

        // While the run goes on.
        let mut learner = begin();
        bench.hide();
        learner.learn(lesson(3), &layers_of_model);
        learner.learn(lesson(4), &layers_of_model);
        let lines = said();
        assert_eq!(lines.len(), 1, "{lines:?}");
        let parts = ["HOTSET_PROFILE_SAVE: ", "q.json: ", "is not saved"];
        assert!(
            parts.iter().all(|part| lines[0].contains(part)),
            "{lines:?}"
        );
        assert_eq!(names(bench.dir.path()), ["aside", "q.json"]);
        bench.show();
        learner.learn(lesson(6), &layers_of_model);
        assert_eq!(n_tokens(&bench.path), 5 + 6);

        // When it begins.
        bench.hide();
        let mut learner = begin();
        learner.learn(lesson(1), &layers_of_model);
        assert_eq!(said().len(), 1);
        bench.show();
        learner.learn(lesson(2), &layers_of_model);
        assert_eq!(n_tokens(&bench.path), 5 + 6 + 2);
        assert_eq!(names(bench.dir.path()), ["q.json"]);
        assert_eq!(said(), [""; 0]);
    }

    #[test]
    fn what_is_something_else_is_left_alone() {
        let (bench, layers_of_model) = (Bench::new(), layers_of_model());
        let path = bench.path.clone();
        let mut learner = Learner::continuing("X", path, &layers_of_model, say).unwrap();
        learner.learn(lesson(5), &layers_of_model);
        fs::write(&bench.path, "something else").unwrap();
        learner.learn(lesson(7), &layers_of_model);
        assert_eq!(fs::read(&bench.path).unwrap(), b"something else");
        let own = bench.dir.path().join("q.mine.json");
        assert_eq!(n_tokens(&own), 7);
        let lines = said();
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(lines[0].contains("left alone"), "{lines:?}");

        // Its place is taken between a look and the next one: who says where it goes puts something there.
        fn put(line: &str) {
            say(line);
            if let Some((_, path)) = line.rsplit_once("goes to ") {
                fs::write(path, "another thing").unwrap();
            }
        }
        fs::write(&own, "a third").unwrap();
        learner.say = put;
        learner.learn(lesson(9), &layers_of_model);
        let second = bench.dir.path().join("q.mine.2.json");
        assert_eq!(fs::read(&second).unwrap(), b"another thing");
        learner.say = say;
        learner.learn(lesson(9), &layers_of_model);
        assert_eq!(n_tokens(&bench.dir.path().join("q.mine.3.json")), 9);
        assert_eq!(fs::read(&second).unwrap(), b"another thing");
        said();
    }
}
