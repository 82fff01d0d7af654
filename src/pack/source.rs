//! Which model a file of packed experts was made of.

use crate::engine::layout::Tensor;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

/// So much is looked at of an expert.
const SAMPLE_BYTES: usize = 4096;

/// What tells the model of `tensors`, which are in these files, from others: SHA-256 of the tensors' names and sizes and of
/// 4 KiB from the middle of one part of each expert. A model that was trained further differs there, also if only some
/// experts were. That takes a small read for each expert, a second at most on any SSD.
pub fn source(tensors: &[Tensor], files: &[PathBuf]) -> io::Result<String> {
    let files: Vec<File> = files.iter().map(File::open).collect::<io::Result<_>>()?;
    let mut hash = Sha256::new();
    let mut sample = vec![0; SAMPLE_BYTES];
    for parts in tensors.chunk_by(|a, b| a.block == b.block) {
        for part in parts {
            hash.update(part.name.as_bytes());
            hash.update([0]);
            hash.update(u64::from(part.n_experts).to_le_bytes());
            hash.update((part.n_bytes as u64).to_le_bytes());
        }
        for expert in 0..parts[0].n_experts {
            let part = &parts[expert as usize % parts.len()];
            let n_bytes = SAMPLE_BYTES.min(part.n_bytes);
            let middle = ((part.n_bytes - n_bytes) / 2) as u64;
            let sample = &mut sample[..n_bytes];
            files[part.file as usize].read_exact_at(sample, part.offset_of(expert) + middle)?;
            hash.update(sample);
        }
    }
    Ok(format!("{:x}", hash.finalize()))
}
