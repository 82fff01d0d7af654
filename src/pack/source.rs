//! Which model a file of packed experts was made of.

use crate::engine::layout::Tensor;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::thread;

/// So much is looked at of each part of an expert.
const SAMPLE_BYTES: usize = 4096;
/// Reads at once: disks are slow at one after the other.
const N_THREADS: usize = 16;

/// A file as it was: while these are the same nobody has written to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    n_bytes: u64,
    /// Seconds and nanoseconds.
    modified: (i64, i64),
}

/// The stamps of a model's files.
pub fn stamps(files: &[File]) -> io::Result<Vec<Stamp>> {
    let stamp = |file: &File| {
        let meta = file.metadata()?;
        Ok(Stamp {
            n_bytes: meta.len(),
            modified: (meta.mtime(), meta.mtime_nsec()),
        })
    };
    files.iter().map(stamp).collect()
}

/// What tells the weights of each of `tensors`, which are in these files, from others: the SHA-256 of 4 KiB from the middle
/// of each expert. A model that was trained further differs there, also if few experts were.
pub fn samples(tensors: &[Tensor], files: &[File]) -> io::Result<Vec<String>> {
    let n_each = tensors.len().div_ceil(N_THREADS).max(1);
    thread::scope(|scope| {
        let some = |tensors: &[Tensor]| tensors.iter().map(|tensor| sample(tensor, files)).collect();
        let threads: Vec<_> = tensors.chunks(n_each).map(|chunk| scope.spawn(move || some(chunk))).collect();
        let mut samples = Vec::with_capacity(tensors.len());
        for thread in threads {
            let found: io::Result<Vec<String>> = thread.join().expect("it does not panic");
            samples.extend(found?);
        }
        Ok(samples)
    })
}

fn sample(tensor: &Tensor, files: &[File]) -> io::Result<String> {
    let mut hash = Sha256::new();
    let mut sample = vec![0; SAMPLE_BYTES.min(tensor.n_bytes)];
    let middle = ((tensor.n_bytes - sample.len()) / 2) as u64;
    for expert in 0..tensor.n_experts {
        files[tensor.file as usize].read_exact_at(&mut sample, tensor.offset_of(expert) + middle)?;
        hash.update(&sample);
    }
    Ok(format!("{:x}", hash.finalize()))
}
