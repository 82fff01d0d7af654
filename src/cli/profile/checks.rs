//! What is refused before any work.

use crate::cli::files;
use anyhow::bail;
use hotset::error::{Error, Result};
use hotset::profile::{Profile, is_named_so};
use std::path::{Path, PathBuf};

/// Refuses a profile that is not of the model of `first`.
pub fn check_same(first: &Profile, path: &Path, profile: &Profile) -> Result<()> {
    let why = match profile.model.difference(&first.model) {
        Some(why) => format!("it is of another model: {why}"),
        None if profile.n_experts() == first.n_experts() => return Ok(()),
        None => "its layers have other numbers of experts".to_string(),
    };
    Err(Error::file(path, why))
}

/// Refuses, before any work, the name of a profile that could not be written, is there already, or is one of `read`.
pub fn check_new<'a>(
    path: &Path,
    force: bool,
    read: impl IntoIterator<Item = &'a PathBuf>,
) -> Result<()> {
    files::check_outputs(&[("--output", path)], read)?;
    let allowed = if !is_named_so(path) {
        "a profile's name ends in .json or .json.gz"
    } else if path.exists() && !force {
        "it is there already; --force replaces it"
    } else {
        return Ok(());
    };
    Err(Error::setting(
        "--output",
        path.display().to_string(),
        allowed,
    ))
}

/// Refuses the name of a workload that no file can have.
pub fn check_name(name: &str) -> anyhow::Result<()> {
    if name.is_empty() {
        bail!(Error::setting(
            "--name",
            String::new(),
            "a workload has a name"
        ));
    }
    Ok(())
}
