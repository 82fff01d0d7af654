//! Whether the files of a model are all there: a download that was cut, or goes on, leaves less.

use super::heads::{ModelFile, end};
use hotset::numbers::bytes;
use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;
use serde::Serialize;
use std::fs::File;
use std::path::Path;

/// Holes below this are what a copy left out of zeros, or of padding.
const HOLE_BYTES_MIN: u64 = 64 << 10;

/// What is wrong with a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Damage {
    /// One of several is not there.
    Missing { name: String },
    /// It is shorter than its tensors.
    CutOff {
        name: String,
        n_bytes: u64,
        expected_bytes: u64,
    },
    /// Nothing was written to places where weights are.
    Holes {
        name: String,
        n_holes: usize,
        n_bytes: u64,
    },
}

impl Damage {
    /// For people.
    pub fn text(&self) -> String {
        match self {
            Self::Missing { name } => format!("{name} is missing"),
            Self::CutOff {
                name,
                n_bytes,
                expected_bytes,
            } => format!(
                "{name} is cut off: {} of {} are there",
                bytes(*n_bytes),
                bytes(*expected_bytes)
            ),
            Self::Holes {
                name,
                n_holes,
                n_bytes,
            } => format!(
                "{name} has {n_holes} holes of {} where weights should be: it is not downloaded yet",
                bytes(*n_bytes)
            ),
        }
    }
}

/// What is wrong with these files, of those that are on this machine.
pub fn look(files: &[ModelFile]) -> Vec<Damage> {
    let here = files
        .iter()
        .filter_map(|file| Some((file, file.path.as_deref()?)));
    here.filter_map(|(file, path)| damage(file, path)).collect()
}

fn damage(file: &ModelFile, path: &Path) -> Option<Damage> {
    let (name, expected_bytes) = (file.name.clone(), end(&file.listing));
    if file.n_bytes < expected_bytes {
        return Some(Damage::CutOff {
            name,
            n_bytes: file.n_bytes,
            expected_bytes,
        });
    }
    let start = file
        .listing
        .tensors
        .iter()
        .map(|tensor| tensor.offset)
        .min()?;
    let holes = holes(&File::open(path).ok()?, start, expected_bytes);
    let n_bytes = holes.iter().map(|(begin, end)| end - begin).sum();
    (!holes.is_empty()).then_some(Damage::Holes {
        name,
        n_holes: holes.len(),
        n_bytes,
    })
}

/// The holes of `file` from `start` to `end`. A file system without holes says that there are none, and so does one that
/// cannot tell.
fn holes(file: &File, start: u64, end: u64) -> Vec<(u64, u64)> {
    let mut holes = Vec::new();
    let mut at = start;
    while at < end {
        let Ok(begin) = seek(file, SeekFrom::Hole(at)) else {
            break;
        };
        if begin >= end {
            break;
        }
        at = match seek(file, SeekFrom::Data(begin)) {
            // After the last data there is none.
            Err(Errno::NXIO) => end,
            Ok(data) if data > begin => data.min(end),
            _ => break,
        };
        if at - begin >= HOLE_BYTES_MIN {
            holes.push((begin, at));
        }
    }
    holes
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{FileExt, MetadataExt};

    #[test]
    fn holes_are_found_between_data_and_at_the_end() {
        let file = tempfile::tempfile().unwrap();
        let block = [7u8; 128 << 10];
        for at in [0u64, 1 << 20] {
            file.write_all_at(&block, at).unwrap();
        }
        file.set_len(2 << 20).unwrap();
        let (n, mib) = (block.len() as u64, 1 << 20);
        let found = holes(&file, 100, 2 * mib);
        // Where the file takes its whole length there are none.
        if found.is_empty() && file.metadata().unwrap().blocks() * 512 >= 2 * mib {
            return;
        }
        assert_eq!(found, [(n, mib), (mib + n, 2 * mib)]);
        // What is outside of the tensors does not count.
        assert_eq!(holes(&file, mib, mib + n), []);
        assert_eq!(holes(&file, 100, n + 4096), []);
    }
}
