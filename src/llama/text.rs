//! Reading a text with a model, in this process: for the profile of a workload.

use super::hook;
use super::sys::{
    ggml_log_level, llama_backend_init, llama_batch_free, llama_batch_init, llama_context,
    llama_context_default_params, llama_decode, llama_free, llama_get_memory,
    llama_init_from_model, llama_log_set, llama_memory_clear, llama_model,
    llama_model_default_params, llama_model_free, llama_model_get_vocab,
    llama_model_load_from_file, llama_tokenize,
};
use crate::config::Config;
use crate::error::{Error, Result};
use crate::expert::Event;
use crate::profile::Profile;
use std::ffi::{CString, c_char, c_void};
use std::path::Path;

/// Tokens of one window: they see only those before them in it.
const N_CONTEXT: usize = 2048;
/// Tokens that are computed at once.
const N_BATCH: usize = 256;
/// Tokens of the shortest batch that counts as a prompt.
const N_TOKENS_MIN: usize = Event::SCAN_TOKENS as usize + 1;

/// A loaded model and its context, freed in this order.
struct Reader {
    path: std::path::PathBuf,
    model: *mut llama_model,
    context: *mut llama_context,
}

/// Reads `text` with the model at `path` under `config` and returns the profile of what was picked, as
/// prompts. Calls `progress` with the tokens done and all tokens.
///
/// Call it while no other model is loaded. Fails if the model cannot be loaded or has no experts, and if
/// the text has 32 tokens or less.
pub fn read(
    path: &Path,
    text: &str,
    config: Config,
    mut progress: impl FnMut(usize, usize),
) -> Result<Profile> {
    hook::install_to_learn(config)?;
    let reader = Reader::load(path)?;
    let tokens = reader.tokenize(text)?;
    if tokens.len() < N_TOKENS_MIN {
        let n = tokens.len();
        let why = format!("the text has {n} tokens, a profile needs {N_TOKENS_MIN} or more");
        return Err(reader.wrong(&why));
    }
    let mut n_done = 0;
    for window in even(&tokens, N_CONTEXT) {
        reader.begin();
        let mut first = 0;
        for batch in even(window, N_BATCH) {
            reader.compute(batch, first)?;
            first += batch.len();
            n_done += batch.len();
            progress(n_done, tokens.len());
        }
    }
    let learnt = hook::profiles().pop();
    learnt.ok_or_else(|| {
        reader.wrong("its routing cannot be seen: it has no experts, or they are on a device")
    })
}

/// Parts of `n_max` tokens at most, none much shorter than another: the rest of a text would otherwise be
/// a batch so short that it does not count as a prompt.
fn even(tokens: &[i32], n_max: usize) -> impl Iterator<Item = &[i32]> {
    let n_parts = tokens.len().div_ceil(n_max);
    let begin = move |part: usize| part * tokens.len() / n_parts;
    (0..n_parts).map(move |part| &tokens[begin(part)..begin(part + 1)])
}

impl Reader {
    fn load(path: &Path) -> Result<Self> {
        let wrong = |why: &str| Error::File {
            path: path.to_path_buf(),
            why: why.to_string(),
        };
        let name = path.to_str().and_then(|path| CString::new(path).ok());
        let name = name.ok_or_else(|| wrong("llama.cpp cannot open files of such names"))?;
        // SAFETY: default parameters with plain values changed, a C string, and a model that lives.
        unsafe {
            llama_log_set(Some(errors), std::ptr::null_mut());
            llama_backend_init();
            let mut params = llama_model_default_params();
            // Repacked experts cannot be seen.
            params.use_extra_bufts = false;
            let model = llama_model_load_from_file(name.as_ptr(), params);
            if model.is_null() {
                return Err(wrong("llama.cpp cannot load it, see above"));
            }
            let mut params = llama_context_default_params();
            params.n_ctx = N_CONTEXT as u32;
            params.n_batch = N_BATCH as u32;
            params.n_ubatch = N_BATCH as u32;
            let n_threads = std::thread::available_parallelism().map_or(1, |n| n.get() as i32);
            params.n_threads = n_threads;
            params.n_threads_batch = n_threads;
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

    fn wrong(&self, why: &str) -> Error {
        Error::File {
            path: self.path.clone(),
            why: why.to_string(),
        }
    }

    fn tokenize(&self, text: &str) -> Result<Vec<i32>> {
        let too_long = |_| self.wrong("the text is too long: 2 GiB at most");
        let n_bytes = i32::try_from(text.len()).map_err(too_long)?;
        let mut tokens: Vec<i32> = Vec::new();
        loop {
            // SAFETY: the text and the room for tokens have these lengths.
            let n = unsafe {
                llama_tokenize(
                    llama_model_get_vocab(self.model),
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

    /// Begins a window.
    fn begin(&self) {
        // SAFETY: the context lives.
        unsafe { llama_memory_clear(llama_get_memory(self.context), true) };
    }

    /// Computes tokens that begin at `first` in their window.
    fn compute(&self, tokens: &[i32], first: usize) -> Result<()> {
        // SAFETY: the batch is made for this many tokens and freed.
        let status = unsafe {
            let mut batch = llama_batch_init(tokens.len() as i32, 0, 1);
            batch.n_tokens = tokens.len() as i32;
            for (i, &token) in tokens.iter().enumerate() {
                *batch.token.add(i) = token;
                *batch.pos.add(i) = (first + i) as i32;
                *batch.n_seq_id.add(i) = 1;
                **batch.seq_id.add(i) = 0;
                // The last layer is computed only for tokens with outputs.
                *batch.logits.add(i) = 1;
            }
            let status = llama_decode(self.context, batch);
            llama_batch_free(batch);
            status
        };
        match status {
            0 => Ok(()),
            _ => Err(self.wrong("llama.cpp cannot compute it, see above")),
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        // SAFETY: both were made by `load` and are freed once.
        unsafe {
            llama_free(self.context);
            llama_model_free(self.model);
        }
    }
}

/// Prints what llama.cpp says of errors.
unsafe extern "C" fn errors(level: ggml_log_level, text: *const c_char, _: *mut c_void) {
    if level == super::sys::GGML_LOG_LEVEL_ERROR {
        // SAFETY: llama.cpp passes a C string.
        let text = unsafe { std::ffi::CStr::from_ptr(text) };
        eprint!("{}", text.to_string_lossy());
    }
}
