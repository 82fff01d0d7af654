//! Writes GGUF version 3, in one file or several.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::{Spec, Type};

/// Tensors start at multiples of this, the format's default.
const ALIGNMENT: usize = 32;

/// A metadata value.
#[derive(Clone)]
pub enum Value {
    U16(u16),
    U32(u32),
    I32(i32),
    F32(f32),
    Bool(bool),
    Str(String),
    Array(Vec<Value>),
}

impl Value {
    /// The number of its type.
    fn id(&self) -> u32 {
        match self {
            Value::U16(_) => 2,
            Value::U32(_) => 4,
            Value::I32(_) => 5,
            Value::F32(_) => 6,
            Value::Bool(_) => 7,
            Value::Str(_) => 8,
            Value::Array(_) => 9,
        }
    }

    fn write(&self, out: &mut Vec<u8>) {
        match self {
            Value::U16(x) => out.extend(x.to_le_bytes()),
            Value::U32(x) => out.extend(x.to_le_bytes()),
            Value::I32(x) => out.extend(x.to_le_bytes()),
            Value::F32(x) => out.extend(x.to_le_bytes()),
            Value::Bool(x) => out.push(u8::from(*x)),
            Value::Str(x) => write_str(out, x),
            Value::Array(items) => {
                out.extend(items[0].id().to_le_bytes());
                write_len(out, items.len());
                for item in items {
                    item.write(out);
                }
            }
        }
    }
}

/// A tensor and how its random weights are spread.
pub struct Tensor {
    pub name: String,
    /// Row length first.
    pub shape: Vec<usize>,
    pub ty: Type,
    pub mean: f32,
    pub std: f32,
}

impl Tensor {
    fn n_bytes(&self) -> usize {
        self.ty.n_bytes(&self.shape)
    }
}

/// What a file says, before it is laid out.
#[derive(Default)]
pub struct Model {
    pub meta: Vec<(String, Value)>,
    pub tensors: Vec<Tensor>,
}

/// Writes `model` into `dir` and returns the first file.
pub fn write(model: &Model, spec: &Spec, dir: &Path) -> PathBuf {
    let path = |no: usize| match spec.splits {
        1 => dir.join(format!("{}.gguf", spec.name)),
        n => dir.join(format!("{}-{:05}-of-{n:05}.gguf", spec.name, no + 1)),
    };
    for no in 0..spec.splits {
        let mut meta = if no == 0 {
            model.meta.clone()
        } else {
            Vec::new()
        };
        if spec.splits > 1 {
            let n_tensors = model.tensors.len() as i32;
            meta.push(("split.no".into(), Value::U16(no as u16)));
            meta.push(("split.count".into(), Value::U16(spec.splits as u16)));
            meta.push(("split.tensors.count".into(), Value::I32(n_tensors)));
        }
        let tensors: Vec<_> = seeded(model, spec).skip(no).step_by(spec.splits).collect();
        let path = path(no);
        File::create(&path)
            .and_then(|mut out| write_file(&meta, &tensors, &mut out))
            .unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    }
    path(0)
}

/// Writes `model` as one file, and holds one of its tensors in memory at a time.
pub fn write_to(model: &Model, spec: &Spec, out: &mut impl Write) -> io::Result<()> {
    let tensors: Vec<_> = seeded(model, spec).collect();
    write_file(&model.meta, &tensors, out)
}

/// Each tensor with its seed, which counts over all files: splitting a model does not change its
/// weights.
fn seeded<'a>(model: &'a Model, spec: &Spec) -> impl Iterator<Item = (u64, &'a Tensor)> + use<'a> {
    ((spec.seed << 32)..).zip(&model.tensors)
}

/// Writes one file; each tensor comes with its seed.
fn write_file(
    meta: &[(String, Value)],
    tensors: &[(u64, &Tensor)],
    file: &mut impl Write,
) -> io::Result<()> {
    let mut out = b"GGUF\x03\0\0\0".to_vec();
    write_len(&mut out, tensors.len());
    write_len(&mut out, meta.len());
    for (key, value) in meta {
        write_str(&mut out, key);
        out.extend(value.id().to_le_bytes());
        value.write(&mut out);
    }
    let mut offset = 0;
    for (_, tensor) in tensors {
        write_str(&mut out, &tensor.name);
        out.extend((tensor.shape.len() as u32).to_le_bytes());
        for n in &tensor.shape {
            write_len(&mut out, *n);
        }
        out.extend(tensor.ty.id().to_le_bytes());
        write_len(&mut out, offset);
        offset += tensor.n_bytes().next_multiple_of(ALIGNMENT);
    }
    pad(&mut out);
    file.write_all(&out)?;
    for (seed, t) in tensors {
        let mut bytes = t.ty.random(t.n_bytes(), t.mean, t.std, *seed);
        pad(&mut bytes);
        file.write_all(&bytes)?;
    }
    Ok(())
}

fn write_len(out: &mut Vec<u8>, n: usize) {
    out.extend((n as u64).to_le_bytes());
}

fn write_str(out: &mut Vec<u8>, s: &str) {
    write_len(out, s.len());
    out.extend(s.as_bytes());
}

fn pad(out: &mut Vec<u8>) {
    out.resize(out.len().next_multiple_of(ALIGNMENT), 0);
}
