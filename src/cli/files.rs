//! Files that the commands read and write.

use hotset::error::Error;
use hotset::output;
use hotset::report;
use hotset::trace::Trace;
use std::io;
use std::path::{Path, PathBuf};

/// Refuses, before any work, files that could not be written in the end, two that are one, and those that the command
/// reads. Each file to write comes with the option that names it.
pub fn check_outputs<'a>(
    written: &[(&str, &Path)],
    read: impl IntoIterator<Item = &'a PathBuf>,
) -> Result<(), Error> {
    let words = |path: &'a PathBuf| (format!("the input {}", path.display()), path.as_path());
    let read: Vec<_> = read.into_iter().map(words).collect();
    output::check_all(written, &read)
}

/// Writes the whole file or nothing.
pub fn save(path: &Path, text: &str) -> io::Result<()> {
    output::write(path, text.as_bytes()).map(drop)
}

/// Reads the tokens below `limit` of a trace; if it is damaged, those before the damage, where that is wanted.
pub fn open_trace(path: &Path, limit: u32, salvages: bool) -> Result<Trace, Error> {
    if !salvages {
        return Trace::open(path, limit);
    }
    let (trace, damage) = Trace::salvage(path, limit)?;
    if let Some(damage) = damage {
        report::say(&format!("hotset: warning: {damage}"));
    }
    Ok(trace)
}
