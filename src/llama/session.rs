//! A model and a context in this process, for commands of ours that compute.

use super::sys::{
    GGML_LOG_LEVEL_ERROR, ggml_log_level, ggml_tensor, llama_backend_init, llama_batch_free,
    llama_batch_init, llama_context, llama_context_default_params, llama_decode, llama_free,
    llama_get_memory, llama_init_from_model, llama_log_set, llama_memory_clear, llama_model,
    llama_model_default_params, llama_model_free, llama_model_get_vocab,
    llama_model_load_from_file, llama_synchronize, llama_tokenize, llama_vocab,
};
use crate::error::{Error, Result};
use std::ffi::{CString, c_char, c_void};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// A loaded model and its context, freed in this order.
pub struct Session {
    path: PathBuf,
    pub(super) model: *mut llama_model,
    pub(super) context: *mut llama_context,
}

/// Is asked about an operation, then called when it is computed.
pub(super) type Watch = unsafe extern "C" fn(*mut ggml_tensor, bool, *mut c_void) -> bool;

/// How large a context is.
#[derive(Debug, Clone, Copy)]
pub struct Sizes {
    /// Tokens that it can hold.
    pub n_context: usize,
    /// Tokens that are computed at once, at most.
    pub n_batch: usize,
    /// Threads that compute.
    pub n_threads: usize,
}

/// Tokens of a batch whose logits are wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outputs {
    /// All of them.
    All,
    /// The last one.
    Last,
}

/// As many threads as there are cores.
pub fn available_threads() -> usize {
    std::thread::available_parallelism().map_or(1, |n| n.get())
}

impl Session {
    /// Loads the model at `path`. What llama.cpp says of errors goes to standard error.
    pub fn load(path: &Path, sizes: Sizes) -> Result<Self> {
        Self::load_with(path, sizes, None, std::ptr::null_mut())
    }

    /// The same; `watch` is asked about each operation, and called with `user_data`, which outlives the session's computing.
    pub(super) fn load_watched(
        path: &Path,
        sizes: Sizes,
        watch: Watch,
        user_data: *mut c_void,
    ) -> Result<Self> {
        Self::load_with(path, sizes, Some(watch), user_data)
    }

    fn load_with(
        path: &Path,
        sizes: Sizes,
        watch: Option<Watch>,
        user_data: *mut c_void,
    ) -> Result<Self> {
        let wrong = |why: &str| Error::file(path, why);
        let name = CString::new(path.as_os_str().as_bytes()).ok();
        let name = name.ok_or_else(|| wrong("llama.cpp cannot open files of such names"))?;
        // SAFETY: default parameters with plain values changed, a C string, and a model that lives.
        unsafe {
            llama_log_set(Some(errors), std::ptr::null_mut());
            llama_backend_init();
            let mut params = llama_model_default_params();
            // Repacked experts cannot be seen, and sum in another order.
            params.use_extra_bufts = false;
            let model = llama_model_load_from_file(name.as_ptr(), params);
            if model.is_null() {
                return Err(wrong("llama.cpp cannot load it, see above"));
            }
            let mut params = llama_context_default_params();
            params.n_ctx = sizes.n_context as u32;
            params.n_batch = sizes.n_batch as u32;
            params.n_ubatch = sizes.n_batch as u32;
            params.n_threads = sizes.n_threads as i32;
            params.n_threads_batch = sizes.n_threads as i32;
            params.cb_eval = watch;
            params.cb_eval_user_data = user_data;
            let context = llama_init_from_model(model, params);
            if context.is_null() {
                llama_model_free(model);
                return Err(wrong("llama.cpp makes no context for it, see above"));
            }
            Ok(Self {
                path: path.to_path_buf(),
                model,
                context,
            })
        }
    }

    /// An error about this model.
    pub fn wrong(&self, why: &str) -> Error {
        Error::file(self.path.clone(), why)
    }

    /// Its vocabulary, which lives as long as this.
    pub(super) fn vocab(&self) -> *const llama_vocab {
        // SAFETY: the model lives.
        unsafe { llama_model_get_vocab(self.model) }
    }

    /// The tokens of `text`, with what the model wants at its begin.
    pub fn tokenize(&self, text: &str) -> Result<Vec<i32>> {
        let too_long = |_| self.wrong("the text is too long: 2 GiB at most");
        let n_bytes = i32::try_from(text.len()).map_err(too_long)?;
        let mut tokens: Vec<i32> = Vec::new();
        loop {
            // SAFETY: the text and the room for tokens have these lengths.
            let n = unsafe {
                llama_tokenize(
                    self.vocab(),
                    text.as_ptr().cast::<c_char>(),
                    n_bytes,
                    tokens.as_mut_ptr(),
                    tokens.len() as i32,
                    true,
                    true,
                )
            };
            // A negative number says how many there are room needed for.
            match usize::try_from(n) {
                Ok(n) => {
                    tokens.truncate(n);
                    return Ok(tokens);
                }
                Err(_) => tokens.resize(n.unsigned_abs() as usize, 0),
            }
        }
    }

    /// Forgets all tokens.
    pub fn begin(&self) {
        // SAFETY: the context lives.
        unsafe { llama_memory_clear(llama_get_memory(self.context), true) };
    }

    /// Computes tokens, the first of which is the `first` since [`Session::begin`], and waits for the end.
    pub fn compute(&self, tokens: &[i32], first: usize, outputs: Outputs) -> Result<()> {
        // SAFETY: the batch is made for this many tokens and freed.
        let status = unsafe {
            let mut batch = llama_batch_init(tokens.len() as i32, 0, 1);
            batch.n_tokens = tokens.len() as i32;
            for (i, &token) in tokens.iter().enumerate() {
                let is_wanted = outputs == Outputs::All || i + 1 == tokens.len();
                *batch.token.add(i) = token;
                *batch.pos.add(i) = (first + i) as i32;
                *batch.n_seq_id.add(i) = 1;
                **batch.seq_id.add(i) = 0;
                *batch.logits.add(i) = is_wanted.into();
            }
            let status = llama_decode(self.context, batch);
            llama_synchronize(self.context);
            llama_batch_free(batch);
            status
        };
        match status {
            0 => Ok(()),
            _ => Err(self.wrong("llama.cpp cannot compute it, see above")),
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // SAFETY: both were made by `load` and are freed once.
        unsafe {
            llama_free(self.context);
            llama_model_free(self.model);
        }
    }
}

/// Prints what llama.cpp says of errors.
pub(super) unsafe extern "C" fn errors(level: ggml_log_level, text: *const c_char, _: *mut c_void) {
    if level == GGML_LOG_LEVEL_ERROR {
        // SAFETY: llama.cpp passes a C string.
        let text = unsafe { std::ffi::CStr::from_ptr(text) };
        // Nobody is left to tell if this fails.
        let _ = std::io::stderr().write_all(text.to_bytes());
    }
}
