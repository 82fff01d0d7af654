//! Emptying the page cache, so that a run that is measured begins with nothing in it.

use crate::error::{Error, Result};
use serde::Serialize;
use std::path::PathBuf;

/// What was dropped from the page cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Dropped {
    /// Everything that is clean, of all files.
    All,
    /// What is cached of the files that were named.
    Files,
    /// Nothing: the system has no way to do it.
    Nothing,
}

/// Writes out what is dirty and drops the page cache: all of it where that is allowed, else that of
/// `files`. Fails if one of them cannot be opened.
pub fn drop_cached(files: &[PathBuf]) -> Result<Dropped> {
    rustix::fs::sync();
    match std::fs::write("/proc/sys/vm/drop_caches", "3") {
        Ok(()) => Ok(Dropped::All),
        Err(_) => drop_files(files),
    }
}

#[cfg(target_os = "linux")]
fn drop_files(files: &[PathBuf]) -> Result<Dropped> {
    use rustix::fs::{Advice, fadvise};
    for path in files {
        let failed = |cause| Error::io(path.clone(), cause);
        let file = std::fs::File::open(path).map_err(failed)?;
        // All of it.
        fadvise(&file, 0, None, Advice::DontNeed).map_err(|cause| failed(cause.into()))?;
    }
    Ok(Dropped::Files)
}

#[cfg(not(target_os = "linux"))]
fn drop_files(files: &[PathBuf]) -> Result<Dropped> {
    for path in files {
        std::fs::File::open(path).map_err(|cause| Error::io(path.clone(), cause))?;
    }
    Ok(Dropped::Nothing)
}
