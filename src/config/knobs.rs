//! The settings, each written once: from this list come the variables, the options of `hotset run`, their help and
//! the table in docs/settings.md, which a test compares with it.

use super::settings::{Config, Repack};
use super::values::{ProfileSource, Ram, StatsTo};
use crate::error::{Error, Result};
use crate::numbers::whole;
use crate::output::names::{PROFILE_SUFFIXES, TRACE_SUFFIX, ends_with};
use crate::policy;
use crate::store::{Faults, QueueKind};
use std::ffi::OsStr;
use std::path::PathBuf;
use std::time::Duration;

/// A setting: its variable, what it accepts, its default.
pub struct Knob {
    /// The environment variable.
    pub name: &'static str,
    /// What it accepts and does, in Markdown.
    pub values: &'static str,
    /// What holds when it is unset, in Markdown.
    pub default: &'static str,
    /// Sets it.
    pub(super) set: fn(&mut Config, &Knob, &OsStr) -> Result<()>,
}

/// Every variable, in the order `--help` lists them.
pub const KNOBS: &[Knob] = &[
    Knob {
        name: "HOTSET",
        values: "`on`, or `off`: exactly stock llama.cpp",
        default: "`on`",
        set: |config, knob, value| {
            config.enabled = knob.one_of(value, [("on", true), ("off", false)])?;
            Ok(())
        },
    },
    Knob {
        name: "HOTSET_RAM",
        values: "memory for experts: `6GiB`, `40%` of the expert bytes, `auto`; `if-needed`: `auto` for a model that does not fit in memory, none for one that does",
        default: "unset: experts are loaded as usual; with `hotset run`: `if-needed`",
        set: |config, knob, value| {
            let text = knob.text(value)?;
            config.ram = Some(Ram::parse(knob.name, text)?);
            config.ram_text = text.to_string();
            Ok(())
        },
    },
    Knob {
        name: "HOTSET_POLICY",
        values: "a name that `hotset policies` lists, as `lru` or `decay:16`",
        default: "`adaptive`",
        set: |config, knob, value| {
            let text = knob.text(value)?;
            policy::find(text)?;
            config.policy = text.to_string();
            Ok(())
        },
    },
    Knob {
        name: "HOTSET_PREFETCH",
        values: "`auto`: read experts before the router asks for them, while that pays; `off`",
        default: "`auto`",
        set: |config, knob, value| {
            config.prefetch = knob.one_of(value, [("auto", true), ("off", false)])?;
            Ok(())
        },
    },
    Knob {
        name: "HOTSET_REPACK",
        values: "experts are repacked for the processor as stock llama.cpp does it: `auto`, while that pays; `on`; `off`",
        default: "`auto`",
        set: |config, knob, value| {
            let words = [
                ("auto", Repack::Auto),
                ("on", Repack::On),
                ("off", Repack::Off),
            ];
            config.repack = knob.one_of(value, words)?;
            Ok(())
        },
    },
    Knob {
        name: "HOTSET_PACK",
        values: "`auto`: experts are read from `MODEL.packed` (`hotset pack`), if that belongs to the model and to this processor; `off`",
        default: "`auto`",
        set: |config, knob, value| {
            config.packs = knob.one_of(value, [("auto", true), ("off", false)])?;
            Ok(())
        },
    },
    Knob {
        name: "HOTSET_DEVICE_CACHE",
        values: "`auto`: a device keeps as many experts as it has room for, unless `--moe-cache-mib` says how many, and they are used while that pays; `on`: as many as that says, always",
        default: "unset: as many as that says, while that pays; `hotset run` chooses where nobody has",
        set: |config, knob, value| {
            config.guards_device = knob.one_of(value, [("auto", true), ("on", false)])?;
            config.sizes_device = config.guards_device;
            Ok(())
        },
    },
    Knob {
        name: "HOTSET_IO",
        values: "how experts are read: `auto`, `uring`, `pread`",
        default: "`auto`",
        set: |config, knob, value| {
            let kinds = [
                ("auto", QueueKind::Auto),
                ("uring", QueueKind::Uring),
                ("pread", QueueKind::Pread),
            ];
            config.io = knob.one_of(value, kinds)?;
            Ok(())
        },
    },
    Knob {
        name: "HOTSET_STATS",
        values: "`exit`, `off`, seconds between lines of counters, or a file ending in `.json`",
        default: "`exit`",
        set: |config, knob, value| {
            config.stats = StatsTo::parse(knob.name, value)?;
            Ok(())
        },
    },
    Knob {
        name: "HOTSET_HTTP",
        values: "llama-server answers below `/hotset`, and for experts in `/metrics`: `on`, `off`",
        default: "`on`",
        set: |config, knob, value| {
            config.answers = knob.one_of(value, [("on", true), ("off", false)])?;
            Ok(())
        },
    },
    Knob {
        name: "HOTSET_PROFILE",
        values: "start warm: `auto`, from a file for each model that is kept by itself; `FILE[:WEIGHT],...`; a folder of profiles to choose from; `off`",
        default: "`off`; with `hotset run`: `auto`, of what streams",
        set: |config, knob, value| {
            config.profile = Some(ProfileSource::parse(knob.name, value)?);
            Ok(())
        },
    },
    Knob {
        name: "HOTSET_PROFILE_SAVE",
        values: "a file ending in `.json` or `.json.gz`: learn a profile of this run into it",
        default: "unset: nothing is kept",
        set: |config, knob, value| {
            let path = knob.file(value, &PROFILE_SUFFIXES)?;
            config.profile_save = Some(path);
            Ok(())
        },
    },
    Knob {
        name: "HOTSET_PREWARM",
        values: "seconds that reading a profile's experts may take before the first token, or `off`",
        default: "`30`",
        set: |config, knob, value| {
            config.prewarm = match knob.text(value)? {
                "off" => Duration::ZERO,
                text => whole(text)
                    .filter(|s| (1..=PREWARM_MAX).contains(s))
                    .map(Duration::from_secs)
                    .ok_or_else(|| {
                        let allowed =
                            format!("expected off or whole seconds from 1 to {PREWARM_MAX}");
                        Error::setting(knob.name, text, allowed)
                    })?,
            };
            Ok(())
        },
    },
    Knob {
        name: "HOTSET_TRACE",
        values: "a file ending in `.trace.gz`: record which experts each token was routed to",
        default: "unset: nothing is recorded",
        set: |config, knob, value| {
            let path = knob.file(value, &[TRACE_SUFFIX])?;
            config.trace = Some(path);
            Ok(())
        },
    },
    Knob {
        name: "HOTSET_TIMELINE",
        values: "a file ending in `.json` or `.json.gz`: draw who computed, read and waited when, for Perfetto",
        default: "unset: nothing is drawn",
        set: |config, knob, value| {
            let path = knob.file(value, &PROFILE_SUFFIXES)?;
            config.timeline = Some(path);
            Ok(())
        },
    },
    Knob {
        name: "HOTSET_FAULT",
        values: "errors to inject, for tests: `read=17`, or several with commas between them",
        default: "unset",
        set: |config, knob, value| {
            config.faults = Faults::parse(knob.text(value)?)?;
            Ok(())
        },
    },
];

/// Longest time that `HOTSET_PREWARM` accepts, in seconds: a day.
const PREWARM_MAX: u64 = 86_400;

impl Knob {
    /// Its option of `hotset run`: `--ram` for `HOTSET_RAM`; the one without a suffix is the switch `--off`.
    pub fn option(&self) -> String {
        let suffix = self.name.strip_prefix("HOTSET_").unwrap_or("off");
        format!("--{}", suffix.to_lowercase().replace('_', "-"))
    }

    fn text<'a>(&self, value: &'a OsStr) -> Result<&'a str> {
        value.to_str().ok_or_else(|| {
            let allowed = format!("it is not UTF-8; expected {}", self.values.replace('`', ""));
            Error::setting(self.name, value.display(), allowed)
        })
    }

    /// The meaning of a value that is one of a few words.
    fn one_of<T, const N: usize>(&self, value: &OsStr, words: [(&str, T); N]) -> Result<T> {
        let text = self.text(value)?;
        let names = words.each_ref().map(|(word, _)| *word);
        let found = words.into_iter().find(|(word, _)| *word == text);
        found.map(|(_, meaning)| meaning).ok_or_else(|| {
            let (last, others) = names.split_last().expect("there is a choice");
            let allowed = format!("expected {} or {last}", others.join(", "));
            Error::setting(self.name, text, allowed)
        })
    }

    /// A file whose name has one of these ends.
    fn file(&self, value: &OsStr, suffixes: &[&str]) -> Result<PathBuf> {
        if suffixes.iter().any(|suffix| ends_with(value, suffix)) {
            return Ok(PathBuf::from(value));
        }
        let allowed = format!("expected a file ending in {}", suffixes.join(" or "));
        Err(Error::setting(self.name, value.display(), allowed))
    }
}
