//! How fast this disk reads what hotset reads: parts of experts, in any order, many at once.

use crate::error::{Error, Result};
use crate::gguf;
use crate::store::{Faults, ModelFile, QueueDepth, QueueKind, QueueOptions, Way, probe};
use serde::Serialize;
use std::fs::File;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What was measured.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Speed {
    /// Bytes that arrived in a second.
    pub bytes_per_s: f64,
    /// Bytes of a read, the most of any.
    pub read_bytes: usize,
    /// Pieces of reads under way at once, and their bytes.
    pub depth: u32,
    /// See above.
    pub piece_bytes: usize,
    /// Whether reads bypass the page cache.
    pub is_direct: bool,
}

/// Reads as much as a part of an expert, anywhere in a model, as hotset would.
pub struct Reader {
    file: ModelFile,
    kind: QueueKind,
    queue_depth: QueueDepth,
    n_bytes: usize,
}

/// Reads from the model at `path` for `duration`.
///
/// Fails if the model has no experts or cannot be read.
pub fn measure(path: &Path, duration: Duration) -> Result<Speed> {
    Reader::open(path)?.measure(&|took| took < duration)
}

impl Reader {
    /// Finds out how the model at `path` is best read. Fails if it has no experts or cannot be read.
    pub fn open(path: &Path) -> Result<Self> {
        let mut largest: Option<(usize, PathBuf)> = None;
        for path in gguf::files(path)? {
            let tensors = gguf::list(&path)?.tensors.into_iter();
            for tensor in tensors.filter(|tensor| tensor.part().is_some()) {
                let n_bytes = (tensor.n_bytes / tensor.n_last().max(1)) as usize;
                if largest.as_ref().is_none_or(|(most, _)| n_bytes > *most) {
                    largest = Some((n_bytes, path.clone()));
                }
            }
        }
        let Some((n_bytes @ 1.., path)) = largest else {
            return Err(Error::file(path, "it has no routed experts".to_string()));
        };
        Self::of_part(&path, n_bytes)
    }

    /// Finds out how the file at `path` is best read, `n_bytes` at once. Fails if it cannot be read.
    pub fn of_part(path: &Path, n_bytes: usize) -> Result<Self> {
        let file = File::open(path).map_err(|cause| Error::io(path, cause))?;
        let file = ModelFile::open(file.as_fd())?;
        let options = QueueOptions {
            kind: QueueKind::Auto,
            queue_depth: QueueDepth::default(),
            faults: Faults::default(),
        };
        let Way { kind, queue_depth, .. } = Way::find(&file, options, n_bytes, true);
        Ok(Self {
            file,
            kind,
            queue_depth,
            n_bytes,
        })
    }

    /// The file.
    pub fn file(&self) -> &ModelFile {
        &self.file
    }

    /// How it is read: `Uring` or `Pread`.
    pub fn kind(&self) -> QueueKind {
        self.kind
    }

    /// Reads while it `goes_on`, which is told how long that has been. Fails if a read fails.
    pub fn measure(&self, goes_on: &dyn Fn(Duration) -> bool) -> Result<Speed> {
        let Self {
            file,
            kind,
            queue_depth,
            n_bytes,
        } = self;
        // All parts of a few experts, as the misses of a layer are.
        const N_READS: u32 = 9;
        Ok(Speed {
            bytes_per_s: probe::bytes_per_second(file, *kind, *n_bytes, N_READS, *queue_depth, goes_on)?,
            read_bytes: *n_bytes,
            depth: queue_depth.depth,
            piece_bytes: queue_depth.piece_bytes,
            is_direct: file.is_direct(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn experts_of_the_bundled_model_are_read() {
        let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/polyglot-moe.gguf");
        let speed = measure(&model, Duration::from_millis(20)).unwrap();
        assert!(speed.bytes_per_s > 1e5, "{speed:?}");
        assert_eq!(speed.read_bytes, 13056);
        let error = measure(Path::new("Cargo.toml"), Duration::ZERO).unwrap_err();
        assert!(error.to_string().contains("Cargo.toml"), "{error}");
    }
}
