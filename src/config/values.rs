//! What settings can be.

use crate::error::{Error, Result};
use crate::numbers::{decimal, size, too_small, whole};
use crate::profile::path_and_weight;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The word for [`Ram::IfNeeded`].
pub const IF_NEEDED: &str = "if-needed";

/// How much memory streamed experts may take.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Ram {
    /// This many bytes, shared by the models of the process in the order in which they are loaded.
    Bytes(u64),
    /// This share of the bytes of all streamed experts of a model, in (0, 100].
    Percent(f64),
    /// What the system can spare when the model computes its first experts, and less while it cannot.
    Auto,
    /// The same of a model that does not fit in memory. One that does is loaded as usual.
    IfNeeded,
}

impl Ram {
    const ALLOWED: &str = "expected a size above 0 such as 6GiB or 512MiB, a share of the expert bytes above 0% and up to 100%, auto, or if-needed";

    /// Reads `6GiB`, `40%`, `auto` or `if-needed`.
    pub fn parse(name: &str, value: &str) -> Result<Self> {
        let wrong = || Error::setting(name, value, Self::ALLOWED);
        let text = value.trim();
        if text.eq_ignore_ascii_case("auto") {
            return Ok(Self::Auto);
        }
        if text.eq_ignore_ascii_case(IF_NEEDED) {
            return Ok(Self::IfNeeded);
        }
        if let Some(number) = text.strip_suffix('%') {
            let percent = decimal(number.trim()).filter(|p| *p > 0.0 && *p <= 100.0);
            return percent.map(Self::Percent).ok_or_else(wrong);
        }
        match too_small(text) {
            Some(why) => Err(Error::setting(name, value, &why)),
            None => size(text).map(Self::Bytes).ok_or_else(wrong),
        }
    }
}

/// When and where the counters are reported.
#[derive(Debug, Clone, PartialEq)]
pub enum StatsTo {
    /// A table on standard error when the model is freed.
    Exit,
    /// Nothing.
    Off,
    /// A line for each model on standard error this often, and the table at the end.
    Every(Duration),
    /// A JSON file with an array of all models freed so far, written whenever one is.
    Json(PathBuf),
}

/// Longest time between two reports, in seconds: a day.
const STATS_SECONDS_MAX: u64 = 86_400;

impl StatsTo {
    pub(super) fn parse(name: &str, value: &OsStr) -> Result<Self> {
        if value.as_bytes().ends_with(b".json") {
            return Ok(Self::Json(PathBuf::from(value)));
        }
        let seconds = |text: &str| whole(text).filter(|s| (1..=STATS_SECONDS_MAX).contains(s));
        match value.to_str() {
            Some("exit") => Ok(Self::Exit),
            Some("off") => Ok(Self::Off),
            text => match text.and_then(seconds) {
                Some(seconds) => Ok(Self::Every(Duration::from_secs(seconds))),
                None => Err(Error::setting(
                    name,
                    value.display(),
                    "expected exit, off, whole seconds from 1 to 86400, or a file ending in .json",
                )),
            },
        }
    }
}

/// Where this user's profiles are that are kept by themselves.
fn own_folder() -> Option<PathBuf> {
    // A home that is a relative path would be another one in each folder.
    let data = dirs::data_dir().filter(|folder| folder.is_absolute());
    data.map(|folder| folder.join("hotset/profiles"))
}

/// Which profiles are used.
#[derive(Debug, Clone, PartialEq)]
pub enum ProfileSource {
    /// These, with what each of them weighs.
    Files(Vec<(PathBuf, f64)>),
    /// The one of this folder that the routing turns out to be like.
    Folder(PathBuf),
    /// One for each model, kept in this folder by itself; `None` if this user has no folder for data.
    Auto(Option<PathBuf>),
    /// None, and somebody has said so.
    Off,
}

impl ProfileSource {
    /// Reads `FILE[:WEIGHT],...`, the name of a folder, `auto` or `off`.
    pub fn parse(name: &str, value: &OsStr) -> Result<Self> {
        match value.as_bytes() {
            b"auto" => return Ok(Self::Auto(own_folder())),
            b"off" => return Ok(Self::Off),
            _ => {}
        }
        let path = Path::new(value);
        if path.is_dir() {
            return Ok(Self::Folder(path.to_path_buf()));
        }
        if value.as_bytes().ends_with(b"/") {
            return Err(Error::setting(
                name,
                value.display(),
                "there is no such folder",
            ));
        }
        let pieces: Vec<&[u8]> = value.as_bytes().split(|b| *b == b',').collect();
        let mut parts = Vec::new();
        let mut at = 0;
        while at < pieces.len() {
            let part = Self::part(name, &pieces[at..]);
            let (part, n_pieces) = part.map_err(|error| match pieces[at].is_empty() {
                true => Error::setting(
                    name,
                    value.display(),
                    "the name of a file is missing beside a comma",
                ),
                false => error,
            })?;
            parts.push(part);
            at += n_pieces;
        }
        Ok(Self::Files(parts))
    }

    /// The first file of a list that was split at its commas, and of how many pieces its name is: most
    /// names have no comma, but one that there is wins.
    fn part(name: &str, pieces: &[&[u8]]) -> Result<((PathBuf, f64), usize)> {
        for n_pieces in (2..=pieces.len()).rev() {
            let text = OsString::from_vec(pieces[..n_pieces].join(&b','));
            if let Ok(part) = path_and_weight(&text)
                && part.0.is_file()
            {
                return Ok((part, n_pieces));
            }
        }
        let text = OsStr::from_bytes(pieces[0]);
        let part =
            path_and_weight(text).map_err(|why| Error::setting(name, text.display(), why))?;
        match part.0.is_file() {
            true => Ok((part, 1)),
            false => Err(Error::setting(
                name,
                text.display(),
                "there is no such file or folder",
            )),
        }
    }
}
