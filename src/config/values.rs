//! What settings can be.

use crate::error::{Error, Result};
use crate::profile;
use bytesize::ByteSize;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How much memory streamed experts may take.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Ram {
    /// This many bytes, shared by the models of the process in the order in which they are loaded.
    Bytes(u64),
    /// This share of the bytes of all streamed experts of a model, in (0, 100].
    Percent(f64),
    /// What the system can spare when the model computes its first experts, and less while it cannot.
    Auto,
}

impl Ram {
    const ALLOWED: &str = "expected a size above 0 such as 6GiB or 512MiB, a share of the expert bytes above 0% and up to 100%, or auto";

    /// Reads `6GiB`, `40%` or `auto`.
    pub fn parse(name: &str, value: &str) -> Result<Self> {
        let wrong = || setting(name, value, Self::ALLOWED);
        let text = value.trim();
        if text.eq_ignore_ascii_case("auto") {
            return Ok(Self::Auto);
        }
        if let Some(number) = text.strip_suffix('%') {
            let percent: f64 = number.trim().parse().map_err(|_| wrong())?;
            return (percent > 0.0 && percent <= 100.0)
                .then_some(Self::Percent(percent))
                .ok_or_else(wrong);
        }
        match text.parse::<ByteSize>() {
            Ok(size) if size.as_u64() > 0 => Ok(Self::Bytes(size.as_u64())),
            _ => Err(wrong()),
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

impl StatsTo {
    pub(super) fn parse(name: &str, value: &str) -> Result<Self> {
        match value {
            "exit" => return Ok(Self::Exit),
            "off" => return Ok(Self::Off),
            _ => {}
        }
        if let Ok(seconds) = value.parse::<u32>() {
            if seconds > 0 {
                return Ok(Self::Every(Duration::from_secs(seconds.into())));
            }
        } else if value.ends_with(".json") {
            return Ok(Self::Json(PathBuf::from(value)));
        }
        Err(setting(
            name,
            value,
            "expected exit, off, a number of seconds above 0, or a file ending in .json",
        ))
    }
}

/// Which profiles are used.
#[derive(Debug, Clone, PartialEq)]
pub enum Known {
    /// These, with what each of them weighs.
    Files(Vec<(PathBuf, f64)>),
    /// The one of this folder that the routing turns out to be like.
    Folder(PathBuf),
}

impl Known {
    pub(super) fn parse(name: &str, value: &str) -> Result<Self> {
        let path = Path::new(value);
        if path.is_dir() {
            return Ok(Self::Folder(path.to_path_buf()));
        }
        if value.ends_with('/') {
            return Err(setting(name, value, "there is no such folder"));
        }
        let part = |text: &str| {
            let (path, weight) = profile::part(text).map_err(|why| setting(name, text, &why))?;
            match path.is_file() {
                true => Ok((path, weight)),
                false => Err(setting(name, text, "there is no such file or folder")),
            }
        };
        let parts: Result<_> = value.split(',').map(part).collect();
        Ok(Self::Files(parts?))
    }
}

/// Longest time that `HOTSET_PREWARM` accepts, in seconds: a day.
const PREWARM_MAX: u64 = 86_400;

/// Reads what `HOTSET_PREWARM` says; 0 for off.
pub(super) fn prewarm(name: &str, value: &str) -> Result<Duration> {
    let seconds = match value {
        "off" => Some(0),
        _ => value.parse().ok().filter(|s| (1..=PREWARM_MAX).contains(s)),
    };
    let allowed = "expected off or whole seconds from 1 to 86400";
    let seconds = seconds.ok_or_else(|| setting(name, value, allowed))?;
    Ok(Duration::from_secs(seconds))
}

/// The error of a setting.
pub(super) fn setting(name: &str, value: &str, allowed: &str) -> Error {
    Error::Setting {
        name: name.to_string(),
        value: value.to_string(),
        allowed: allowed.to_string(),
    }
}
