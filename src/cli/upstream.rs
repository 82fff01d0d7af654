//! Where hotset's options end and those of llama.cpp's programs begin, and options that llama.cpp had.
//!
//! What clap is given has all of hotset's options first, then `--`, then the program's arguments.

use clap::{Command, error::Error, error::ErrorKind};
use std::ffi::OsString;

/// Commands that run a program, by their first names.
const COMMANDS: [&str; 6] = [
    "run",
    "cli",
    "server",
    "completion",
    "perplexity",
    "llama-bench",
];

/// Options that llama.cpp has, too: after the program's first argument they are the program's.
const SHARED: [&str; 1] = ["repack"];

/// Options of llama.cpp that are spelt nearly like one of hotset's.
const NO_SLIPS: [&str; 2] = ["tools", "rerank"];

/// Popular options that this llama.cpp has no more, and what to write instead.
const GONE: [(&str, &str); 8] = [
    ("--no-mmap", "--load-mode none"),
    ("--mmap", "--load-mode mmap"),
    ("-mmp", "--load-mode mmap, or --load-mode none"),
    (
        "--mlock",
        "--load-mode mmap+mlock, or --load-mode mlock without mmap",
    ),
    ("--direct-io", "--load-mode dio"),
    ("-dio", "--load-mode dio"),
    ("--no-direct-io", "nothing: it is off"),
    ("-ndio", "nothing: it is off"),
];

/// Refuses arguments that no program has any more, with what to write today.
fn check(args: &[OsString]) -> Result<(), Error> {
    let gone = |arg: &OsString| GONE.iter().find(|(name, _)| arg == *name);
    let refused = |(name, today)| {
        let why = format!("'{name}': this llama.cpp has the option no more; write {today}");
        Error::raw(ErrorKind::InvalidValue, why)
    };
    args.iter()
        .find_map(gone)
        .copied()
        .map_or(Ok(()), |found| Err(refused(found)))
}

/// The arguments of a command line, sorted if it runs a program: hotset's options, `--`, what is the program's.
/// Fails if one of these is an option of hotset that is misspelt, or one that llama.cpp had once.
pub fn sorted(mut args: Vec<OsString>, cli: &Command) -> Result<Vec<OsString>, Error> {
    let named = args.get(1).and_then(|name| cli.find_subcommand(name));
    let Some(command) = named.filter(|found| COMMANDS.contains(&found.get_name())) else {
        return Ok(args);
    };
    let rest = args.split_off(2);
    let mut line = Line::default();
    let mut rest = rest.into_iter();
    while let Some(arg) = rest.next() {
        if arg == "--" {
            line.has_end = true;
            break;
        }
        line.take(arg, &mut rest, command)?;
    }
    args.append(&mut line.ours);
    if line.has_end || !line.theirs.is_empty() {
        args.push("--".into());
    }
    line.theirs.extend(rest);
    check(&line.theirs)?;
    args.append(&mut line.theirs);
    Ok(args)
}

/// What was sorted so far.
#[derive(Default)]
struct Line {
    ours: Vec<OsString>,
    theirs: Vec<OsString>,
    /// Whether a `--` has ended it.
    has_end: bool,
}

impl Line {
    fn take(
        &mut self,
        arg: OsString,
        rest: &mut impl Iterator<Item = OsString>,
        command: &Command,
    ) -> Result<(), Error> {
        let is_first = self.theirs.is_empty();
        let text = arg.to_str().unwrap_or_default();
        let options = || {
            command
                .get_arguments()
                .filter_map(|option| Some((option, option.get_long()?)))
        };
        let known = |name: &str| options().find(|(_, long)| *long == name);
        let (name, value) = text
            .split_once('=')
            .map_or((text, None), |(n, v)| (n, Some(v)));
        let name = name.strip_prefix("--").unwrap_or_default();
        let is_help = is_first && (text == "-h" || name == "help");
        let ours = known(name).filter(|_| is_first || !SHARED.contains(&name));
        if let Some((option, _)) = ours {
            let takes_next = option.get_action().takes_values() && value.is_none();
            self.ours.push(arg);
            self.ours.extend(takes_next.then(|| rest.next()).flatten());
        } else if let Some((_, meant)) = options().find(|(_, long)| is_slip(text, name, long)) {
            return Err(misspelt(text, meant));
        } else {
            let side = if is_help {
                &mut self.ours
            } else {
                &mut self.theirs
            };
            side.push(arg);
        }
        Ok(())
    }
}

/// Whether an argument, which has a `name` after two dashes, is probably meant to be the option `long`.
fn is_slip(text: &str, name: &str, long: &str) -> bool {
    if name.is_empty() {
        // One dash, as llama.cpp's short options have it.
        return text.strip_prefix('-') == Some(long);
    }
    let n_slips_max = if long.len() < 6 { 1 } else { 2 };
    let is_theirs = name == long || NO_SLIPS.contains(&name);
    !is_theirs && strsim::osa_distance(name, long) <= n_slips_max
}

fn misspelt(text: &str, meant: &str) -> Error {
    Error::raw(
        ErrorKind::UnknownArgument,
        format!(
            "unexpected argument '{text}' found\n\n  tip: a similar argument exists: '--{meant}'; \
             what is the program's after all goes behind `--`"
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Cli;
    use clap::CommandFactory;

    fn sort(line: &str) -> Result<String, String> {
        let args = line.split(' ').map(OsString::from).collect();
        let sorted = sorted(args, &Cli::command()).map_err(|error| error.to_string())?;
        let words: Vec<_> = sorted.iter().map(|arg| arg.to_string_lossy()).collect();
        Ok(words.join(" "))
    }

    #[test]
    fn options_of_hotset_come_first_wherever_they_stand() {
        for (line, right) in [
            (
                "h run -m a --ram 6GiB -c 9",
                "h run --ram 6GiB -- -m a -c 9",
            ),
            (
                "h run --ram=1GiB -m a --off",
                "h run --ram=1GiB --off -- -m a",
            ),
            ("h server -m a --ram", "h server --ram -- -m a"),
            (
                "h llama-server --stats 5 -m a",
                "h llama-server --stats 5 -- -m a",
            ),
            // What both know is the program's after its first argument.
            ("h run --repack on -m a", "h run --repack on -- -m a"),
            (
                "h run -m a --repack --tools x",
                "h run -- -m a --repack --tools x",
            ),
            // All is the program's after `--`.
            (
                "h run -m a -- --ram 1 -- -p --rma",
                "h run -- -m a --ram 1 -- -p --rma",
            ),
            ("h run --ram 40% --", "h run --ram 40% --"),
            ("h run -- --help", "h run -- --help"),
            ("h run --ram 40% --help", "h run --ram 40% --help"),
            ("h run -m a --help", "h run -- -m a --help"),
            ("h cli", "h cli"),
            // Other commands are left alone.
            ("h bench -m a --ram 6GiB", "h bench -m a --ram 6GiB"),
            ("h fly --ram", "h fly --ram"),
        ] {
            assert_eq!(sort(line).unwrap(), right, "{line}");
        }
    }

    #[test]
    fn what_is_misspelt_is_not_passed_on() {
        for (line, meant) in [
            ("h run --rma 1GiB", "--ram"),
            ("h run -m a --rma 1GiB", "--ram"),
            ("h run -m a --polciy=lru", "--policy"),
            ("h server -m a --profile_save x", "--profile-save"),
            ("h run -m a -ram 1GiB", "--ram"),
        ] {
            let error = sort(line).unwrap_err();
            assert!(error.contains(meant), "{line}: {error}");
        }
    }
}
