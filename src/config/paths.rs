//! Names of the files that runs leave behind. They are bytes: nobody promises that they are UTF-8.

use super::values::setting;
use super::{Config, Known, StatsTo};
use crate::error::Result;
use crate::output::{self, Place};
use crate::profile::NAME_BYTES_MAX;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

pub(super) const TRACE_SUFFIX: &str = ".trace.gz";
pub(super) const PROFILE_SUFFIXES: [&str; 2] = [".json", ".json.gz"];

/// The file of the `n`-th model of a process, counted from 1, when that of the first is `path`: `run.2.trace.gz` for
/// the second of `run.trace.gz`.
pub fn numbered(path: &Path, n: u32) -> PathBuf {
    match n {
        0 | 1 => path.to_path_buf(),
        _ => inserted(path, &n.to_string()),
    }
}

/// The file for the model called `model` when others have `path`: `chat.mixtral-8x7b.json` beside `chat.json`.
/// Of a name only letters, digits and a few signs are kept.
pub fn model_path(path: &Path, model: &str) -> PathBuf {
    /// Enough to tell models apart, and short enough for any file system.
    const CHARS_MAX: usize = 60;
    let name: String = plain(model).chars().take(CHARS_MAX).collect();
    inserted(path, if name.is_empty() { "model" } else { &name })
}

/// What a profile is called if only its file is: `chat` in `a/chat.json.gz`. It is a name that a profile can have.
pub fn profile_name(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default();
    let stem = match split(name) {
        Some((stem, _)) => OsStr::from_bytes(stem),
        None => name,
    };
    let mut name: String = stem
        .to_string_lossy()
        .chars()
        .filter(|c| !c.is_control())
        .collect();
    let is_short = |n: &usize| *n <= NAME_BYTES_MAX && name.is_char_boundary(*n);
    let n_bytes = (0..=name.len()).rev().find(is_short);
    name.truncate(n_bytes.unwrap_or(0));
    if name.is_empty() {
        name.push_str("unnamed");
    }
    name
}

/// `path` with `what` before the end that says what kind of file it is.
pub(super) fn inserted(path: &Path, what: &str) -> PathBuf {
    let path = path.as_os_str();
    let (stem, suffix) = split(path).unwrap_or((path.as_bytes(), b""));
    let parts = [stem, b".", what.as_bytes(), suffix];
    PathBuf::from(OsString::from_vec(parts.concat()))
}

/// A name with a dash for whatever not every file system takes.
pub(super) fn plain(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_+".contains(c);
    let chars = text.chars();
    chars.map(|c| if is_plain(c) { c } else { '-' }).collect()
}

/// Parts a name before the end that says what kind of file it is.
fn split(name: &OsStr) -> Option<(&[u8], &[u8])> {
    let name = name.as_bytes();
    let [json, json_gz] = PROFILE_SUFFIXES;
    let suffixes = [TRACE_SUFFIX, json_gz, json].into_iter();
    let mut suffixes = suffixes.filter(|suffix| name.ends_with(suffix.as_bytes()));
    let n_bytes = name.len() - suffixes.next()?.len();
    Some(name.split_at(n_bytes))
}

/// Whether a name ends so.
pub(super) fn ends_with(name: &OsStr, suffix: &str) -> bool {
    name.as_bytes().ends_with(suffix.as_bytes())
}

/// The folder that holds `path`, the current one for a bare name.
pub fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

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
        match (&self.stats, &self.profile) {
            // The next start would take it for a profile.
            (StatsTo::Json(path), Some(Known::Folder(folder))) if is_in(path, folder) => {
                let why = "HOTSET_PROFILE takes each .json file of this folder for a profile; \
                    name a file in another one";
                Err(setting("HOTSET_STATS", path, why))
            }
            _ => Ok(()),
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
    pub(super) fn files(&self) -> impl Iterator<Item = (&'static str, &Path)> {
        let json = match &self.stats {
            StatsTo::Json(path) => Some(path),
            _ => None,
        };
        let named = [
            ("HOTSET_STATS", json),
            ("HOTSET_PROFILE_SAVE", self.profile_save.as_ref()),
            ("HOTSET_TRACE", self.trace.as_ref()),
        ];
        let named = named.into_iter();
        named.filter_map(|(name, path)| Some((name, path?.as_path())))
    }

    fn read_files(&self) -> Vec<(String, &Path)> {
        match &self.profile {
            Some(Known::Files(parts)) => parts
                .iter()
                .map(|(path, _)| ("HOTSET_PROFILE".to_string(), path.as_path()))
                .collect(),
            _ => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Paths that are no UTF-8 among them.
    #[test]
    fn files_of_one_process_have_names_of_their_own() {
        for (path, second, of_model) in [
            (
                &b"a/run.trace.gz"[..],
                &b"a/run.2.trace.gz"[..],
                &b"a/run.Mi-x.trace.gz"[..],
            ),
            (b"chat.json", b"chat.2.json", b"chat.Mi-x.json"),
            (b"chat.json.gz", b"chat.2.json.gz", b"chat.Mi-x.json.gz"),
            (
                b"\xff\xfe/\xe9.json",
                b"\xff\xfe/\xe9.2.json",
                b"\xff\xfe/\xe9.Mi-x.json",
            ),
        ] {
            let path = Path::new(OsStr::from_bytes(path));
            let bytes = |path: PathBuf| path.into_os_string().into_vec();
            assert_eq!(numbered(path, 1), path);
            assert_eq!(bytes(numbered(path, 2)), second);
            assert_eq!(bytes(model_path(path, "Mi/x")), of_model);
        }
        assert_eq!(
            model_path(Path::new("a.json"), ""),
            Path::new("a.model.json")
        );
        let long = model_path(Path::new("a.json"), &"\u{e9}".repeat(999));
        assert_eq!(long.as_os_str().len(), 60 + "a..json".len());
    }

    #[test]
    fn profiles_are_called_what_profiles_can_be_called() {
        let long = "x".repeat(240) + ".json";
        for (path, name) in [
            (&b"a/chat.json.gz"[..], "chat"),
            (b"chat.json", "chat"),
            (b"a\n\x1bb.json", "ab"),
            (b".json", "unnamed"),
            (b"\xff.json", "\u{fffd}"),
            (long.as_bytes(), &long[..NAME_BYTES_MAX]),
        ] {
            assert_eq!(profile_name(Path::new(OsStr::from_bytes(path))), name);
        }
    }

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
        let check = |stats: &Path| {
            let vars = [
                ("HOTSET_PROFILE", folder.as_path()),
                ("HOTSET_STATS", stats),
            ];
            Config::from_vars(vars).unwrap().check_files()
        };
        for stats in [&folder.join("s.json"), &link] {
            let error = check(stats).unwrap_err().to_string();
            let said = format!("HOTSET_STATS={}: HOTSET_PROFILE ", stats.display());
            assert!(error.starts_with(&said), "{error}");
        }
        check(&other.join("s.json")).unwrap();
        check(&dir.path().join("profiles.json")).unwrap();
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
}
