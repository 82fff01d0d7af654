//! Runs tools, and tells the user how far they are.

use anyhow::{Context, Result, bail};
use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, IsTerminal, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// How many lines of a failed tool's output the error repeats.
const TAIL_LINES: usize = 40;

/// Tells the user a line now. Cargo holds a build script's output back until it fails, so the line
/// goes to where cargo itself writes, and only if that can't be found to our own stderr.
pub fn say(line: &str) {
    let text = format!("hotset: {line}\n");
    let sent = cargo_stderr().and_then(|mut out| {
        // On a terminal the line replaces cargo's progress bar, which is drawn again below it.
        let clear = if out.is_terminal() { "\r\x1b[K" } else { "" };
        out.write_all(format!("{clear}{text}").as_bytes())
    });
    if sent.is_err() {
        eprint!("{text}");
    }
}

fn cargo_stderr() -> io::Result<File> {
    let append = |path: &str| OpenOptions::new().append(true).open(path);
    let open = || {
        let cargo = format!("/proc/{}", parent_id());
        let file = append(&format!("{cargo}/fd/2"))?;
        // Cargo writes where it stopped last, over our line, unless it appends too.
        let is_shared = !file.metadata()?.is_file() || appends(&format!("{cargo}/fdinfo/2"));
        is_shared
            .then_some(file)
            .ok_or(io::ErrorKind::Unsupported.into())
    };
    open().or_else(|_: io::Error| append("/dev/tty"))
}

/// Whether `O_APPEND` is among the octal flags that this file of `/proc` lists.
fn appends(fdinfo: &str) -> bool {
    let text = std::fs::read_to_string(fdinfo).unwrap_or_default();
    let flags = text.lines().find_map(|line| line.strip_prefix("flags:"));
    let flags = flags.and_then(|flags| u32::from_str_radix(flags.trim(), 8).ok());
    flags.is_some_and(|flags| flags & 0o2000 != 0)
}

#[cfg(unix)]
fn parent_id() -> u32 {
    std::os::unix::process::parent_id()
}

#[cfg(not(unix))]
fn parent_id() -> u32 {
    0
}

/// Runs `command` to its end, which must be success; `what` names it in the error.
pub fn run(what: &str, command: &mut Command) -> Result<()> {
    run_watched(what, command, |_| ())
}

/// As [`run`], and calls `line` with each line of output.
pub fn run_watched(what: &str, command: &mut Command, mut line: impl FnMut(&str)) -> Result<()> {
    let (reader, writer) = io::pipe().context("making a pipe")?;
    let mut child = command
        .stdin(Stdio::null())
        .stdout(writer.try_clone().context("making a pipe")?)
        .stderr(writer)
        .spawn()
        .with_context(|| format!("{what}: starting {:?}", command.get_program()))?;
    // The command holds the writing end: without this the loop below would never see the end.
    command.stdout(Stdio::null()).stderr(Stdio::null());

    let mut tail = VecDeque::new();
    for bytes in BufReader::new(reader).split(b'\n') {
        let text = String::from_utf8_lossy(&bytes.context("reading a tool's output")?).into_owned();
        line(&text);
        if tail.len() == TAIL_LINES {
            tail.pop_front();
        }
        tail.push_back(text);
    }
    let status = child.wait().context("waiting for a tool")?;
    if !status.success() {
        let tail: Vec<_> = tail.into();
        bail!(
            "{what} failed ({status}). Its last lines:\n\n{}",
            tail.join("\n")
        );
    }
    Ok(())
}

/// Runs `command` until `end` at the latest, and adds its output to the file `log`. The error is one line.
#[cfg_attr(not(feature = "llama"), allow(dead_code))]
pub fn run_limited(what: &str, command: &mut Command, log: &Path, end: Instant) -> Result<()> {
    let context = || format!("writing to {}", log.display());
    let mut out = File::options()
        .create(true)
        .append(true)
        .open(log)
        .with_context(context)?;
    writeln!(out, "\n== {what}").with_context(context)?;
    let n_before = out.metadata().with_context(context)?.len() as usize;
    lead_a_group(command)
        .stdin(Stdio::null())
        .stdout(out.try_clone().with_context(context)?)
        .stderr(out);
    let mut child = command
        .spawn()
        .with_context(|| format!("{what}: starting {:?}", command.get_program()))?;
    let mut leash = Leash::on(&child);
    let status = loop {
        let status = child.try_wait().context("waiting for a tool")?;
        if status.is_some() || Instant::now() >= end {
            break status;
        }
        thread::sleep(Duration::from_millis(50));
    };
    let Some(status) = status else {
        leash.pull();
        // Where there is no `sh`, what it started goes on.
        let _ = child.kill();
        child.wait().context("waiting for a tool")?;
        bail!("{what} was ended because it took too long");
    };
    leash.let_go();
    if !status.success() {
        let bytes = std::fs::read(log).unwrap_or_default();
        let text = String::from_utf8_lossy(bytes.get(n_before..).unwrap_or_default());
        bail!("{what} failed ({status}): {}", telling_line(&text));
    }
    Ok(())
}

/// The first sentence about an error, else the first words about one, else the last line.
#[cfg_attr(not(feature = "llama"), allow(dead_code))]
fn telling_line(text: &str) -> String {
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let is_error = |line: &&str| {
        let line = line.to_lowercase();
        ["error", "err!", "failed"].iter().any(|w| line.contains(w))
    };
    let errors: Vec<_> = lines.clone().filter(is_error).collect();
    let is_sentence = |line: &&&str| line.split_whitespace().count() > 5;
    let line = errors.iter().find(is_sentence).or(errors.first()).copied();
    let line = line.or(lines.next_back()).unwrap_or("it said nothing");
    line.chars().filter(|c| !c.is_control()).take(200).collect()
}

/// Ends a tool with all that it started: when told to, and when this process ends. An interrupt from a terminal comes to
/// cargo and to us, but not to a group of its own.
struct Leash(Option<Child>);

impl Leash {
    fn on(tool: &Child) -> Self {
        let mut sh = Command::new("sh");
        lead_a_group(&mut sh)
            .args(["-c", "read -r line; kill -s KILL -- \"-$0\""])
            .arg(tool.id().to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        Self(sh.spawn().ok())
    }

    /// Ends what is on it. Its shell waits for the other end of this pipe, which ends with us too.
    fn pull(&mut self) {
        if let Some(sh) = &mut self.0 {
            drop(sh.stdin.take());
            let _ = sh.wait();
        }
    }

    /// Lets go of it.
    fn let_go(&mut self) {
        if let Some(sh) = &mut self.0 {
            let _ = sh.kill();
            let _ = sh.wait();
        }
    }
}

#[cfg(unix)]
fn lead_a_group(command: &mut Command) -> &mut Command {
    std::os::unix::process::CommandExt::process_group(command, 0)
}

#[cfg(not(unix))]
fn lead_a_group(command: &mut Command) -> &mut Command {
    command
}
