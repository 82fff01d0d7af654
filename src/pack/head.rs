//! What a packed file says of itself.

use super::source::Stamp;
use crate::engine::layout::Tensor;
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Every part begins at a multiple of this: no disk wants more for direct reads.
pub const ALIGN: u64 = 4096;
/// The layout of tensors that are as the model's file has them.
pub const PLAIN: &str = "plain";
/// What a file of this kind begins to say.
const FORMAT: &str = "hotset pack 1";
/// No list of a model's tensors is longer.
const HEAD_BYTES_MAX: u64 = 64 << 20;

/// What a packed file says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    format: String,
    /// The model's files as they were.
    pub files: Vec<Stamp>,
    /// Its expert tensors, by block and part.
    pub tensors: Vec<Packed>,
    /// Bytes of all experts, filled up.
    pub n_bytes: u64,
}

/// Where one tensor is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Packed {
    /// Its name in the model.
    pub name: String,
    /// The block it belongs to.
    pub block: u32,
    /// How many experts it holds.
    pub n_experts: u32,
    /// Bytes of one expert.
    pub n_bytes: usize,
    /// How its bytes are arranged: [`PLAIN`], or what tells one processor's layout from another's.
    pub layout: String,
    /// What tells its weights from others, see [`super::samples`].
    pub sample: String,
    /// Where expert 0 begins, after the head.
    pub offset: u64,
    /// From the begin of one expert to that of the next.
    pub stride: u64,
}

/// One expert of a packed file, filled up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PackedExpert {
    /// Its number in its layer.
    pub number: u32,
    /// Its parts, of [`Head::tensors`].
    pub parts: Range<usize>,
    /// Where it begins, after the head.
    pub offset: u64,
    /// Bytes of its parts, filled up.
    pub n_bytes: usize,
}

/// The packed file that belongs to the model of which one file is at `path`, if there is one: `model.packed` beside
/// `model.gguf`, and beside `model-00001-of-00003.gguf`.
pub fn beside(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().as_bytes();
    let stem = name.strip_suffix(b".gguf").unwrap_or(name);
    let parts: Vec<_> = stem.rsplitn(4, |byte| *byte == b'-').collect();
    let is_number = |text: &[u8]| text.len() == 5 && text.iter().all(u8::is_ascii_digit);
    let name = match parts[..] {
        [n, b"of", i, name] if is_number(n) && is_number(i) => name,
        _ => stem,
    };
    let name = [name, b".packed"].concat();
    path.with_file_name(OsStr::from_bytes(&name))
}

/// Puts tensors where they belong: layer by layer, and side by side what is of one expert. Returns the bytes of all, `None` if
/// these are too many, or an expert has none.
fn lay_out(tensors: &mut [Packed]) -> Option<u64> {
    let mut end = 0u64;
    for parts in tensors.chunk_by_mut(|a, b| a.block == b.block) {
        let sizes = parts.iter().map(|part| padded(part.n_bytes));
        let stride = sizes.reduce(|a, b| a.saturating_add(b))?;
        let mut offset = end;
        let n_experts = parts[0].n_experts;
        for part in &mut *parts {
            if part.n_bytes == 0 || part.n_experts != n_experts {
                return None;
            }
            (part.offset, part.stride) = (offset, stride);
            offset = offset.checked_add(padded(part.n_bytes))?;
        }
        end = end.checked_add(stride.checked_mul(n_experts.into())?)?;
    }
    Some(end)
}

/// Bytes that a part of `n_bytes` takes.
fn padded(n_bytes: usize) -> u64 {
    (n_bytes as u64).checked_next_multiple_of(ALIGN).unwrap_or(u64::MAX)
}

impl Head {
    /// Of a file for `tensors`, which are sorted by block and part, with the layout and the sample of each, from files that
    /// are as these stamps say.
    pub fn new(tensors: &[Tensor], layouts: &[String], samples: Vec<String>, files: Vec<Stamp>) -> Self {
        let both = tensors.iter().zip(layouts).zip(samples);
        let packed = both.map(|((tensor, layout), sample)| Packed {
            name: tensor.name.clone(),
            block: tensor.block,
            n_experts: tensor.n_experts,
            n_bytes: tensor.n_bytes,
            layout: layout.clone(),
            sample,
            offset: 0,
            stride: 0,
        });
        let mut tensors: Vec<_> = packed.collect();
        let n_bytes = lay_out(&mut tensors);
        let n_bytes = n_bytes.expect("a model that is there is not too large");
        Self {
            format: FORMAT.to_string(),
            files,
            tensors,
            n_bytes,
        }
    }

    /// What tells the weights of a tensor from others, if it is there.
    pub fn sample(&self, name: &str) -> Option<&String> {
        let mut tensors = self.tensors.iter();
        tensors.find(|tensor| tensor.name == name).map(|tensor| &tensor.sample)
    }

    /// All experts, in the order of the file.
    pub fn experts(&self) -> impl Iterator<Item = PackedExpert> {
        let mut begin = 0;
        let layers = self.tensors.chunk_by(|a, b| a.block == b.block);
        let layers = layers.map(move |parts| {
            begin += parts.len();
            (begin - parts.len()..begin, &parts[0])
        });
        layers.flat_map(|(parts, first)| {
            (0..first.n_experts).map(move |number| PackedExpert {
                number,
                parts: parts.clone(),
                offset: first.offset + u64::from(number) * first.stride,
                n_bytes: first.stride as usize,
            })
        })
    }

    /// The begin of the file.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec(self).expect("text and numbers can be written");
        bytes.push(b'\n');
        bytes.resize(padded(bytes.len()) as usize, 0);
        bytes
    }

    /// Reads the head of `file`, which is called `path`; its experts begin at the second value.
    ///
    /// Fails if it cannot be read, is of another kind, or is not whole.
    pub fn read(file: &File, path: &Path) -> Result<(Self, u64)> {
        let unreadable = |cause| Error::Unreadable {
            path: path.to_path_buf(),
            cause,
        };
        let n_bytes = file.metadata().map_err(unreadable)?.len();
        let mut line = Vec::new();
        let mut reader = BufReader::new(file.take(HEAD_BYTES_MAX));
        reader.read_until(b'\n', &mut line).map_err(unreadable)?;
        let begin = padded(line.len());
        let head: Self = serde_json::from_slice(&line)
            .map_err(|_| Error::file(path, "it is no file of packed experts"))?;
        head.check(n_bytes.saturating_sub(begin))
            .map_err(|why| Error::file(path, why))?;
        Ok((head, begin))
    }

    /// Whether it can be of a file with `n_bytes` after the head.
    fn check(&self, n_bytes: u64) -> std::result::Result<(), String> {
        if self.format != FORMAT {
            return Err(format!("it is of format '{}', not '{FORMAT}'", self.format));
        }
        if self.n_bytes != n_bytes {
            return Err(format!(
                "it has {n_bytes} bytes of experts, and should have {}",
                self.n_bytes
            ));
        }
        let mut tensors = self.tensors.clone();
        match lay_out(&mut tensors) == Some(n_bytes) && tensors == self.tensors {
            true => Ok(()),
            false => Err("what it says of its tensors is damaged".to_string()),
        }
    }

    /// `tensors` of a model as they are in this file, which is its file number `file`, and whose experts begin at `begin`.
    /// The error says which is not there.
    pub fn place(
        &self,
        tensors: &[Tensor],
        layouts: &[String],
        file: u32,
        begin: u64,
    ) -> std::result::Result<Vec<Tensor>, String> {
        let both = tensors.iter().zip(layouts);
        both.map(|(tensor, layout)| {
            let is_it = |packed: &&Packed| packed.name == tensor.name;
            let packed = self.tensors.iter().find(is_it);
            let same = |packed: &&Packed| (packed.n_experts, packed.n_bytes) == (tensor.n_experts, tensor.n_bytes);
            let Some(packed) = packed.filter(same) else {
                return Err(format!("it has no tensor '{}' of this model's size", tensor.name));
            };
            if packed.layout != *layout {
                let name = &tensor.name;
                return Err(match (packed.layout.as_str(), layout.as_str()) {
                    (_, PLAIN) => format!("tensor '{name}' is repacked in it, and computed as the model has it here"),
                    (PLAIN, _) => format!("tensor '{name}' is not repacked in it, and is to be here"),
                    _ => format!("tensor '{name}' is repacked in it for another processor or by another llama.cpp"),
                });
            }
            Ok(Tensor {
                file,
                offset: begin + packed.offset,
                stride: packed.stride,
                ..tensor.clone()
            })
        })
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(name: &str, block: u32, n_experts: u32, n_bytes: usize) -> Tensor {
        Tensor {
            name: name.to_string(),
            block,
            n_experts,
            n_bytes,
            file: 0,
            offset: 77,
            stride: n_bytes as u64,
        }
    }

    fn samples(n: usize) -> Vec<String> {
        (0..n).map(|i| format!("s{i}")).collect()
    }

    #[test]
    fn all_files_of_a_model_have_one() {
        for (file, packed) in [
            ("a/model.gguf", "a/model.packed"),
            ("m.q4.gguf", "m.q4.packed"),
            ("a/m-b-00002-of-00003.gguf", "a/m-b.packed"),
            ("m-2-of-3.gguf", "m-2-of-3.packed"),
            ("00002-of-00003.gguf", "00002-of-00003.packed"),
        ] {
            assert_eq!(beside(Path::new(file)), Path::new(packed));
        }
    }

    #[test]
    fn experts_lie_side_by_side_and_nothing_overlaps() {
        let tensors = [
            tensor("a", 1, 3, 4096),
            tensor("b", 1, 3, 5000),
            tensor("c", 4, 2, 1),
        ];
        let layouts = ["x", PLAIN, PLAIN].map(str::to_string);
        let head = Head::new(&tensors, &layouts, samples(3), Vec::new());
        let placed = head.place(&tensors, &layouts, 9, 8192).unwrap();
        let mut spans = Vec::new();
        for tensor in &placed {
            assert_eq!(tensor.file, 9);
            for expert in 0..tensor.n_experts {
                let begin = tensor.offset_of(expert);
                assert!(begin.is_multiple_of(ALIGN));
                assert_eq!(tensor.expert_at(begin), Some(expert));
                assert_eq!(tensor.expert_at(begin + tensor.n_bytes as u64), None);
                spans.push((begin, begin + tensor.n_bytes as u64));
            }
        }
        spans.sort_unstable();
        assert!(spans.windows(2).all(|two| two[0].1 <= two[1].0));
        assert_eq!(spans[0].0, 8192);
        assert_eq!(spans.last().unwrap().0 + ALIGN, 8192 + head.n_bytes);
        let experts: Vec<_> = head.experts().map(|expert| (expert.offset, expert.n_bytes, expert.parts)).collect();
        let begin_of_c = 3 * 3 * 4096;
        assert_eq!(experts[1], (3 * 4096, 3 * 4096, 0..2));
        assert_eq!(experts[3..], [(begin_of_c, 4096, 2..3), (begin_of_c + 4096, 4096, 2..3)]);
        // An expert of two parts is one span.
        assert_eq!(placed[1].offset_of(2) - placed[0].offset_of(2), 4096);

        let other = [PLAIN, PLAIN, PLAIN].map(str::to_string);
        let why = head.place(&tensors, &other, 9, 8192).unwrap_err();
        assert!(why.contains("'a' is repacked in it, and"), "{why}");
        let other = ["y", PLAIN, PLAIN].map(str::to_string);
        let why = head.place(&tensors, &other, 9, 8192).unwrap_err();
        assert!(why.contains("'a'") && why.contains("another processor"), "{why}");
        let other = ["x", "y", PLAIN].map(str::to_string);
        let why = head.place(&tensors, &other, 9, 8192).unwrap_err();
        assert!(why.contains("'b' is not repacked in it"), "{why}");
        let why = head.place(&[tensor("a", 1, 3, 4000)], &layouts, 9, 0).unwrap_err();
        assert!(why.contains("'a'"), "{why}");
    }

    /// Cut off or changed anywhere, a file is refused, or says where its experts are as before.
    #[test]
    fn damaged_heads_are_refused_or_harmless() {
        let tensors = [tensor("a", 0, 2, 9), tensor("b", 0, 2, 5000)];
        let layouts = [PLAIN, PLAIN].map(str::to_string);
        let head = Head::new(&tensors, &layouts, samples(2), Vec::new());
        let mut bytes = head.to_bytes();
        let begin = bytes.len();
        bytes.resize(begin + head.n_bytes as usize, 1);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.packed");
        let read = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            Head::read(&File::open(&path).unwrap(), &path)
        };
        assert_eq!(read(&bytes).unwrap(), (head.clone(), begin as u64));
        for n in [0, 1, begin - 1, begin, begin + 1, bytes.len() - 1] {
            assert!(matches!(read(&bytes[..n]), Err(Error::File { .. })), "{n}");
        }
        let n_line = bytes.iter().position(|byte| *byte == b'\n').unwrap();
        for bit in 0..8 * n_line {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            match read(&damaged) {
                Err(Error::File { .. }) => {}
                Err(other) => panic!("{other}"),
                Ok((found, at)) => {
                    let places = |head: &Head| head.experts().collect::<Vec<_>>();
                    assert_eq!((places(&found), at), (places(&head), begin as u64));
                }
            }
        }
    }
}
