//! The experts of a model, as its GGUF files list them.

use super::part::expert_part;
use super::reader::{Listing, list};
use crate::error::{Error, Result};
use crate::expert::Shape;
use crate::trace::Header;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// The routed experts of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Experts {
    /// `general.architecture`; empty if the file does not say.
    pub architecture: String,
    /// `general.name`; empty if the file does not say.
    pub name: String,
    /// Experts that a token picks in a layer; 0 if the file does not say.
    pub top_k: u32,
    /// Layers with experts, in the order of their blocks.
    pub shape: Shape,
    /// Bytes of everything else.
    pub other_bytes: u64,
}

/// Reads the lists of a model's files: of all of them, when `path` is the first of several.
pub fn read(path: &Path) -> Result<Experts> {
    let mut first = list(path)?;
    let mut tensors = std::mem::take(&mut first.tensors);
    for other in others(path, &first)? {
        tensors.extend(list(&other)?.tensors);
    }
    let mut layers: BTreeMap<u32, (u64, u64)> = BTreeMap::new();
    let mut other_bytes = 0;
    for tensor in &tensors {
        let Some((block, _)) = expert_part(&tensor.name) else {
            other_bytes += tensor.n_bytes;
            continue;
        };
        let n_last = tensor.n_last();
        let (n_experts, n_bytes) = layers.entry(block).or_insert((n_last, 0));
        if *n_experts != n_last || n_last == 0 {
            let why = format!(
                "'{}' is of {n_last} experts, others of {n_experts}",
                tensor.name
            );
            return Err(Error::file(path, why));
        }
        *n_bytes += tensor.n_bytes;
    }
    if layers.is_empty() {
        return Err(Error::file(path, "it has no routed experts".to_string()));
    }
    let n_total: u64 = layers
        .values()
        .fold(0, |sum, layer| layer.0.saturating_add(sum));
    if n_total > Header::N_TOTAL_MAX.into() {
        let why = format!("{n_total} experts are more than {}", Header::N_TOTAL_MAX);
        return Err(Error::file(path, why));
    }
    let n_experts: Vec<u32> = layers.values().map(|layer| layer.0 as u32).collect();
    let expert_bytes: Vec<u64> = layers.values().map(|(n, bytes)| bytes / n).collect();
    if expert_bytes.contains(&0) {
        return Err(Error::file(path, "it has experts of no bytes".to_string()));
    }
    let values = &first.values;
    let text = |key| values.text(key).unwrap_or_default().into_owned();
    let architecture = text("general.architecture");
    let top_k = values.number(&format!("{architecture}.expert_used_count"));
    Ok(Experts {
        name: text("general.name"),
        top_k: top_k.map_or(0, |n| n.try_into().unwrap_or(u32::MAX)),
        architecture,
        shape: Shape::with_bytes(&n_experts, &expert_bytes),
        other_bytes,
    })
}

/// The files of a model, of which `path` is the first.
pub fn files(path: &Path) -> Result<Vec<PathBuf>> {
    let mut files = vec![path.to_path_buf()];
    files.extend(others(path, &list(path)?)?);
    Ok(files)
}

/// Most files of a model: the format has 16 bits for their number.
const N_FILES_MAX: u64 = u16::MAX as u64;

/// The files after `path`, the first, which says `first`; its name `NAME-00001-of-00003.gguf` says how they are called.
pub fn others(path: &Path, first: &Listing) -> Result<Vec<PathBuf>> {
    let n_files = first.values.number("split.count").unwrap_or(1);
    if n_files <= 1 {
        return Ok(Vec::new());
    }
    if n_files > N_FILES_MAX {
        let why = format!("split.count {n_files} is above {N_FILES_MAX}");
        return Err(Error::file(path, why));
    }
    let end = format!("-00001-of-{n_files:05}.gguf");
    let name = path.file_name().map(OsStr::as_bytes);
    let base = name.and_then(|name| name.strip_suffix(end.as_bytes()));
    let Some(base) = base else {
        let why = format!("it is one of {n_files} files: name the first, which ends in {end}");
        return Err(Error::file(path, why));
    };
    let other = |i| {
        let mut name = OsStr::from_bytes(base).to_os_string();
        name.push(format!("-{i:05}-of-{n_files:05}.gguf"));
        path.with_file_name(name)
    };
    Ok((2..=n_files).map(other).collect())
}
