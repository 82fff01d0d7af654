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

/// Markdown as a terminal has it.
fn plain(text: &str) -> String {
    text.replace('`', "")
}

fn arg(knob: &'static Knob) -> Arg {
    let help = format!("{} [env: {}]", plain(knob.values), knob.name);
    let arg = Arg::new(knob.name).long(knob.option()[2..].to_string());
    if is_switch(knob) {
        return arg
            .action(ArgAction::SetTrue)
            .help(format!("exactly stock llama.cpp [env: {}=off]", knob.name));
    }
    arg.value_name("VALUE")
        .value_parser(value_parser!(OsString))
        .long_help(format!("{help}\ndefault: {}", plain(knob.default)))
        .help(help)
}

/// Whether its option takes no value, and sets it to `off`.
fn is_switch(knob: &Knob) -> bool {
    knob.option() == "--off"
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
        let value = |knob: &Knob| match is_switch(knob) {
            false => matches.get_one::<OsString>(knob.name).cloned(),
            true => matches.get_flag(knob.name).then(|| "off".into()),
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
    for knob in KNOBS {
        let (values, default) = (plain(knob.values), plain(knob.default));
        let _ = writeln!(
            text,
            "  {:<20} {values}\n{:23}default: {default}",
            knob.name, ""
        );
    }
    text
}
