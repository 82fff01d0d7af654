//! The one place where the environment is read.

use super::asked::Asked;
use super::choices::Choices;
use super::knobs::KNOBS;
use super::router::{Routed, ledgers};
use super::settings::Config;
use crate::error::{Error, Result};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

/// Read by the build, ignored here.
const BUILD_VARIABLES: [&str; 4] = [
    "HOTSET_LLAMA_CPP_ANY",
    "HOTSET_LLAMA_CPP_DIR",
    "HOTSET_LLAMA_CPP_TAG",
    "HOTSET_PORTABLE",
];

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
            let is_the_builds = BUILD_VARIABLES.iter().any(|&of_build| name == of_build);
            let is_ours = name.as_bytes().starts_with(b"HOTSET") && !is_the_builds;
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
        let args: Vec<_> = std::env::args_os().collect();
        config.asked = Asked::of(&args, |name| std::env::var_os(name));
        config.ledgers = ledgers();
        config.choices = Choices::of(&args, |name| std::env::var_os(name).is_some());
        if let Some(routed) = Routed::of_process() {
            config.name_files_of(routed);
        }
        Ok(config)
    }

    /// Sets one variable.
    pub fn set(&mut self, name: &str, value: impl AsRef<OsStr>) -> Result<()> {
        let value = value.as_ref();
        match KNOBS.iter().find(|knob| knob.name == name) {
            Some(knob) => (knob.set)(self, knob, value),
            None => {
                let known: Vec<_> = KNOBS.iter().map(|knob| knob.name).collect();
                let allowed = format!("no such setting; there are {}", known.join(", "));
                Err(Error::setting(name, value.display(), allowed))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{ProfileSource, Ram};

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
        assert_eq!(ram("If-Needed"), Ram::IfNeeded);
    }

    #[test]
    fn auto_and_off_are_words_and_files_of_these_names_have_a_folder() {
        let profile = |value| parse("HOTSET_PROFILE", value).unwrap().profile;
        let Some(ProfileSource::Auto(folder)) = profile("auto") else {
            panic!("auto is no file");
        };
        assert!(folder.is_none_or(|folder| folder.ends_with("hotset/profiles")));
        assert_eq!(profile("off"), Some(ProfileSource::Off));
        assert_eq!(profile(""), None);
        for value in ["./auto", "./off", "auto:2", "auto,off"] {
            let error = parse("HOTSET_PROFILE", value).unwrap_err().to_string();
            assert!(error.contains("no such file"), "{error}");
        }
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
            ("HOTSET_REPACK", "yes", "auto, on or off"),
            ("HOTSET_PACK", "on", "auto or off"),
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
        for name in BUILD_VARIABLES.into_iter().chain(["PATH"]) {
            assert!(parse(name, "anything").is_ok(), "{name}");
        }
        assert!(parse("HOTSET_RAM", "").unwrap().ram.is_none());
    }
}
