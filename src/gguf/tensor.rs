//! A tensor, as a file lists it.

use super::part::{Part, expert_part};
use super::types;

/// A tensor of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tensor {
    /// Its name.
    pub name: String,
    /// Row length first; 1 where the file lists no dimension.
    pub shape: [u64; 4],
    /// Those that the file lists: 1 to 4.
    pub n_dimensions: usize,
    /// A number of [`types`], or one that is not known there.
    pub ty: u32,
    /// From the begin of the file.
    pub offset: u64,
    /// With padding.
    pub n_bytes: u64,
}

impl Tensor {
    /// The last dimension, which counts the experts of an expert tensor.
    pub fn n_last(&self) -> u64 {
        self.shape[self.n_dimensions - 1]
    }

    /// What it is of each expert of a layer.
    pub fn part(&self) -> Option<Part> {
        expert_part(&self.name).map(|(_, part)| part)
    }

    /// Bytes without padding. The error says why that is not known, or not in the file.
    pub fn bare_bytes(&self) -> Result<u64, String> {
        let name = &self.name;
        let size = types::size(self.ty, self.shape).map_err(|why| format!("tensor '{name}' {why}"))?;
        if size > self.n_bytes {
            let n_bytes = self.n_bytes;
            return Err(format!(
                "cut off: tensor '{name}' is of {size} bytes, there are {n_bytes}"
            ));
        }
        Ok(size)
    }
}
