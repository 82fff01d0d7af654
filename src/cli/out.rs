//! What commands print. Whoever reads it may have seen enough and gone, as `head` does.

use anyhow::Context;
use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;

/// Prints `text` and sees it written: an error at the end of the process would be lost.
pub fn print(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    written.map_err(Unwritten).context("standard output")
}

/// Why standard output took no more.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
struct Unwritten(io::Error);

/// Whether a command failed because nobody reads what it prints.
pub fn is_unread(error: &anyhow::Error) -> bool {
    let cause = error.downcast_ref::<Unwritten>();
    cause.is_some_and(|Unwritten(cause)| cause.kind() == ErrorKind::BrokenPipe)
}

/// Ends like a program that writes into a pipe which nobody reads: without a word.
pub fn end_unread() -> ExitCode {
    // It returns only if it cannot be done.
    let _ = signal_hook::low_level::emulate_default_handler(signal_hook::consts::SIGPIPE);
    ExitCode::FAILURE
}
