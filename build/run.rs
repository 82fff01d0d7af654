//! Runs tools, and tells the user how far they are.

use anyhow::{Context, Result, bail};
use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, IsTerminal, Write};
use std::process::{Command, Stdio};

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
