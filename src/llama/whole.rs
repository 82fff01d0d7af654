//! Whether a model that is about to be loaded fits in memory as it is.

use super::device_list;
use super::sys::{
    GGML_BACKEND_DEVICE_TYPE_CPU, ggml_backend_dev_by_type, ggml_backend_dev_memory, llama_model,
    llama_model_get_vocab, llama_model_n_ctx_train, llama_model_n_embd, llama_model_n_head,
    llama_model_n_head_kv, llama_model_n_layer, llama_model_size, llama_vocab_n_tokens,
};
use super::title::{metadata, title_of_model};
use crate::config::Asked;
use crate::memory;
use crate::memory::fits::{Fit, Needs, Room};
use std::ffi::CString;
use std::sync::Mutex;

/// Bytes of an entry of the KV cache: llama.cpp's default is F16.
const KV_ENTRY_BYTES: u64 = 2;
/// Bytes of an intermediate result.
const RESULT_BYTES: u64 = 4;
/// So many results as wide as the model are there at once, besides those of the vocabulary.
const N_RESULTS: u64 = 16;
/// Heads of keys of a layer, where the first layer has none.
const N_HEADS: u64 = 8;

/// What is known of the model that is about to be loaded. Only the programs find it out.
#[cfg_attr(not(feature = "llama"), allow(dead_code))]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placed {
    /// It fits devices, with all its experts.
    Whole,
    /// Devices have room for these bytes of what is not experts; experts are in host memory, or on disk.
    Dense(u64),
}

static PLACED: Mutex<Option<Placed>> = Mutex::new(None);
const PLACED_WHY: &str = "no thread panics with it";

/// What is known of the model that is about to be loaded, if anything.
pub fn place(placed: Option<Placed>) {
    *PLACED.lock().expect(PLACED_WHY) = placed;
}

/// What `model` takes when it is loaded as usual, and what there is.
///
/// # Safety
///
/// `model` is a model of which all but the tensors is loaded.
pub unsafe fn fit_of(model: *const llama_model, asked: &Asked) -> Fit {
    let placed = *PLACED.lock().expect(PLACED_WHY);
    let devices = match placed {
        Some(Placed::Dense(n_bytes)) => n_bytes,
        _ if asked.uses_devices => device_memory(),
        _ => 0,
    };
    let available = memory::room_beside_mapped();
    // SAFETY: the caller promises the model.
    let needs = unsafe { needs_of(model, asked, devices > 0) };
    let devices = match placed {
        // Measured, not estimated.
        Some(Placed::Whole) => devices.max(needs.total()),
        _ => devices,
    };
    Fit {
        needs,
        room: Room {
            available: available.saturating_sub(memory::committed_untouched()),
            devices,
        },
    }
}

/// # Safety
///
/// As above.
unsafe fn needs_of(model: *const llama_model, asked: &Asked, has_devices: bool) -> Needs {
    let known = |n: i32| u64::try_from(n).unwrap_or(0);
    // SAFETY: the caller promises the model.
    let (weights, n_embd, n_layer, n_heads, n_kv_heads, n_train, n_vocab) = unsafe {
        (
            llama_model_size(model),
            known(llama_model_n_embd(model)),
            known(llama_model_n_layer(model)),
            known(llama_model_n_head(model)).max(1),
            known(llama_model_n_head_kv(model)),
            known(llama_model_n_ctx_train(model)),
            known(llama_vocab_n_tokens(llama_model_get_vocab(model))),
        )
    };
    let n_kv_heads = match n_kv_heads {
        0 => N_HEADS,
        n => n,
    };
    // SAFETY: the same.
    let length = |what| unsafe { number(model, what) }.unwrap_or(n_embd / n_heads);
    let head = length("attention.key_length") + length("attention.value_length");
    let needs = Needs {
        weights,
        token_bytes: KV_ENTRY_BYTES * n_layer * n_kv_heads * head,
        n_ctx: asked.n_ctx.unwrap_or(n_train),
        buffers: RESULT_BYTES * asked.n_ubatch * (n_vocab + N_RESULTS * n_embd),
    };
    match (asked.n_ctx, asked.fits_context) {
        (None, true) => needs.with_chosen_context(n_train, host(has_devices)),
        _ => needs,
    }
}

/// What llama.cpp takes for the memory of the machine when it chooses a context: with devices it goes by theirs, and
/// down to the least.
fn host(has_devices: bool) -> u64 {
    let (mut free, mut total) = (0, 0);
    // SAFETY: there is always a processor, and both places are written to.
    unsafe {
        let processor = ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU);
        if !processor.is_null() && !has_devices {
            ggml_backend_dev_memory(processor, &mut free, &mut total);
        }
    }
    total as u64
}

/// The number that the metadata has for what is called so after the architecture.
///
/// # Safety
///
/// As above.
unsafe fn number(model: *const llama_model, what: &str) -> Option<u64> {
    // SAFETY: the caller promises the model.
    let title = unsafe { title_of_model(model) };
    let key = CString::new(format!("{}.{what}", title.architecture?)).ok()?;
    // SAFETY: the same.
    unsafe { metadata(model, &key) }?.parse().ok()
}

/// What GPUs have free. Those that share the memory of the host are no memory besides.
fn device_memory() -> u64 {
    if cfg!(target_os = "macos") {
        return 0;
    }
    let gpus = device_list::all().filter(|device| device.is_gpu());
    gpus.map(|gpu| gpu.memory().0).sum()
}
