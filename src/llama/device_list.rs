//! The devices that this llama.cpp can compute on, besides the processor.

use super::sys::{
    GGML_BACKEND_DEVICE_TYPE_GPU, GGML_BACKEND_DEVICE_TYPE_IGPU, ggml_backend_dev_count,
    ggml_backend_dev_description, ggml_backend_dev_get, ggml_backend_dev_memory,
    ggml_backend_dev_name, ggml_backend_dev_type, ggml_backend_load_all, ggml_log_level,
    llama_log_set,
};
use std::ffi::{CStr, c_char, c_void};

/// A device.
#[derive(Debug, Clone)]
pub struct Gpu {
    /// As `--device` takes it.
    pub name: String,
    /// What it calls itself.
    pub description: String,
    /// Its memory; 0 if it does not say.
    pub memory_bytes: u64,
    /// What of it is free.
    pub free_bytes: u64,
    /// Whether its memory is the machine's.
    pub is_integrated: bool,
}

/// Says nothing of what llama.cpp tells.
unsafe extern "C" fn quiet(_: ggml_log_level, _: *const c_char, _: *mut c_void) {}

/// All devices that are GPUs. What backends say while they look for theirs goes nowhere.
pub fn gpus() -> Vec<Gpu> {
    // SAFETY: a function that does nothing; devices live as long as the process, and so do their names, which are C strings.
    unsafe {
        llama_log_set(Some(quiet), std::ptr::null_mut());
        ggml_backend_load_all();
        let mut gpus = Vec::new();
        for at in 0..ggml_backend_dev_count() {
            let device = ggml_backend_dev_get(at);
            let kind = ggml_backend_dev_type(device);
            if kind != GGML_BACKEND_DEVICE_TYPE_GPU && kind != GGML_BACKEND_DEVICE_TYPE_IGPU {
                continue;
            }
            let (mut free, mut total) = (0, 0);
            ggml_backend_dev_memory(device, &mut free, &mut total);
            let text = |text: *const c_char| CStr::from_ptr(text).to_string_lossy().into_owned();
            gpus.push(Gpu {
                name: text(ggml_backend_dev_name(device)),
                description: text(ggml_backend_dev_description(device)),
                memory_bytes: total as u64,
                free_bytes: free as u64,
                is_integrated: kind == GGML_BACKEND_DEVICE_TYPE_IGPU,
            });
        }
        gpus
    }
}
