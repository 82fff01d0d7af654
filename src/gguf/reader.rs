//! Reads what a file lists, and small tensors of numbers.
//!
//! Tensors lie one after the other, each padded to the file's alignment, so a tensor is as long as
//! the next one is away. That needs no table of types, and is right for types that do not exist yet;
//! padding adds less than a byte to an expert, except where there are fewer experts than bytes of padding.

use super::tensor::Tensor;
use super::types;
use super::values::{LIST, TEXT, Value, Values, fixed_bytes};
use crate::error::{Error, Result};
use std::collections::HashSet;
use std::fs::File;
use std::hash::Hash;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

/// What a file says of itself.
#[derive(Debug)]
pub struct Listing {
    /// All values.
    pub values: Values,
    /// All tensors, in its order.
    pub tensors: Vec<Tensor>,
}

/// Longest text, and most entries of a list: more is damage, not a model.
const LENGTH_MAX: u64 = 1 << 24;

/// Most tensors, and most values.
const N_MAX: u64 = 1 << 20;

/// Most bytes before those of the tensors, which are kept in memory: the largest models have some 20 MiB.
const HEAD_BYTES_MAX: u64 = 1 << 28;

/// Reads what one file lists.
pub fn list(path: &Path) -> Result<Listing> {
    let file = File::open(path).map_err(|e| Error::file(path, e))?;
    let meta = file.metadata().map_err(|e| Error::file(path, e))?;
    if !meta.is_file() {
        return Err(Error::file(path, "not a regular file"));
    }
    list_from(BufReader::new(file), meta.len())
        .map_err(|e| Error::file(path, format!("not a valid GGUF file: {e}")))
}

/// Reads what a file of `file_bytes` lists, from its begin; nothing that comes after that is read.
pub fn list_from(file: impl Read, file_bytes: u64) -> io::Result<Listing> {
    let n_left = HEAD_BYTES_MAX;
    Reader { file, n_left }.read(file_bytes)
}

/// Reads the numbers of a tensor that `list` found in `path`.
pub fn floats(path: &Path, tensor: &Tensor) -> Result<Vec<f32>> {
    let Tensor { name, ty, .. } = tensor;
    let n = tensor.shape.iter().try_fold(1, |n: u64, d| n.checked_mul(*d));
    let n = n.filter(|n| *n <= tensor.n_bytes / 4 && *ty == types::F32);
    let Some(n) = n else {
        let dimensions = &tensor.shape[..tensor.n_dimensions];
        let why = format!(
            "'{name}' should be F32 (type 0): it is of type {ty}, of the dimensions {dimensions:?} in {} bytes",
            tensor.n_bytes
        );
        return Err(Error::file(path, why));
    };
    let mut bytes = vec![0; 4 * n as usize];
    let mut read = |file: &mut File| {
        file.seek(SeekFrom::Start(tensor.offset))?;
        file.read_exact(&mut bytes)
    };
    File::open(path)
        .and_then(|mut file| read(&mut file))
        .map_err(|e| Error::file(path, format!("reading '{name}': {e}")))?;
    let (numbers, _) = bytes.as_chunks::<4>();
    Ok(numbers.iter().map(|&n| f32::from_le_bytes(n)).collect())
}

fn bad<T>(why: String) -> io::Result<T> {
    Err(io::Error::new(io::ErrorKind::InvalidData, why))
}

/// A file, at what comes next.
struct Reader<R> {
    file: R,
    /// Bytes that may still be taken.
    n_left: u64,
}

impl<R: Read> Reader<R> {
    fn read(&mut self, file_bytes: u64) -> io::Result<Listing> {
        let magic = self.bytes::<4>()?;
        if &magic != b"GGUF" {
            let magic = magic.escape_ascii();
            return bad(format!(
                "invalid magic characters '{magic}', expected 'GGUF'"
            ));
        }
        let version = self.u32()?;
        if !(2..=3).contains(&version) {
            return bad(format!("version {version} is not 2 or 3"));
        }
        let (n_tensors, n_values) = (self.count(N_MAX)?, self.count(N_MAX)?);
        let mut values = Values::default();
        for _ in 0..n_values {
            values.0.push((self.text()?, self.value()?));
        }
        let twice = first_repeated(values.0.iter().map(|(key, _)| key));
        if let Some(key) = twice {
            return bad(format!("the key '{}' is there twice", key.escape_ascii()));
        }
        let alignment = values.number("general.alignment").unwrap_or(32);
        if !alignment.is_power_of_two() {
            return bad(format!("the alignment is {alignment}"));
        }
        let mut tensors = Vec::new();
        for _ in 0..n_tensors {
            tensors.push(self.tensor()?);
        }
        if let Some(name) = first_repeated(tensors.iter().map(|tensor| &tensor.name)) {
            return bad(format!("the tensor '{name}' is there twice"));
        }
        let at = HEAD_BYTES_MAX - self.n_left;
        let Some(start) = at.checked_next_multiple_of(alignment) else {
            return bad(format!("the alignment is {alignment}"));
        };
        set_sizes(&mut tensors, start, file_bytes)?;
        Ok(Listing { values, tensors })
    }

    fn tensor(&mut self) -> io::Result<Tensor> {
        let name = String::from_utf8_lossy(&self.text()?).into_owned();
        let n_dimensions = self.u32()?;
        if !(1..=4).contains(&n_dimensions) {
            return bad(format!("'{name}' has {n_dimensions} dimensions"));
        }
        let n_dimensions = n_dimensions as usize;
        let mut shape = [1; 4];
        for n in &mut shape[..n_dimensions] {
            *n = self.u64()?;
        }
        Ok(Tensor {
            name,
            shape,
            n_dimensions,
            ty: self.u32()?,
            offset: self.u64()?,
            n_bytes: 0,
        })
    }

    /// A value with its type before it.
    fn value(&mut self) -> io::Result<Value> {
        let ty = self.u32()?;
        let mut bytes = Vec::new();
        match (ty, fixed_bytes(ty)) {
            (TEXT, _) => self.append_text(&mut bytes)?,
            (LIST, _) => self.append_list(&mut bytes)?,
            (_, Some(n_bytes)) => self.append(n_bytes, &mut bytes)?,
            _ => return bad(format!("a value of type {ty}")),
        }
        Ok(Value { ty, bytes })
    }

    fn append_list(&mut self, bytes: &mut Vec<u8>) -> io::Result<()> {
        let ty = self.u32()?;
        let n = self.count(LENGTH_MAX)?;
        bytes.extend(ty.to_le_bytes());
        bytes.extend(n.to_le_bytes());
        match (ty, fixed_bytes(ty)) {
            (TEXT, _) => (0..n).try_for_each(|_| self.append_text(bytes)),
            (_, Some(n_bytes)) => self.append(n * n_bytes, bytes),
            _ => bad(format!("a list of type {ty}")),
        }
    }

    /// Appends a text with its length before it.
    fn append_text(&mut self, bytes: &mut Vec<u8>) -> io::Result<()> {
        let n = self.count(LENGTH_MAX)?;
        bytes.extend(n.to_le_bytes());
        self.append(n, bytes)
    }

    /// Appends what comes next. Grows with what is there, whatever a length says.
    fn append(&mut self, n: u64, bytes: &mut Vec<u8>) -> io::Result<()> {
        self.spend(n)?;
        let n_read = (&mut self.file).take(n).read_to_end(bytes)?;
        if n_read as u64 != n {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(())
    }

    fn spend(&mut self, n: u64) -> io::Result<()> {
        let Some(n_left) = self.n_left.checked_sub(n) else {
            return bad(format!(
                "what it says before its tensors' bytes is more than {HEAD_BYTES_MAX} bytes"
            ));
        };
        self.n_left = n_left;
        Ok(())
    }

    fn bytes<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        self.spend(N as u64)?;
        let mut bytes = [0; N];
        self.file.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    fn u32(&mut self) -> io::Result<u32> {
        Ok(u32::from_le_bytes(self.bytes()?))
    }

    fn u64(&mut self) -> io::Result<u64> {
        Ok(u64::from_le_bytes(self.bytes()?))
    }

    /// How many there are of something.
    fn count(&mut self, most: u64) -> io::Result<u64> {
        match self.u64()? {
            n if n <= most => Ok(n),
            n => bad(format!("a length of {n}, above {most}")),
        }
    }

    fn text(&mut self) -> io::Result<Vec<u8>> {
        let n = self.count(LENGTH_MAX)?;
        let mut bytes = Vec::new();
        self.append(n, &mut bytes)?;
        Ok(bytes)
    }
}

fn first_repeated<'a, T: Eq + Hash>(mut names: impl Iterator<Item = &'a T>) -> Option<&'a T> {
    let mut seen = HashSet::new();
    names.find(|name| !seen.insert(*name))
}

/// Makes each tensor end where the next begins, and counts its offset from the begin of the file instead of
/// `start`. Bytes of tensors lie from `start` to the end of the file.
fn set_sizes(tensors: &mut [Tensor], start: u64, file_bytes: u64) -> io::Result<()> {
    let mut by_offset: Vec<&mut Tensor> = tensors.iter_mut().collect();
    by_offset.sort_by_key(|tensor| std::cmp::Reverse(tensor.offset));
    let mut end = file_bytes.saturating_sub(start);
    for tensor in by_offset {
        if tensor.offset >= end {
            let Tensor { name, offset, .. } = tensor;
            return bad(format!(
                "cut off: tensor '{name}' begins at {offset} of {end} bytes"
            ));
        }
        tensor.n_bytes = end - tensor.offset;
        end = tensor.offset;
        tensor.offset += start;
    }
    Ok(())
}
