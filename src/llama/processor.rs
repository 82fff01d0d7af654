//! llama.cpp's code for the processor, which may be in a library that was loaded when the program started: its functions
//! are asked for by name.

use super::sys::{
    GGML_BACKEND_DEVICE_TYPE_CPU, ggml_backend_dev_backend_reg, ggml_backend_dev_by_type,
    ggml_backend_dev_init, ggml_backend_dev_t, ggml_backend_reg_get_proc_address, ggml_backend_t,
};
use std::ffi::{CStr, c_int, c_void};
use std::mem::transmute;

type SetNThreads = unsafe extern "C" fn(ggml_backend_t, c_int);
type IsNuma = unsafe extern "C" fn() -> bool;

/// Whether upstream spreads its memory and threads over NUMA nodes.
pub fn is_numa() -> bool {
    // SAFETY: as upstream declares it.
    let ask: Option<IsNuma> = unsafe { transmute(function(c"ggml_backend_cpu_is_numa")) };
    // SAFETY: this only looks.
    ask.is_some_and(|is_numa| unsafe { is_numa() })
}

/// What computes with one thread. Who gets it frees it.
pub fn with_one_thread() -> Option<ggml_backend_t> {
    // SAFETY: as upstream declares it.
    let set: Option<SetNThreads> = unsafe { transmute(function(c"ggml_backend_set_n_threads")) };
    // SAFETY: a device needs no parameters.
    let backend = unsafe { ggml_backend_dev_init(device()?, std::ptr::null()) };
    if backend.is_null() {
        return None;
    }
    if let Some(set) = set {
        // SAFETY: it is the processor's.
        unsafe { set(backend, 1) };
    }
    Some(backend)
}

fn device() -> Option<ggml_backend_dev_t> {
    // SAFETY: this only looks.
    let device = unsafe { ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU) };
    (!device.is_null()).then_some(device)
}

/// The address of a function, or null.
fn function(name: &CStr) -> *mut c_void {
    let Some(device) = device() else {
        return std::ptr::null_mut();
    };
    // SAFETY: a device that there is, which has a registry.
    unsafe {
        let registry = ggml_backend_dev_backend_reg(device);
        ggml_backend_reg_get_proc_address(registry, name.as_ptr())
    }
}
