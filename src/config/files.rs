//! The files of a run: what may be written where, and whose names they have.

use super::router::Routed;
use super::settings::Config;
use super::values::{ProfileSource, StatsTo};
use crate::error::{Error, Result};
use crate::output::names::{PROFILE_SUFFIXES, ends_with, folder_of, inserted, split};
use crate::output::{self, Place};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Whether `folder` has a file `path`, or one that `path` leads to.
fn is_in(path: &Path, folder: &Path) -> bool {
    let number = |folder: &Path| {
        let meta = fs::metadata(folder).ok()?;
        Some((meta.dev(), meta.ino()))
    };
    let real = match Place::of(path) {
        Ok(Place::File { path, .. }) => path,
        Ok(Place::Missing(target)) => Some(target),
        Ok(Place::Stream(_) | Place::Special(_)) | Err(_) => None,
    };
    let folder = number(folder);
    let mut paths = [Some(path), real.as_deref()].into_iter().flatten();
    folder.is_some() && paths.any(|path| number(folder_of(path)) == folder)
}

/// Whether a file called `name` is the one called `of`, or that of another model: `chat.2.json` of `chat.json`.
fn is_variant(name: &OsStr, of: &OsStr) -> bool {
    let Some((stem, suffix)) = split(of) else {
        return name == of;
    };
    let between = name.as_bytes().strip_prefix(stem);
    let between = between.and_then(|rest| rest.strip_suffix(suffix));
    between.is_some_and(|between| between.is_empty() || between.starts_with(b"."))
}

impl Config {
    /// Refuses files that could not be written in the end, and those that would be written over each other or over
    /// what is read. To be done before any work.
    pub fn check_files(&self) -> Result<()> {
        let written: Vec<_> = self.files().collect();
        output::check_all(&written, &[])?;
        // What is learnt may go on from what is known.
        let is_apart = |(name, _): &(&str, &Path)| *name != "HOTSET_PROFILE_SAVE";
        let apart: Vec<_> = written.into_iter().filter(is_apart).collect();
        output::check_all(&apart, &self.read_files())?;
        let Some(ProfileSource::Folder(folder)) = &self.profile else {
            return Ok(());
        };
        // The next start would take it for a profile.
        let mut not_profiles = self.files().filter(|(name, path)| {
            let is_json = PROFILE_SUFFIXES
                .iter()
                .any(|suffix| ends_with(path.as_os_str(), suffix));
            *name != "HOTSET_PROFILE_SAVE" && is_json && is_in(path, folder)
        });
        match not_profiles.next() {
            Some((name, path)) => {
                let why = "HOTSET_PROFILE takes each .json file of this folder for a profile; \
                    name a file in another one";
                Err(Error::setting(name, path.display(), why))
            }
            None => Ok(()),
        }
    }

    /// Whether `path` may be a file of `HOTSET_PROFILE_SAVE`, of whichever model.
    pub fn may_save_to(&self, path: &Path) -> bool {
        let Some(saved) = &self.profile_save else {
            return false;
        };
        let (name, saved_name) = (path.file_name(), saved.file_name());
        let is_variant = name
            .zip(saved_name)
            .is_some_and(|(name, of)| is_variant(name, of));
        is_variant && is_in(saved, folder_of(path)) || self.saves_to(path)
    }

    /// Whether `path` leads to the file that `HOTSET_PROFILE_SAVE` names.
    pub fn saves_to(&self, path: &Path) -> bool {
        let saved = self.profile_save.as_deref().and_then(output::identity);
        saved.is_some() && saved == output::identity(path)
    }

    /// The files that a run writes, with the variables that name them.
    pub fn files(&self) -> impl Iterator<Item = (&'static str, &Path)> {
        let json = match &self.stats {
            StatsTo::Json(path) => Some(path),
            _ => None,
        };
        let named = [
            ("HOTSET_STATS", json),
            ("HOTSET_PROFILE_SAVE", self.profile_save.as_ref()),
            ("HOTSET_TRACE", self.trace.as_ref()),
            ("HOTSET_TIMELINE", self.timeline.as_ref()),
        ];
        let named = named.into_iter();
        named.filter_map(|(name, path)| Some((name, path?.as_path())))
    }

    fn read_files(&self) -> Vec<(String, &Path)> {
        match &self.profile {
            Some(ProfileSource::Files(parts)) => parts
                .iter()
                .map(|(path, _)| ("HOTSET_PROFILE".to_string(), path.as_path()))
                .collect(),
            _ => Vec::new(),
        }
    }

    /// Gives a process of a router files of its own, whose names have that of its model in them: the same ones
    /// whenever the router starts it again.
    pub(super) fn name_files_of(&mut self, routed: Routed) {
        let json = match &mut self.stats {
            StatsTo::Json(path) => Some(path),
            _ => None,
        };
        let files = [
            self.profile_save.as_mut(),
            self.trace.as_mut(),
            self.timeline.as_mut(),
            json,
        ];
        for path in files.into_iter().flatten() {
            *path = inserted(path, &routed.name);
        }
        self.routed = Some(routed);
    }

    /// What tells whoever reads the router's log which files are those of this process, if there are any.
    pub fn named_files(&self) -> Option<String> {
        let routed = self.routed.as_ref()?;
        let files: Vec<String> = self
            .files()
            .map(|(name, path)| format!("{name}={}", path.display()))
            .collect();
        let model = &routed.name;
        (!files.is_empty()).then(|| format!("hotset: model {model} has {}", files.join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::PathBuf;

    /// The second start would end with what the first has left there.
    #[test]
    fn counters_are_not_kept_among_profiles() {
        let dir = tempfile::tempdir().unwrap();
        let [folder, other] = ["profiles", "other"].map(|name| dir.path().join(name));
        for folder in [&folder, &other] {
            fs::create_dir(folder).unwrap();
        }
        let link = other.join("link.json");
        std::os::unix::fs::symlink("../profiles/s.json", &link).unwrap();
        for name in ["HOTSET_STATS", "HOTSET_TIMELINE"] {
            let check = |path: &Path| {
                let vars = [("HOTSET_PROFILE", folder.as_path()), (name, path)];
                Config::from_vars(vars).unwrap().check_files()
            };
            for path in [&folder.join("s.json"), &link] {
                let error = check(path).unwrap_err().to_string();
                let said = format!("{name}={}: HOTSET_PROFILE ", path.display());
                assert!(error.starts_with(&said), "{error}");
            }
            check(&other.join("s.json")).unwrap();
            check(&dir.path().join("profiles.json")).unwrap();
        }
    }

    #[test]
    fn a_saved_profile_may_be_in_the_folder_of_those_that_are_used() {
        let dir = tempfile::tempdir().unwrap();
        let [folder, other] = ["profiles", "other"].map(|name| dir.path().join(name));
        for folder in [&folder, &other] {
            fs::create_dir(folder).unwrap();
        }
        let mut config = Config::default();
        let saved = folder.join("chat.json");
        assert!(!config.may_save_to(&saved));
        config.set("HOTSET_PROFILE", &folder).unwrap();
        config.set("HOTSET_PROFILE_SAVE", &saved).unwrap();
        config.check_files().unwrap();
        for (name, is_own) in [
            ("chat.json", true),
            ("chat.2.json", true),
            ("chat.some-model.2.json", true),
            ("chat.json.gz", false),
            ("chats.json", false),
            ("mail.json", false),
        ] {
            assert_eq!(config.may_save_to(&folder.join(name)), is_own, "{name}");
            assert!(!config.may_save_to(&other.join(name)), "{name}");
        }
        let link = folder.join("a.json");
        std::os::unix::fs::symlink("chat.json", &link).unwrap();
        fs::write(&saved, "").unwrap();
        assert!(config.saves_to(&link) && config.may_save_to(&link));
    }

    #[test]
    fn the_files_of_a_routed_process_have_the_name_of_its_model() {
        let routed = Routed {
            name: "chat".to_string(),
            ledger: PathBuf::new(),
        };
        let mut config = Config::default();
        config.set("HOTSET_PROFILE_SAVE", "p.json.gz").unwrap();
        config.set("HOTSET_TRACE", "/tmp/t.trace.gz").unwrap();
        config.set("HOTSET_STATS", "s.json").unwrap();
        config.name_files_of(routed);
        assert_eq!(config.profile_save.unwrap(), Path::new("p.chat.json.gz"));
        assert_eq!(config.trace.unwrap(), Path::new("/tmp/t.chat.trace.gz"));
        assert_eq!(config.stats, StatsTo::Json("s.chat.json".into()));
    }
}
