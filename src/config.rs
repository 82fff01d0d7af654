//! The settings, and the one place where the environment is read.

use crate::error::{Error, Result};
use crate::policy;
use crate::store::{Faults, QueueKind};
use bytesize::ByteSize;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A setting: its variable, what it accepts, its default.
pub struct Knob {
    /// The environment variable.
    pub name: &'static str,
    /// What it accepts.
    pub values: &'static str,
    /// What holds when it is unset.
    pub default: &'static str,
    /// What it does.
    pub about: &'static str,
}

/// Every variable, in the order `--help` lists them.
pub const KNOBS: &[Knob] = &[
    Knob {
        name: "HOTSET",
        values: "on, off",
        default: "on",
        about: "off = exactly stock llama.cpp",
    },
    Knob {
        name: "HOTSET_RAM",
        values: "a size as 6GiB, a share of the expert bytes as 40%, auto",
        default: "unset: experts are loaded as usual",
        about: "memory for experts that are read from disk when needed",
    },
    Knob {
        name: "HOTSET_POLICY",
        values: "a name that `hotset policies` lists",
        default: DEFAULT_POLICY,
        about: "which experts stay in memory",
    },
    Knob {
        name: "HOTSET_IO",
        values: "auto, uring, pread",
        default: "auto",
        about: "how experts are read",
    },
    Knob {
        name: "HOTSET_STATS",
        values: "exit, off, seconds between reports, or a file ending in .json",
        default: "exit",
        about: "where the counters go",
    },
    Knob {
        name: "HOTSET_TRACE",
        values: "a file ending in .trace.gz",
        default: "unset: nothing is recorded",
        about: "record which experts each token was routed to",
    },
    Knob {
        name: "HOTSET_FAULT",
        values: "read=N, short=N, delay_ms=N, separated by commas",
        default: "unset",
        about: "errors to inject, for tests",
    },
];

/// The policy used when none is named.
pub const DEFAULT_POLICY: &str = "adaptive";

/// How much memory streamed experts may take.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Ram {
    /// This many bytes, shared by the models of the process in the order in which they are loaded.
    Bytes(u64),
    /// This share of the bytes of all streamed experts of a model, in (0, 100].
    Percent(f64),
    /// What the system can spare when the model computes its first experts.
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
    fn parse(name: &str, value: &str) -> Result<Self> {
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
            return Ok(Self::Json(in_a_folder(name, value)?));
        }
        Err(setting(
            name,
            value,
            "expected exit, off, a number of seconds above 0, or a file ending in .json",
        ))
    }
}

/// All settings.
#[derive(Debug, Clone)]
pub struct Config {
    /// False: hotset installs nothing.
    pub enabled: bool,
    /// Memory for streamed experts; None: experts are not streamed.
    pub ram: Option<Ram>,
    /// A name that [`policy::find`] accepts.
    pub policy: String,
    /// How to read.
    pub io: QueueKind,
    /// Where the counters go.
    pub stats: StatsTo,
    /// Where the routing is recorded, see [`trace_path`]; None: nowhere.
    pub trace: Option<PathBuf>,
    /// Errors to inject.
    pub faults: Faults,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            enabled: true,
            ram: None,
            policy: DEFAULT_POLICY.to_string(),
            io: QueueKind::Auto,
            stats: StatsTo::Exit,
            trace: None,
            faults: Faults::default(),
        }
    }
}

impl Config {
    /// Reads the variables of [`KNOBS`] among `vars`.
    ///
    /// An empty value counts as unset. An unknown variable that begins with `HOTSET` is an error,
    /// because a misspelt setting that is ignored costs more than it saves.
    pub fn from_vars(vars: impl IntoIterator<Item = (String, String)>) -> Result<Self> {
        let mut config = Self::default();
        for (name, value) in vars {
            if !name.starts_with("HOTSET") || name == BUILD_VARIABLE || value.is_empty() {
                continue;
            }
            config.set(&name, &value)?;
        }
        Ok(config)
    }

    /// Reads the environment of this process.
    pub fn from_env() -> Result<Self> {
        Self::from_vars(std::env::vars_os().filter_map(|(name, value)| {
            Some((
                name.into_string().ok()?,
                value.to_string_lossy().into_owned(),
            ))
        }))
    }

    /// Sets one variable.
    pub fn set(&mut self, name: &str, value: &str) -> Result<()> {
        match name {
            "HOTSET" => {
                self.enabled = match value {
                    "on" => true,
                    "off" => false,
                    _ => return Err(setting(name, value, "expected on or off")),
                }
            }
            "HOTSET_RAM" => self.ram = Some(Ram::parse(name, value)?),
            "HOTSET_POLICY" => {
                policy::find(value)?;
                self.policy = value.to_string();
            }
            "HOTSET_IO" => {
                self.io = match value {
                    "auto" => QueueKind::Auto,
                    "uring" => QueueKind::Uring,
                    "pread" => QueueKind::Pread,
                    _ => return Err(setting(name, value, "expected auto, uring or pread")),
                }
            }
            "HOTSET_STATS" => self.stats = StatsTo::parse(name, value)?,
            "HOTSET_TRACE" => {
                if !value.ends_with(TRACE_SUFFIX) {
                    return Err(setting(name, value, "expected a file ending in .trace.gz"));
                }
                self.trace = Some(in_a_folder(name, value)?);
            }
            "HOTSET_FAULT" => self.faults = Faults::parse(value)?,
            _ => {
                let known: Vec<_> = KNOBS.iter().map(|k| k.name).collect();
                let allowed = format!("no such setting; there are {}", known.join(", "));
                return Err(setting(name, value, &allowed));
            }
        }
        Ok(())
    }
}

const TRACE_SUFFIX: &str = ".trace.gz";

/// The file of the `n`-th recording of a process, counted from 1, when the first goes to `path`:
/// `run.2.trace.gz` for the second of `run.trace.gz`.
pub fn trace_path(path: &Path, n: u32) -> PathBuf {
    match path.to_string_lossy().strip_suffix(TRACE_SUFFIX) {
        Some(stem) if n > 1 => format!("{stem}.{n}{TRACE_SUFFIX}").into(),
        _ => path.to_path_buf(),
    }
}

/// A file to be written. Fails if its folder does not exist.
fn in_a_folder(name: &str, value: &str) -> Result<PathBuf> {
    let path = PathBuf::from(value);
    match folder_of(&path).is_dir() {
        true => Ok(path),
        false => Err(setting(name, value, "its folder does not exist")),
    }
}

/// The folder that holds `path`, the current one for a bare name.
pub fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    }
}

/// Read by the build, ignored here.
const BUILD_VARIABLE: &str = "HOTSET_LLAMA_CPP_DIR";

fn setting(name: &str, value: &str, allowed: &str) -> Error {
    Error::Setting {
        name: name.to_string(),
        value: value.to_string(),
        allowed: allowed.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(name: &str, value: &str) -> Result<Config> {
        Config::from_vars([(name.to_string(), value.to_string())])
    }

    #[test]
    fn ram_accepts_sizes_shares_and_auto() {
        let ram = |v| parse("HOTSET_RAM", v).unwrap().ram.unwrap();
        assert_eq!(ram("6GiB"), Ram::Bytes(6 << 30));
        assert_eq!(ram("512 MiB"), Ram::Bytes(512 << 20));
        assert_eq!(ram("1GB"), Ram::Bytes(1_000_000_000));
        assert_eq!(ram("12345"), Ram::Bytes(12345));
        assert_eq!(ram("40%"), Ram::Percent(40.0));
        assert_eq!(ram("auto"), Ram::Auto);
    }

    #[test]
    fn bad_values_name_the_variable_and_what_is_valid() {
        for (name, value, valid) in [
            ("HOTSET", "yes", "on or off"),
            ("HOTSET_RAM", "6 parrots", "6GiB"),
            ("HOTSET_RAM", "0", "above 0"),
            ("HOTSET_RAM", "-1GiB", "above 0"),
            ("HOTSET_RAM", "0%", "above 0%"),
            ("HOTSET_RAM", "101%", "100%"),
            ("HOTSET_RAM", "NaN%", "100%"),
            ("HOTSET_POLICY", "mru", "lru"),
            ("HOTSET_IO", "dma", "uring"),
            ("HOTSET_STATS", "0", "above 0"),
            ("HOTSET_STATS", "no/such/folder/x.json", "does not exist"),
            ("HOTSET_TRACE", "on", ".trace.gz"),
            (
                "HOTSET_TRACE",
                "no/such/folder/x.trace.gz",
                "does not exist",
            ),
            ("HOTSET_FAULT", "fire", "read="),
            ("HOTSET_RAMM", "6GiB", "HOTSET_RAM,"),
        ] {
            let error = parse(name, value).unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
            assert!(error.contains(value), "{error}");
            assert!(error.contains(valid), "{error}");
        }
    }

    #[test]
    fn recordings_of_one_process_have_names_of_their_own() {
        let path = |n| trace_path(Path::new("a/run.trace.gz"), n);
        assert_eq!(path(1), Path::new("a/run.trace.gz"));
        assert_eq!(path(2), Path::new("a/run.2.trace.gz"));
    }

    #[test]
    fn every_knob_can_be_set_and_other_variables_are_left_alone() {
        for knob in KNOBS {
            let error = parse(knob.name, "\u{1}").unwrap_err().to_string();
            assert!(!error.contains("no such setting"), "{error}");
        }
        assert!(parse("PATH", "anything").is_ok());
        assert!(parse("HOTSET_RAM", "").unwrap().ram.is_none());
    }
}
