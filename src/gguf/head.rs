//! The head of a file that is written: all but the bytes of its tensors.

use super::tensor::Tensor;
use super::types;
use super::values::Values;

/// Tensors of such a file begin at multiples of this, the format's default.
const ALIGNMENT: u64 = 32;

/// No file system holds more, and sums of it do not overflow.
const N_BYTES_MAX: u64 = 1 << 56;

/// What a file says before its tensors' bytes.
#[derive(Debug, Default)]
pub struct Head {
    /// All values.
    values: Values,
    /// Offsets are counted from the end of the head.
    tensors: Vec<Tensor>,
    n_data_bytes: u64,
}

impl Head {
    /// No tensors yet. An alignment among the values is left out: see [`ALIGNMENT`].
    pub fn new(mut values: Values) -> Self {
        values.remove("general.alignment");
        Self {
            values,
            ..Self::default()
        }
    }

    /// Adds a tensor after the others, whose name should be new, and returns its bytes without padding. The error says
    /// why it cannot be.
    pub fn add(&mut self, name: &str, ty: u32, shape: [u64; 4]) -> Result<u64, String> {
        let size = types::size(ty, shape).map_err(|why| format!("tensor '{name}' {why}"))?;
        let n_bytes = padded(size.min(N_BYTES_MAX));
        if self.n_data_bytes + n_bytes >= N_BYTES_MAX {
            return Err(format!("tensor '{name}' is more than any file holds"));
        }
        // As ggml writes it, whatever was listed before.
        let n_dimensions = 4 - shape.iter().rev().take_while(|n| **n == 1).count();
        self.tensors.push(Tensor {
            name: name.to_string(),
            shape,
            n_dimensions: n_dimensions.max(1),
            ty,
            offset: self.n_data_bytes,
            n_bytes,
        });
        self.n_data_bytes += n_bytes;
        Ok(size)
    }

    /// Bytes of all tensors, with padding.
    pub fn n_data_bytes(&self) -> u64 {
        self.n_data_bytes
    }

    /// The file up to its tensors' bytes, padded.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = b"GGUF\x03\0\0\0".to_vec();
        put_u64(&mut out, self.tensors.len() as u64);
        put_u64(&mut out, self.values.0.len() as u64);
        for (key, value) in &self.values.0 {
            put_text(&mut out, key);
            out.extend(value.ty.to_le_bytes());
            out.extend(&value.bytes);
        }
        for tensor in &self.tensors {
            put_text(&mut out, tensor.name.as_bytes());
            out.extend((tensor.n_dimensions as u32).to_le_bytes());
            let dimensions = &tensor.shape[..tensor.n_dimensions];
            dimensions.iter().for_each(|n| put_u64(&mut out, *n));
            out.extend(tensor.ty.to_le_bytes());
            put_u64(&mut out, tensor.offset);
        }
        out.resize(padded(out.len() as u64) as usize, 0);
        out
    }
}

/// Bytes that a tensor of so many takes in such a file.
pub fn padded(n_bytes: u64) -> u64 {
    n_bytes.next_multiple_of(ALIGNMENT)
}

fn put_u64(out: &mut Vec<u8>, n: u64) {
    out.extend(n.to_le_bytes());
}

fn put_text(out: &mut Vec<u8>, text: &[u8]) {
    put_u64(out, text.len() as u64);
    out.extend(text);
}
