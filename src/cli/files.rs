//! Files that the commands read and write.

use hotset::error::Error;
use hotset::output;
use hotset::report;
use hotset::trace::Trace;
use std::io;
use std::path::Path;

/// Refuses what could not be written in the end, before any work.
pub fn check_output(path: &Path) -> Result<(), Error> {
    output::check(path).map_err(|why| Error::Setting {
        name: "--output".to_string(),
        value: path.display().to_string(),
        allowed: why,
    })
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
