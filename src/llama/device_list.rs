//! The devices that this llama.cpp can compute on.

use super::sys::{
    GGML_BACKEND_DEVICE_TYPE_GPU, GGML_BACKEND_DEVICE_TYPE_IGPU, ggml_backend_dev_count,
    ggml_backend_dev_get, ggml_backend_dev_memory, ggml_backend_dev_t, ggml_backend_dev_type,
};
#[cfg(feature = "llama")]
use super::sys::{
    ggml_backend_dev_description, ggml_backend_dev_name, ggml_backend_load_all, ggml_log_level,
    llama_log_set,
};
#[cfg(feature = "llama")]
use crate::device::Gpu;
#[cfg(feature = "llama")]
use std::ffi::{CStr, c_char, c_void};

/// A device. They live as long as the process.
#[derive(Clone, Copy)]
pub(super) struct Device(ggml_backend_dev_t);

/// All of them.
pub(super) fn all() -> impl Iterator<Item = Device> {
    // SAFETY: these only look, and there is a device of each number.
    (0..unsafe { ggml_backend_dev_count() }).map(|i| Device(unsafe { ggml_backend_dev_get(i) }))
}

impl Device {
    /// # Safety
    ///
    /// A device of llama.cpp's.
    #[cfg(feature = "llama")]
    pub(super) unsafe fn new(device: ggml_backend_dev_t) -> Self {
        Self(device)
    }

    /// Whether it is a GPU with memory of its own.
    pub(super) fn is_gpu(self) -> bool {
        // SAFETY: a device has a type.
        unsafe { ggml_backend_dev_type(self.0) == GGML_BACKEND_DEVICE_TYPE_GPU }
    }

    /// Whether it is a GPU that has the memory of the machine.
    pub(super) fn is_integrated(self) -> bool {
        // SAFETY: a device has a type.
        unsafe { ggml_backend_dev_type(self.0) == GGML_BACKEND_DEVICE_TYPE_IGPU }
    }

    /// What of its memory is free, and all of it, in bytes; 0 if it does not say.
    pub(super) fn memory(self) -> (u64, u64) {
        let (mut free, mut total) = (0, 0);
        // SAFETY: both places are written to.
        unsafe { ggml_backend_dev_memory(self.0, &mut free, &mut total) };
        (free as u64, total as u64)
    }

    #[cfg(feature = "llama")]
    fn describe(self) -> Gpu {
        // SAFETY: names are C strings that live as long as the device.
        let [name, description] = unsafe {
            [
                CStr::from_ptr(ggml_backend_dev_name(self.0)),
                CStr::from_ptr(ggml_backend_dev_description(self.0)),
            ]
        }
        .map(|text| text.to_string_lossy().into_owned());
        let (free_bytes, memory_bytes) = self.memory();
        Gpu {
            name,
            description,
            memory_bytes,
            free_bytes,
            is_integrated: self.is_integrated(),
        }
    }
}

/// Says nothing of what llama.cpp tells.
#[cfg(feature = "llama")]
unsafe extern "C" fn quiet(_: ggml_log_level, _: *const c_char, _: *mut c_void) {}

/// All devices that are GPUs. What backends say while they look for theirs goes nowhere.
#[cfg(feature = "llama")]
pub fn gpus() -> Vec<Gpu> {
    // SAFETY: a function that does nothing; and backends are loaded once, whoever asks for it.
    unsafe {
        llama_log_set(Some(quiet), std::ptr::null_mut());
        ggml_backend_load_all();
    }
    let gpus = all().filter(|device| device.is_gpu() || device.is_integrated());
    gpus.map(Device::describe).collect()
}
