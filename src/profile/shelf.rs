//! Profiles side by side: those of a folder.

use super::Profile;
use crate::error::{Error, Result};
use std::path::{Path, PathBuf};

/// Whether a file is named like a profile.
pub fn is_named_so(path: &Path) -> bool {
    let name = path.to_string_lossy();
    name.ends_with(".json") || name.ends_with(".json.gz")
}

/// The profiles of a folder, `*.json` and `*.json.gz`, in the order of their names. One that is damaged is an error.
pub fn read_folder(folder: &Path) -> Result<Vec<(PathBuf, Profile)>> {
    let failed = |e: std::io::Error| Error::File {
        path: folder.to_path_buf(),
        why: e.to_string(),
    };
    let mut paths = Vec::new();
    for entry in folder.read_dir().map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        if is_named_so(&path) && path.is_file() {
            paths.push(path);
        }
    }
    paths.sort();
    let read = |path: PathBuf| Profile::read(&path).map(|profile| (path, profile));
    paths.into_iter().map(read).collect()
}
