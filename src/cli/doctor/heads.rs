//! The heads of a model's files, also of files that are not all there.

use hotset::error::{Error, Result};
use hotset::gguf::{self, Listing, types};
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

/// A file of a model: its head, and how much of it is there.
pub struct ModelFile {
    /// For people.
    pub name: String,
    /// None of a file that is elsewhere.
    pub path: Option<PathBuf>,
    pub listing: Listing,
    /// Bytes that are there.
    pub n_bytes: u64,
}

/// The files of the model at `path`, and the names of those that are missing.
///
/// Fails if the first is no GGUF file or not the first.
pub fn open(path: &Path) -> Result<(Vec<ModelFile>, Vec<String>)> {
    let first = open_one(path)?;
    let others = gguf::others(path, &first.listing)?;
    let mut files = vec![first];
    let mut missing = Vec::new();
    for path in others {
        match path.exists() {
            true => files.push(open_one(&path)?),
            false => missing.push(name_of(&path)),
        }
    }
    Ok((files, missing))
}

fn open_one(path: &Path) -> Result<ModelFile> {
    let file = File::open(path).map_err(|e| Error::file(path, e))?;
    let meta = file.metadata().map_err(|e| Error::file(path, e))?;
    if !meta.is_file() {
        return Err(Error::file(path, "not a regular file"));
    }
    let listing = head(BufReader::new(file))
        .map_err(|e| Error::file(path, format!("not a valid GGUF file: {e}")))?;
    Ok(ModelFile {
        name: name_of(path),
        path: Some(path.to_path_buf()),
        listing,
        n_bytes: meta.len(),
    })
}

fn name_of(path: &Path) -> String {
    let name = path.file_name().unwrap_or(path.as_os_str());
    name.to_string_lossy().into_owned()
}

/// What a file lists, however much of it is there. The last tensor is as long as its type says.
pub fn head(file: impl std::io::Read) -> std::io::Result<Listing> {
    // More than any file has, so that none seems to be cut off.
    let mut listing = gguf::list_from(file, u64::MAX)?;
    let last = listing
        .tensors
        .iter_mut()
        .max_by_key(|tensor| tensor.offset);
    if let Some(last) = last {
        last.n_bytes = types::size(last.ty, last.shape).unwrap_or(0);
    }
    Ok(listing)
}

/// Where the bytes of its tensors end.
pub fn end(listing: &Listing) -> u64 {
    let ends = listing
        .tensors
        .iter()
        .map(|t| t.offset.saturating_add(t.n_bytes));
    ends.max().unwrap_or(0)
}
