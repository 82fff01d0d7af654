//! What a model says of itself.

use super::sys::{llama_model, llama_model_meta_val_str};
use std::ffi::{CStr, c_char};

/// What a model says of itself.
#[derive(Clone, Default, PartialEq)]
pub struct Title {
    /// What it is called.
    pub name: Option<String>,
    /// Its architecture.
    pub architecture: Option<String>,
}

/// What a model says of itself.
///
/// # Safety
///
/// `model` is a model of which at least the metadata is loaded.
pub unsafe fn title_of_model(model: *const llama_model) -> Title {
    // SAFETY: the caller promises the model.
    let value = |key| unsafe { metadata(model, key) };
    Title {
        name: value(c"general.name"),
        architecture: value(c"general.architecture"),
    }
}

/// What the metadata has for `key`, as text and no more than 255 bytes of it.
///
/// # Safety
///
/// As above.
pub unsafe fn metadata(model: *const llama_model, key: &CStr) -> Option<String> {
    let mut text = [0u8; 256];
    // SAFETY: the caller promises the model; the key is a C string, and the buffer has this size.
    let n = unsafe {
        llama_model_meta_val_str(
            model,
            key.as_ptr(),
            text.as_mut_ptr().cast::<c_char>(),
            text.len(),
        )
    };
    let n = usize::try_from(n).ok()?.min(text.len() - 1);
    Some(String::from_utf8_lossy(&text[..n]).into_owned())
}
