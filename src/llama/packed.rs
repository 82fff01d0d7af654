//! Packed experts beside a model: whether they belong to it and to this processor.

use super::repack::{Buffer, Repacker, Shape, Streamed, has_device};
use super::sys::{ggml_backend_buffer_type_t, ggml_nbytes, ggml_tensor, ggml_type};
use crate::config::Repack;
use crate::engine::layout::Tensor;
use crate::error::{Error, Result};
use crate::pack::{self, Head, PLAIN};
use crate::report;
use crate::store::ModelFile;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;

/// Rows of a tensor whose layout is looked at: no layout interleaves more.
const ROWS: i64 = 16;
/// Hexadecimal digits that tell one layout from another.
const NAME_LEN: usize = 16;

/// The experts of a model in a file of their own.
pub struct Found {
    /// What is to be read instead of the model's tensors, from the file after the model's.
    pub tensors: Vec<Tensor>,
    /// How each of them is to be computed.
    pub layouts: Vec<String>,
    /// That file.
    pub file: ModelFile,
}

/// What a model that is to be packed is made of.
#[cfg(feature = "llama")]
pub struct Unpacked {
    /// Its expert tensors, sorted by block and part.
    pub tensors: Vec<Tensor>,
    /// The layer and part of each.
    pub places: Vec<(usize, usize)>,
    /// Its files.
    pub files: Vec<ModelFile>,
    /// Those of llama.cpp.
    pub streamed: Vec<Streamed>,
}

/// Looks for packed experts beside the first of `files`, for `tensors`, which are sorted by block and part, and of which
/// `streamed` says more. A line says whether what is there is used. `None` if it is not, or there is nothing.
///
/// # Safety
///
/// The tensors are loaded.
pub unsafe fn find(
    tensors: &[Tensor],
    files: &[ModelFile],
    streamed: &[Streamed],
    when: Repack,
) -> Option<Found> {
    let path = pack::beside(files.first()?.path());
    if !path.exists() {
        return None;
    }
    // SAFETY: as the caller says.
    let layouts = unsafe { layouts(streamed, when) };
    let used = find_at(tensors, files, layouts, &path);
    report::say(&match &used {
        Ok(_) => format!(
            "hotset: experts are read from {} (HOTSET_PACK)",
            path.display()
        ),
        Err(why) => format!("hotset: packed experts are not used (HOTSET_PACK): {why}"),
    });
    used.ok()
}

fn find_at(
    tensors: &[Tensor],
    files: &[ModelFile],
    layouts: Vec<String>,
    path: &Path,
) -> Result<Found> {
    let failed = |cause| Error::io(path, cause);
    let opened = File::open(path).map_err(failed)?;
    let (head, begin) = Head::read(&opened, path)?;
    let placed = head.place(tensors, &layouts, files.len() as u32, begin);
    let placed = placed.map_err(|why| Error::file(path, why))?;
    let sources = buffered(files)?;
    if pack::stamps(&sources).map_err(failed)? != head.files {
        let samples = pack::samples(tensors, &sources).map_err(failed)?;
        let same = |(tensor, sample): (&Tensor, String)| head.sample(&tensor.name) == Some(&sample);
        if !tensors.iter().zip(samples).all(same) {
            return Err(Error::file(path, "it was made of another model"));
        }
    }
    Ok(Found {
        tensors: placed,
        layouts,
        file: ModelFile::open(opened.as_fd())?,
    })
}

/// What `repacker` is for is packed already: it need not rewrite it. Fails if it is for something else.
pub fn note(
    repacker: &mut Option<Repacker>,
    places: &[(usize, usize)],
    layouts: &[String],
) -> Result<()> {
    let is_for = |place| {
        repacker
            .as_ref()
            .is_some_and(|repacker| repacker.is_for(place))
    };
    let mut both = places.iter().zip(layouts);
    if !both.all(|(place, layout)| is_for(*place) == (layout != PLAIN)) {
        let why = "there is no memory to compute packed experts with";
        return Err(Error::State(why.to_string()));
    }
    if let Some(repacker) = repacker {
        repacker.is_packed = true;
    }
    Ok(())
}

/// The files of a model, to be read through the page cache.
pub fn buffered(files: &[ModelFile]) -> Result<Vec<File>> {
    files.iter().map(ModelFile::buffered).collect()
}

/// How this processor computes these tensors: [`PLAIN`], or the hash of some rows that llama.cpp has rewritten. So whatever
/// changes the layout, another processor or another version of llama.cpp, changes the name.
///
/// # Safety
///
/// The tensors are loaded.
pub unsafe fn layouts(tensors: &[Streamed], when: Repack) -> Vec<String> {
    let plain = || PLAIN.to_string();
    if when == Repack::Off || has_device() {
        return tensors.iter().map(|_| plain()).collect();
    }
    let mut names: BTreeMap<(ggml_type, [i64; 4]), String> = BTreeMap::new();
    let name = |tensor: &Streamed| {
        if !tensor.is_repacked_by_stock() {
            return plain();
        }
        // SAFETY: of a tensor of the caller's.
        let weights = unsafe { &*tensor.weights };
        let name = names.entry((weights.type_, weights.ne)).or_insert_with(|| {
            // SAFETY: the same, and a buffer type of llama.cpp's.
            unsafe { name_of(weights, tensor.stock) }.unwrap_or_else(plain)
        });
        name.clone()
    };
    tensors.iter().map(name).collect()
}

/// The name of the layout of `weights` in a buffer of this type; `None` if that is the file's.
///
/// # Safety
///
/// A tensor and a buffer type of llama.cpp's.
unsafe fn name_of(weights: &ggml_tensor, of: ggml_backend_buffer_type_t) -> Option<String> {
    // SAFETY: as the caller says.
    let buffer = unsafe { Buffer::new(of) }?;
    let mut tensor = *weights;
    // SAFETY: a copy, with which nothing is computed.
    let shape = unsafe { Shape::bind(&mut tensor, &buffer) }?;
    tensor.ne = [tensor.ne[0], ROWS, 1, 1];
    // SAFETY: its sizes are right.
    let n_bytes = unsafe { ggml_nbytes(&tensor) };
    // Each byte has another place, as far as that goes.
    let mut rows: Vec<u8> = (0..n_bytes as u32)
        .map(|i| (i.wrapping_mul(0x9e37_79b1) >> 24) as u8)
        .collect();
    shape.rewrite(&buffer, rows.as_mut_ptr().expose_provenance(), n_bytes);
    let mut name = format!("{:x}", Sha256::digest(&rows));
    name.truncate(NAME_LEN);
    Some(name)
}
