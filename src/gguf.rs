//! The experts of a model, as its GGUF files list them; reads nothing but lists, and small tensors of numbers.
//!
//! Tensors lie one after the other, each padded to the file's alignment, so a tensor is as long as
//! the next one is away. That needs no table of types, and is right for types that do not exist yet;
//! padding adds less than a byte to an expert, except where there are fewer experts than bytes of padding.

use crate::error::{Error, Result};
use crate::expert::Shape;
use crate::trace::Header;
use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
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

/// A tensor of a file.
pub(crate) struct Tensor {
    pub name: String,
    /// Row length first; at least one. The last counts the experts of an expert tensor.
    dimensions: Vec<u64>,
    ty: u32,
    /// From the begin of the file.
    pub offset: u64,
    /// With padding.
    pub n_bytes: u64,
}

impl Tensor {
    pub fn n_last(&self) -> u64 {
        self.dimensions[self.dimensions.len() - 1]
    }
}

/// What a file says of itself.
pub(crate) struct Listing {
    /// Values that are texts, by key.
    pub texts: HashMap<String, String>,
    /// Values that are whole numbers without a sign, by key.
    pub numbers: HashMap<String, u64>,
    pub tensors: Vec<Tensor>,
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
    let text = |key| first.texts.get(key).cloned().unwrap_or_default();
    let architecture = text("general.architecture");
    let top_k = first
        .numbers
        .get(&format!("{architecture}.expert_used_count"));
    Ok(Experts {
        name: text("general.name"),
        top_k: top_k.map_or(0, |&n| n.try_into().unwrap_or(u32::MAX)),
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

/// Longest text, and most entries of a list: more is damage, not a model.
const N_MAX: u64 = 1 << 24;

/// Most files of a model: the format has 16 bits for their number.
const N_FILES_MAX: u64 = u16::MAX as u64;

/// Splits `blk.7.ffn_up_exps.weight`, a tensor of routed experts, into block and part; `None` for any
/// other. Parts are numbered in the order in which graphs use them.
pub(crate) fn expert_part(name: &str) -> Option<(u32, usize)> {
    const PARTS: [&str; 4] = ["gate_up", "gate", "up", "down"];
    let (block, rest) = name.strip_prefix("blk.")?.split_once('.')?;
    let part = rest.strip_prefix("ffn_")?.strip_suffix("_exps.weight")?;
    Some((block.parse().ok()?, PARTS.iter().position(|p| *p == part)?))
}

/// The files after the first, whose name `NAME-00001-of-00003.gguf` says how they are called.
fn others(path: &Path, first: &Listing) -> Result<Vec<PathBuf>> {
    let n_files = first.numbers.get("split.count").copied().unwrap_or(1);
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

/// Reads the lists of one file.
pub(crate) fn list(path: &Path) -> Result<Listing> {
    let file = File::open(path).map_err(|e| Error::file(path, e.to_string()))?;
    let meta = file
        .metadata()
        .map_err(|e| Error::file(path, e.to_string()))?;
    if !meta.is_file() {
        return Err(Error::file(path, "not a regular file".to_string()));
    }
    let mut lists = Lists(BufReader::new(file));
    lists
        .read(meta.len())
        .map_err(|e| Error::file(path, format!("not a valid GGUF file: {e}")))
}

/// Reads the numbers of a tensor that `list` found in `path`.
pub(crate) fn floats(path: &Path, tensor: &Tensor) -> Result<Vec<f32>> {
    let Tensor {
        name, dimensions, ..
    } = tensor;
    let n = dimensions.iter().try_fold(1, |n: u64, d| n.checked_mul(*d));
    let n = n.filter(|n| *n <= tensor.n_bytes / 4 && tensor.ty == TENSOR_F32);
    let Some(n) = n else {
        let why = format!(
            "'{name}' should be F32 (type 0): it is of type {}, of the dimensions {dimensions:?} in {} bytes",
            tensor.ty, tensor.n_bytes
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
struct Lists(BufReader<File>);

impl Lists {
    fn read(&mut self, file_bytes: u64) -> io::Result<Listing> {
        let magic = self.bytes::<4>()?;
        if &magic != b"GGUF" {
            return bad(format!("it begins with {magic:?}"));
        }
        let version = self.u32()?;
        if !(2..=3).contains(&version) {
            return bad(format!("version {version} is not 2 or 3"));
        }
        let (n_tensors, n_values) = (self.count()?, self.count()?);
        let (mut texts, mut numbers) = (HashMap::new(), HashMap::new());
        for _ in 0..n_values {
            let key = self.text()?;
            match self.u32()? {
                TYPE_TEXT => drop(texts.insert(key, self.text()?)),
                TYPE_U16 => drop(numbers.insert(key, u16::from_le_bytes(self.bytes()?).into())),
                TYPE_U32 => drop(numbers.insert(key, self.u32()?.into())),
                TYPE_U64 => drop(numbers.insert(key, self.u64()?)),
                ty => self.skip(ty)?,
            }
        }
        let alignment = numbers.get("general.alignment").copied().unwrap_or(32);
        if !alignment.is_power_of_two() {
            return bad(format!("the alignment is {alignment}"));
        }
        let mut tensors = Vec::new();
        for _ in 0..n_tensors {
            tensors.push(self.tensor()?);
        }
        let at = self.0.stream_position()?;
        let Some(start) = at.checked_next_multiple_of(alignment) else {
            return bad(format!("the alignment is {alignment}"));
        };
        set_sizes(&mut tensors, start, file_bytes)?;
        Ok(Listing {
            texts,
            numbers,
            tensors,
        })
    }

    fn tensor(&mut self) -> io::Result<Tensor> {
        let name = self.text()?;
        let n_dimensions = self.u32()?;
        if !(1..=4).contains(&n_dimensions) {
            return bad(format!("'{name}' has {n_dimensions} dimensions"));
        }
        let dimensions = (0..n_dimensions).map(|_| self.u64());
        Ok(Tensor {
            name,
            dimensions: dimensions.collect::<io::Result<_>>()?,
            ty: self.u32()?,
            offset: self.u64()?,
            n_bytes: 0,
        })
    }

    /// Passes over a value.
    fn skip(&mut self, ty: u32) -> io::Result<()> {
        match ty {
            TYPE_LIST => {
                let ty = self.u32()?;
                let n = self.count()?;
                match (ty, fixed_bytes(ty)) {
                    (TYPE_TEXT, _) => (0..n).try_for_each(|_| self.text().map(|_| ())),
                    (_, Some(n_bytes)) => self.0.seek_relative((n * n_bytes) as i64),
                    _ => bad(format!("a list of type {ty}")),
                }
            }
            _ => match fixed_bytes(ty) {
                Some(n_bytes) => self.0.seek_relative(n_bytes as i64),
                None => bad(format!("a value of type {ty}")),
            },
        }
    }

    fn bytes<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.0.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    fn u32(&mut self) -> io::Result<u32> {
        Ok(u32::from_le_bytes(self.bytes()?))
    }

    fn u64(&mut self) -> io::Result<u64> {
        Ok(u64::from_le_bytes(self.bytes()?))
    }

    /// The length of a list or a text.
    fn count(&mut self) -> io::Result<u64> {
        match self.u64()? {
            n if n <= N_MAX => Ok(n),
            n => bad(format!("a length of {n}, above {N_MAX}")),
        }
    }

    fn text(&mut self) -> io::Result<String> {
        let n = self.count()?;
        let mut bytes = Vec::new();
        // Grows with what is there, whatever the length says.
        (&mut self.0).take(n).read_to_end(&mut bytes)?;
        if bytes.len() as u64 != n {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

const TYPE_U16: u32 = 2;
const TYPE_U32: u32 = 4;
const TYPE_TEXT: u32 = 8;
const TYPE_LIST: u32 = 9;
const TYPE_U64: u32 = 10;
/// Tensors have types of their own.
const TENSOR_F32: u32 = 0;

/// Bytes of a value of a type that always takes as many.
fn fixed_bytes(ty: u32) -> Option<u64> {
    match ty {
        0 | 1 | 7 => Some(1),
        2 | 3 => Some(2),
        4..=6 => Some(4),
        10..=12 => Some(8),
        _ => None,
    }
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
                "cut off: '{name}' begins at {offset} of {end} bytes"
            ));
        }
        tensor.n_bytes = end - tensor.offset;
        end = tensor.offset;
        tensor.offset += start;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_routed_expert_weights_are_streamed() {
        for (part, name) in ["gate_up", "gate", "up", "down"].into_iter().enumerate() {
            let name = format!("blk.12.ffn_{name}_exps.weight");
            assert_eq!(expert_part(&name), Some((12, part)));
        }
        for other in [
            "blk.0.ffn_up_exps.bias",
            "blk.0.ffn_down_exps.scale",
            "blk.0.ffn_up_shexp.weight",
            "blk.0.ffn_up.weight",
            "blk.x.ffn_up_exps.weight",
            "blk.0.ffn_up_exps.weight.lora_a",
        ] {
            assert_eq!(expert_part(other), None, "{other}");
        }
    }
}
