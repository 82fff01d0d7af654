//! What is said where a choice of where experts go has no effect, because they are streamed.

use super::sys::{
    GGML_BACKEND_DEVICE_TYPE_CPU, ggml_backend_buffer_type_t, ggml_backend_buft_get_device,
    ggml_backend_dev_type,
};
use crate::config::Choices;
use crate::report;
use crate::sync::lock_soon;
use std::cell::Cell;
#[cfg(feature = "llama")]
use std::ffi::{CString, c_char};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

static CHOSEN: Mutex<Option<Choices>> = Mutex::new(None);

/// Whether an expert that is streamed would be on a device if it were not.
static IS_UNMOVED: AtomicBool = AtomicBool::new(false);

/// Whether an override of tensors is of one that is streamed.
static IS_NAMED: AtomicBool = AtomicBool::new(false);

/// What the model that is about to be loaded is overridden by.
#[cfg(feature = "llama")]
static PATTERNS: Mutex<Vec<CString>> = Mutex::new(Vec::new());

thread_local! {
    /// Whether what this thread loads is only measured, as if nothing were streamed.
    static IS_ASIDE: Cell<bool> = const { Cell::new(false) };
}

/// From now on it is said if these have no effect.
#[cfg(feature = "llama")]
pub fn watch(choices: Choices) {
    *CHOSEN.lock().expect(WHY) = Some(choices);
}

/// Nothing more is said of these: enough has been.
#[cfg(feature = "llama")]
pub fn hush() {
    CHOSEN.lock().expect(WHY).take();
}

/// Measures in this thread, with llama.cpp as it is without streaming.
#[cfg(feature = "llama")]
pub fn aside<T>(measure: impl FnOnce() -> T) -> T {
    IS_ASIDE.set(true);
    let measured = measure();
    IS_ASIDE.set(false);
    measured
}

/// Whether this thread measures.
pub fn is_aside() -> bool {
    IS_ASIDE.get()
}

/// The next model is loaded with overrides of these patterns.
#[cfg(feature = "llama")]
pub fn watch_tensors(patterns: Vec<CString>) {
    *PATTERNS.lock().expect(WHY) = patterns;
    IS_NAMED.store(false, Relaxed);
}

/// The tensor `name` of experts is streamed, which llama.cpp would have put into `stock`.
///
/// # Safety
///
/// NULL or a type of buffers of llama.cpp's.
pub unsafe fn note_streamed(name: &str, stock: ggml_backend_buffer_type_t) {
    if stock.is_null() {
        return;
    }
    // SAFETY: the caller says so; it may have no device.
    let is_elsewhere = unsafe {
        let device = ggml_backend_buft_get_device(stock);
        !device.is_null() && ggml_backend_dev_type(device) != GGML_BACKEND_DEVICE_TYPE_CPU
    };
    IS_UNMOVED.fetch_or(is_elsewhere, Relaxed);
    if !IS_NAMED.load(Relaxed) {
        IS_NAMED.store(is_overridden(name), Relaxed);
    }
}

/// Whether a tensor is one that an override names.
#[cfg(feature = "llama")]
fn is_overridden(name: &str) -> bool {
    unsafe extern "C" {
        fn hotset_fit_names(pattern: *const c_char, tensor: *const c_char) -> bool;
    }
    let name = CString::new(name).unwrap_or_default();
    let patterns = PATTERNS.lock().expect(WHY);
    // SAFETY: two C strings.
    let names = |pattern: &CString| unsafe { hotset_fit_names(pattern.as_ptr(), name.as_ptr()) };
    patterns.iter().any(names)
}

/// Nobody tells of overrides.
#[cfg(not(feature = "llama"))]
fn is_overridden(_: &str) -> bool {
    false
}

/// A model is loaded: says, once, which choices had no effect on its experts.
pub fn say_unmoved() {
    if !IS_UNMOVED.swap(false, Relaxed) {
        return;
    }
    let Some(mut chosen) = lock_soon(&CHOSEN) else {
        return;
    };
    let Some(choices) = chosen.as_ref() else {
        return;
    };
    let is_named = IS_NAMED.load(Relaxed);
    let is_meant = |option: &&String| is_named || Some(*option) != choices.of_tensors.as_ref();
    let options: Vec<_> = choices
        .of_experts
        .iter()
        .filter(is_meant)
        .cloned()
        .collect();
    if !options.is_empty() {
        report::say(&report::unmoved_line(&options.join(" ")));
        *chosen = None;
    }
}

#[cfg(feature = "llama")]
const WHY: &str = "no thread panics with it";
