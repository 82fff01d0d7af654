//! The settings, and the one place where the environment is read.

mod numbers;
mod paths;
mod router;
mod values;

use crate::error::Result;
use crate::policy;
use crate::store::{Faults, QueueKind};
pub use numbers::{decimal, plain_size, size, too_small, whole};
use paths::{PROFILE_SUFFIXES, TRACE_SUFFIX, ends_with};
pub use paths::{folder_of, model_path, numbered, profile_name};
pub use router::Routed;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::Duration;
pub use values::{Known, Ram, StatsTo};
use values::{prewarm, setting};

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
        name: "HOTSET_PREFETCH",
        values: "auto, off",
        default: "auto",
        about: "read experts before the router asks for them, while that pays",
    },
    Knob {
        name: "HOTSET_DEVICE_CACHE",
        values: "auto, on",
        default: "auto",
        about: "use the experts on a device (--moe-cache-mib) while that is faster than without, or always",
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
        name: "HOTSET_PROFILE",
        values: "FILE[:WEIGHT],... or a folder of profiles to choose from",
        default: "unset: start cold",
        about: "the workload to start warm for, see `hotset profile`",
    },
    Knob {
        name: "HOTSET_PROFILE_SAVE",
        values: "a file ending in .json or .json.gz",
        default: "unset: nothing is kept",
        about: "learn a profile of this run, into what the file holds already",
    },
    Knob {
        name: "HOTSET_PREWARM",
        values: "seconds, or off",
        default: "30",
        about: "how long reading a profile's experts may take before the first token",
    },
    Knob {
        name: "HOTSET_TRACE",
        values: "a file ending in .trace.gz",
        default: "unset: nothing is recorded",
        about: "record which experts each token was routed to",
    },
    Knob {
        name: "HOTSET_FAULT",
        values: Faults::VALUES,
        default: "unset",
        about: "errors to inject, for tests",
    },
];

/// The policy used when none is named.
pub const DEFAULT_POLICY: &str = "adaptive";

/// All settings.
#[derive(Debug, Clone)]
pub struct Config {
    /// False: hotset installs nothing.
    pub enabled: bool,
    /// Memory for streamed experts; None: experts are not streamed.
    pub ram: Option<Ram>,
    /// That, as it was written; empty if nobody has.
    pub ram_text: String,
    /// A name that [`policy::find`] accepts.
    pub policy: String,
    /// Whether experts may be read before they are picked.
    pub prefetch: bool,
    /// Whether experts on a device are left aside where they cost more time than they save.
    pub guards_device: bool,
    /// How to read.
    pub io: QueueKind,
    /// Where the counters go.
    pub stats: StatsTo,
    /// What is known of the workload.
    pub profile: Option<Known>,
    /// Where a profile of the run goes.
    pub profile_save: Option<PathBuf>,
    /// How long reading a profile's experts may take before the first token; 0: none are read.
    pub prewarm: Duration,
    /// Where the routing is recorded, see [`numbered`]; None: nowhere.
    pub trace: Option<PathBuf>,
    /// Errors to inject.
    pub faults: Faults,
    /// Whose process this is, if a router has started it.
    pub routed: Option<Routed>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            enabled: true,
            ram: None,
            ram_text: String::new(),
            policy: DEFAULT_POLICY.to_string(),
            prefetch: true,
            guards_device: true,
            io: QueueKind::Auto,
            stats: StatsTo::Exit,
            profile: None,
            profile_save: None,
            prewarm: Duration::from_secs(30),
            trace: None,
            faults: Faults::default(),
            routed: None,
        }
    }
}

impl Config {
    /// Reads the variables of [`KNOBS`] among `vars`.
    ///
    /// An empty value counts as unset. An unknown variable that begins with `HOTSET` is an error,
    /// because a misspelt setting that is ignored costs more than it saves.
    pub fn from_vars<N, V>(vars: impl IntoIterator<Item = (N, V)>) -> Result<Self>
    where
        N: AsRef<OsStr>,
        V: AsRef<OsStr>,
    {
        let mut config = Self::default();
        for (name, value) in vars {
            let (name, value) = (name.as_ref(), value.as_ref());
            let is_ours = name.as_bytes().starts_with(b"HOTSET") && name != BUILD_VARIABLE;
            if is_ours && !value.is_empty() {
                // No setting is called like what is lost here.
                config.set(&name.to_string_lossy(), value)?;
            }
        }
        Ok(config)
    }

    /// Reads the environment of this process.
    pub fn from_env() -> Result<Self> {
        let mut config = Self::from_vars(std::env::vars_os())?;
        if let Some(routed) = Routed::of_process() {
            config.name_files_of(routed);
        }
        Ok(config)
    }

    /// Sets one variable.
    pub fn set(&mut self, name: &str, value: impl AsRef<OsStr>) -> Result<()> {
        let value = value.as_ref();
        match name {
            "HOTSET_STATS" => self.stats = StatsTo::parse(name, value)?,
            "HOTSET_PROFILE" => self.profile = Some(Known::parse(name, value)?),
            "HOTSET_PROFILE_SAVE" => {
                if !PROFILE_SUFFIXES.iter().any(|s| ends_with(value, s)) {
                    let allowed = "expected a file ending in .json or .json.gz";
                    return Err(setting(name, value, allowed));
                }
                self.profile_save = Some(PathBuf::from(value));
            }
            "HOTSET_TRACE" => {
                if !ends_with(value, TRACE_SUFFIX) {
                    return Err(setting(name, value, "expected a file ending in .trace.gz"));
                }
                self.trace = Some(PathBuf::from(value));
            }
            _ if !KNOBS.iter().any(|knob| knob.name == name) => {
                let known: Vec<_> = KNOBS.iter().map(|k| k.name).collect();
                let allowed = format!("no such setting; there are {}", known.join(", "));
                return Err(setting(name, value, &allowed));
            }
            _ => match value.to_str() {
                Some(text) => self.set_text(name, text)?,
                None => {
                    let knob = KNOBS.iter().find(|knob| knob.name == name);
                    let values = knob.map_or("", |knob| knob.values);
                    let allowed = format!("it is not UTF-8; expected {values}");
                    return Err(setting(name, value, &allowed));
                }
            },
        }
        Ok(())
    }

    /// Sets a variable of [`KNOBS`] that names no file.
    fn set_text(&mut self, name: &str, value: &str) -> Result<()> {
        match name {
            "HOTSET" => {
                self.enabled = match value {
                    "on" => true,
                    "off" => false,
                    _ => return Err(setting(name, value, "expected on or off")),
                }
            }
            "HOTSET_RAM" => {
                self.ram = Some(Ram::parse(name, value)?);
                self.ram_text = value.to_string();
            }
            "HOTSET_POLICY" => {
                policy::find(value)?;
                self.policy = value.to_string();
            }
            "HOTSET_PREFETCH" => {
                self.prefetch = match value {
                    "auto" => true,
                    "off" => false,
                    _ => return Err(setting(name, value, "expected auto or off")),
                }
            }
            "HOTSET_DEVICE_CACHE" => {
                self.guards_device = match value {
                    "auto" => true,
                    "on" => false,
                    _ => return Err(setting(name, value, "expected auto or on")),
                }
            }
            "HOTSET_IO" => {
                self.io = match value {
                    "auto" => QueueKind::Auto,
                    "uring" => QueueKind::Uring,
                    "pread" => QueueKind::Pread,
                    _ => return Err(setting(name, value, "expected auto, uring or pread")),
                }
            }
            "HOTSET_PREWARM" => self.prewarm = prewarm(name, value)?,
            "HOTSET_FAULT" => self.faults = Faults::parse(value)?,
            _ => unreachable!("the caller has looked"),
        }
        Ok(())
    }
}

/// Read by the build, ignored here.
const BUILD_VARIABLE: &str = "HOTSET_LLAMA_CPP_DIR";

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
        assert_eq!(ram("12345678"), Ram::Bytes(12_345_678));
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
            ("HOTSET_PREFETCH", "on", "auto"),
            ("HOTSET_DEVICE_CACHE", "off", "auto or on"),
            ("HOTSET_IO", "dma", "uring"),
            ("HOTSET_STATS", "0", "from 1 to 86400"),
            ("HOTSET_PROFILE", "no/such/file.json:2", "no such file"),
            ("HOTSET_PROFILE", "no/such/folder/", "no such folder"),
            ("HOTSET_PROFILE", "Cargo.toml:0", "Cargo.toml:0"),
            ("HOTSET_PROFILE", "Cargo.toml:2,", "is missing"),
            ("HOTSET_PROFILE", ",Cargo.toml", "is missing"),
            ("HOTSET_PROFILE_SAVE", "it.txt", ".json"),
            ("HOTSET_PREWARM", "0", "off"),
            ("HOTSET_PREWARM", "1.5s", "seconds"),
            ("HOTSET_TRACE", "on", ".trace.gz"),
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
    fn every_knob_can_be_set_and_other_variables_are_left_alone() {
        for knob in KNOBS {
            let error = parse(knob.name, "\u{1}").unwrap_err().to_string();
            assert!(!error.contains("no such setting"), "{error}");
        }
        assert!(parse("PATH", "anything").is_ok());
        assert!(parse("HOTSET_RAM", "").unwrap().ram.is_none());
    }
}
