//! Packing the experts of a model as this processor computes them.

use super::hook;
use super::loaded::loaded_models;
use super::packed::{self, Unpacked};
use super::repack::Repacker;
use super::session::errors;
use super::sys::{
    LLAMA_LOAD_MODE_MMAP, llama_backend_init, llama_log_set, llama_model,
    llama_model_default_params, llama_model_free, llama_model_load_from_file,
};
use crate::config::{Config, Ram, Repack, StatsTo};
use crate::engine::Rewrite;
use crate::error::{Error, Result};
use crate::pack::{self, Head};
use crate::store::ModelFile;
use std::ffi::CString;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// A model whose experts are packed.
pub struct Packing {
    unpacked: Unpacked,
    files: Vec<File>,
    repacker: Option<Repacker>,
    head: Head,
    // Last, so that it goes last.
    _model: Loaded,
}

/// A model of llama.cpp's.
struct Loaded(*mut llama_model);

impl Drop for Loaded {
    fn drop(&mut self) {
        // SAFETY: made by `load`, and freed once.
        unsafe { llama_model_free(self.0) };
    }
}

impl Packing {
    /// Loads the model at `path`, all but its experts. Call it while no other model is loaded. What llama.cpp says of errors
    /// goes to standard error.
    pub fn load(path: &Path) -> Result<Self> {
        let wrong = |why: &str| Error::file(path, why);
        let name = CString::new(path.as_os_str().as_bytes());
        let name = name.map_err(|_| wrong("llama.cpp cannot open files of such names"))?;
        hook::install(Config {
            ram: Some(Ram::Percent(100.0)),
            stats: StatsTo::Off,
            ..Config::default()
        })?;
        loaded_models().leaves_unpacked = true;
        // SAFETY: default parameters with a plain value changed, and a C string.
        let model = unsafe {
            llama_log_set(Some(errors), std::ptr::null_mut());
            llama_backend_init();
            let mut params = llama_model_default_params();
            params.n_gpu_layers = 0;
            params.load_mode = LLAMA_LOAD_MODE_MMAP;
            // Whether these layers are used is decided when the model is run.
            params.load_mtp = true;
            llama_model_load_from_file(name.as_ptr(), params)
        };
        if model.is_null() {
            return Err(wrong("llama.cpp cannot load it, see above"));
        }
        let model = Loaded(model);
        let unpacked = loaded_models().unpacked.take();
        let unpacked = unpacked.ok_or_else(|| wrong("it has no routed experts"))?;
        let Unpacked {
            tensors,
            places,
            files,
            streamed,
        } = &unpacked;
        // SAFETY: the tensors live as long as the model.
        let layouts = unsafe { packed::layouts(streamed, Repack::On) };
        let files = packed::buffered(files)?;
        let failed = |cause| Error::io(path, cause);
        let stamps = pack::stamps(&files).map_err(failed)?;
        let samples = pack::samples(tensors, &files).map_err(failed)?;
        let head = Head::new(tensors, &layouts, samples, stamps);
        // SAFETY: the same, and nothing is ever computed.
        let repacker = unsafe { Repacker::choose(streamed, places, Repack::On, 1.0) };
        Ok(Self {
            files,
            unpacked,
            repacker,
            head,
            _model: model,
        })
    }

    /// What the file will say of itself.
    pub fn head(&self) -> &Head {
        &self.head
    }

    /// Reads expert `number` of tensor `at` of the head into `part`, which is as long, and rewrites it.
    pub fn read(&self, at: usize, number: u32, part: &mut [u8]) -> Result<()> {
        let tensor = &self.unpacked.tensors[at];
        let file = &self.unpacked.files[tensor.file as usize];
        let offset = tensor.offset_of(number);
        let read = self.files[tensor.file as usize].read_exact_at(part, offset);
        read.map_err(|cause| Error::Read {
            what: format!("tensor '{}' expert {number}", tensor.name),
            path: file.path().to_path_buf(),
            offset,
            n_bytes: part.len(),
            cause,
        })?;
        let (layer, of_layer) = self.unpacked.places[at];
        let Some(repacker) = &self.repacker else {
            return Ok(());
        };
        let n_chunk = repacker.chunk_bytes(layer, of_layer);
        if n_chunk > 0 {
            for chunk in part.chunks_mut(n_chunk) {
                repacker.rewrite(
                    layer,
                    of_layer,
                    chunk.as_mut_ptr().expose_provenance(),
                    chunk.len(),
                );
            }
        }
        Ok(())
    }

    /// Fails if the model's files have changed since they were opened.
    pub fn check_unchanged(&self) -> Result<()> {
        self.unpacked
            .files
            .iter()
            .try_for_each(ModelFile::check_unchanged)
    }
}
