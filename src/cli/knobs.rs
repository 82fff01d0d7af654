//! The settings as options: one for each of [`KNOBS`], under the same name.

use clap::{Arg, ArgAction, ArgMatches, Command, error::Error, value_parser};
use hotset::config::{Config, KNOBS, Knob};
use hotset::error::Result;
use std::ffi::OsString;
use std::fmt::Write;

/// What the command line sets, as variables and values.
#[derive(Debug)]
pub struct Knobs(Vec<(&'static str, OsString)>);

impl Knobs {
    /// The settings of the environment, changed by the command line.
    pub fn config(&self) -> Result<Config> {
        let mut config = Config::from_env()?;
        for (name, value) in &self.0 {
            config.set(name, value)?;
        }
        Ok(config)
    }

    /// What the command line sets, for the environment of programs that this one starts.
    #[cfg(feature = "llama")]
    pub fn given(&self) -> &[(&'static str, OsString)] {
        &self.0
    }
}

/// The option of a variable: `ram` for `HOTSET_RAM`. The one without a suffix is a switch.
fn option(knob: &Knob) -> Option<String> {
    let suffix = knob.name.strip_prefix("HOTSET_")?;
    Some(suffix.to_lowercase().replace('_', "-"))
}

fn arg(knob: &'static Knob) -> Arg {
    let arg = Arg::new(knob.name).help(format!("{} [env: {}]", knob.about, knob.name));
    match option(knob) {
        Some(name) => arg
            .long(name)
            .value_name("VALUE")
            .value_parser(value_parser!(OsString))
            .long_help(format!(
                "{} [env: {}]\n{}; default: {}",
                knob.about, knob.name, knob.values, knob.default
            )),
        None => arg
            .long("off")
            .action(ArgAction::SetTrue)
            .help(format!("exactly stock llama.cpp [env: {}=off]", knob.name)),
    }
}

impl clap::Args for Knobs {
    fn augment_args(command: Command) -> Command {
        command.args(KNOBS.iter().map(arg))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl clap::FromArgMatches for Knobs {
    fn from_arg_matches(matches: &ArgMatches) -> std::result::Result<Self, Error> {
        let value = |knob: &Knob| match option(knob) {
            Some(_) => matches.get_one::<OsString>(knob.name).cloned(),
            None => matches.get_flag(knob.name).then(|| "off".into()),
        };
        let set = KNOBS.iter().filter_map(|k| Some((k.name, value(k)?)));
        Ok(Self(set.collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> std::result::Result<(), Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// The variables, for the end of `hotset --help`.
pub fn help() -> String {
    let mut text =
        "Environment, read by every program; each is also an option of `hotset run`:\n".to_string();
    for Knob {
        name,
        values,
        default,
        about,
    } in KNOBS
    {
        let _ = write!(
            text,
            "  {name:<15} {about}\n{:18}{values}; default: {default}\n",
            ""
        );
    }
    text
}
