//! Profiles in files. A reader trusts nothing in them; a writer replaces a file whole or leaves it as it was.

use super::format::{Heat, Profile, VERSION};
use crate::error::{Error, Result};
use crate::output;
use crate::output::names::split;
use crate::trace::Header;
use crate::tracker::Phase;
use flate2::Compression;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;
use serde::Deserialize;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Longest file, uncompressed: ten times a profile of 100 layers of 512 experts.
const FILE_BYTES_MAX: u64 = 64 << 20;
/// Longest name of a profile.
pub(crate) const NAME_BYTES_MAX: usize = 200;
/// Largest count and weight: whole numbers up to it are exact in JSON. Sums of as many as a profile has are finite.
const NUMBER_MAX: u64 = 1 << 53;

/// Why there is no profile to be had of a file.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unread {
    /// The system does not give what is in it: it may another time.
    #[error("{0}")]
    System(#[from] io::Error),
    /// It holds something else.
    #[error("{0}")]
    Content(String),
}

type Checked<T> = std::result::Result<T, String>;

impl Profile {
    /// Reads a profile, compressed if the name ends in `.gz`.
    ///
    /// Errors: [`Error::Unreadable`], or [`Error::File`] with the field that is wrong. What is accepted keeps all that
    /// the format promises.
    pub fn read(path: &Path) -> Result<Self> {
        Self::try_read(path).map_err(|unread| match unread {
            Unread::System(cause) => Error::Unreadable {
                path: path.to_path_buf(),
                cause,
            },
            Unread::Content(why) => Error::file(path, why),
        })
    }

    /// The same, and tells what the system does not do from what is in the file.
    pub(super) fn try_read(path: &Path) -> std::result::Result<Self, Unread> {
        let text = read_text(path)?;
        parse(&text).map_err(Unread::Content)
    }

    /// Writes the profile, compressed if the name ends in `.gz`, weights with four digits.
    ///
    /// The file is replaced at once, see `output`, even if the program is killed or the power fails: a reader finds
    /// the old one or the new one.
    ///
    /// Errors, after which the old file is as it was: [`Error::File`] for a profile that could not be read again,
    /// [`Error::Io`].
    pub fn write(&self, path: &Path) -> Result<()> {
        self.check().map_err(|why| Error::file(path, why))?;
        let encode = || match is_compressed(path) {
            true => compressed(&self.text()),
            false => Ok(self.text()),
        };
        encode()
            .and_then(|bytes| output::write(path, &bytes).map(drop))
            .map_err(|cause| Error::io(path, cause))
    }

    fn text(&self) -> Vec<u8> {
        let mut rounded = self.clone();
        for layer in &mut rounded.layers {
            for phase in Phase::ALL {
                for weight in &mut layer.heat_mut(phase).weight {
                    let digits = format!("{weight:.3e}");
                    *weight = digits.parse().expect("a number that was just printed");
                }
            }
        }
        let mut text = serde_json::to_vec(&rounded).expect("a profile is valid JSON");
        text.push(b'\n');
        text
    }

    /// Whether it keeps what the fields promise; the field that does not, if not.
    fn check(&self) -> Checked<()> {
        if self.version != VERSION {
            return Err(wrong_version(self.version.into()));
        }
        let n_bytes = self.name.len();
        if !(1..=NAME_BYTES_MAX).contains(&n_bytes) {
            return Err(format!(
                "name: {n_bytes} bytes are not in 1..={NAME_BYTES_MAX}"
            ));
        }
        if self.name.contains(char::is_control) {
            return Err(format!("name: {:?} has a control character", self.name));
        }
        for (field, date) in [("created", &self.created), ("updated", &self.updated)] {
            let parsed = humantime::parse_rfc3339(date);
            // The one spelling, so that dates can be compared as texts.
            let spelling = parsed.map(|time| humantime::format_rfc3339_seconds(time).to_string());
            if spelling.as_ref() != Ok(date) {
                return Err(format!(
                    "{field}: {date:?} is not like 2026-11-22T20:15:00Z"
                ));
            }
        }
        for phase in Phase::ALL {
            let field = format!("tokens.{}", name_of(phase));
            check_number(&field, self.tokens.of(phase))?;
        }
        self.check_model()?;
        for (number, layer) in self.layers.iter().enumerate() {
            let n_experts = layer.prompt.weight.len();
            if n_experts == 0 || n_experts > self.model.n_experts as usize {
                return Err(format!(
                    "layers[{number}].prompt.weight: {n_experts} experts are not in 1..={}, model.n_experts",
                    self.model.n_experts
                ));
            }
            for phase in Phase::ALL {
                let field = format!("layers[{number}].{}", name_of(phase));
                layer.heat(phase).check(&field, n_experts)?;
            }
        }
        Ok(())
    }

    fn check_model(&self) -> Checked<()> {
        let model = &self.model;
        if self.layers.is_empty() || self.layers.len() != model.n_layers as usize {
            return Err(format!(
                "model.n_layers: {} is not the number of layers, {}, or is 0",
                model.n_layers,
                self.layers.len()
            ));
        }
        if model.top_k == 0 || model.top_k > model.n_experts {
            return Err(format!(
                "model.top_k: {} is not in 1..={}, model.n_experts",
                model.top_k, model.n_experts
            ));
        }
        let n_total: usize = self.layers.iter().map(|l| l.prompt.weight.len()).sum();
        if n_total > Header::N_TOTAL_MAX as usize {
            return Err(format!(
                "layers: {n_total} experts are more than {}",
                Header::N_TOTAL_MAX
            ));
        }
        Ok(())
    }
}

impl Heat {
    fn check(&self, field: &str, n_experts: usize) -> Checked<()> {
        for (list, n) in [("weight", self.weight.len()), ("count", self.count.len())] {
            if n != n_experts {
                return Err(format!(
                    "{field}.{list}: {n} numbers, but layer's prompt.weight has {n_experts}"
                ));
            }
        }
        let allowed = 0.0..=NUMBER_MAX as f64;
        if let Some(i) = self.weight.iter().position(|w| !allowed.contains(w)) {
            let weight = self.weight[i];
            return Err(format!(
                "{field}.weight[{i}]: {weight} is not in 0..={NUMBER_MAX}"
            ));
        }
        match self.count.iter().position(|&n| n > NUMBER_MAX) {
            Some(i) => check_number(&format!("{field}.count[{i}]"), self.count[i]),
            None => Ok(()),
        }
    }
}

fn check_number(field: &str, n: u64) -> Checked<()> {
    match n <= NUMBER_MAX {
        true => Ok(()),
        false => Err(format!("{field}: {n} is above {NUMBER_MAX}")),
    }
}

fn name_of(phase: Phase) -> &'static str {
    match phase {
        Phase::Prefill => "prompt",
        Phase::Decode => "generation",
    }
}

fn wrong_version(version: u64) -> String {
    format!("version: {version} is not {VERSION}, the only one that is read")
}

fn is_compressed(path: &Path) -> bool {
    path.extension() == Some(OsStr::new("gz"))
}

/// What the file holds, uncompressed.
fn read_text(path: &Path) -> std::result::Result<Vec<u8>, Unread> {
    if !fs::metadata(path)?.is_file() {
        return Err(Unread::Content("not a regular file".to_string()));
    }
    let file = File::open(path)?;
    let text = match is_compressed(path) {
        true => read_bounded(MultiGzDecoder::new(io::BufReader::new(file))).map_err(unpacked)?,
        false => read_bounded(file)?,
    };
    text.ok_or_else(|| Unread::Content(format!("it holds more than {FILE_BYTES_MAX} bytes")))
}

/// The error of a decoder: one that has no number is its own.
fn unpacked(cause: io::Error) -> Unread {
    match cause.raw_os_error() {
        Some(_) => Unread::System(cause),
        None => {
            let why = format!("the gzip data is damaged or ends early: {cause}");
            Unread::Content(why)
        }
    }
}

/// `None` if there is more than a profile may have.
fn read_bounded(from: impl Read) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    from.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    Ok(Some(bytes).filter(|bytes| bytes.len() as u64 <= FILE_BYTES_MAX))
}

fn parse(text: &[u8]) -> Checked<Profile> {
    /// All that is sure to be in any version.
    #[derive(Deserialize)]
    struct Any {
        version: u64,
    }
    // Serde would also take an array of the fields.
    if text.trim_ascii_start().first() != Some(&b'{') {
        return Err("it is not a JSON object".to_string());
    }
    if let Ok(Any { version }) = serde_json::from_slice(text)
        && version != u64::from(VERSION)
    {
        return Err(wrong_version(version));
    }
    let mut json = serde_json::Deserializer::from_slice(text);
    let profile: Profile = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let field = error.path().to_string();
        match &*field {
            "." => error.inner().to_string(),
            _ => format!("{field}: {}", error.inner()),
        }
    })?;
    json.end()
        .map_err(|cause| format!("after the profile: {cause}"))?;
    profile.check()?;
    Ok(profile)
}

fn compressed(text: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(text)?;
    encoder.finish()
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

#[cfg(test)]
mod tests {
    use super::*;

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
}
