//! The callbacks of loading and freeing a model.
//!
//! # Safety
//!
//! llama.cpp calls them, as `ggml-expert-hook.h` says.

#![allow(clippy::missing_safety_doc)]

use super::ending;
use super::loaded::loaded_models;
use super::loading;
use super::repack::{Streamed, is_of_processor};
use super::reports;
use super::sys::{
    ggml_backend_buffer_get_type, ggml_backend_buffer_is_host, ggml_backend_buffer_type_t,
    ggml_tensor, llama_model,
};
use super::title::title_of_model;
use super::unmoved;
use super::whole;
use crate::engine::layout::Tensor;
use crate::gguf::expert_part;
use std::ffi::{CStr, CString, c_char, c_int, c_void};

/// # Safety
///
/// `weights` is NULL or a tensor.
unsafe fn name_of<'a>(weights: *const ggml_tensor) -> Option<&'a str> {
    // SAFETY: a tensor's name is NUL-terminated and lives as long as the tensor.
    unsafe { weights.as_ref().map(|t| CStr::from_ptr(t.name.as_ptr())) }?
        .to_str()
        .ok()
}

pub unsafe extern "C" fn wants(
    _: *mut c_void,
    weights: *const ggml_tensor,
    model: *const c_void,
) -> bool {
    if unmoved::is_aside() {
        return false;
    }
    // SAFETY: llama.cpp passes NULL or a tensor.
    let is_expert = || unsafe { name_of(weights) }.is_some_and(|n| expert_part(n).is_some());
    // SAFETY: the same.
    match unsafe { weights.as_ref() } {
        None => {
            // SAFETY: with no tensor llama.cpp passes the model, whose metadata is loaded.
            let fit = |asked: &_| unsafe { whole::fit_of(model.cast(), asked) };
            loaded_models().begin(fit)
        }
        Some(tensor) => is_expert() && loaded_models().wants(tensor.nb[2] as u64),
    }
}

pub unsafe extern "C" fn bind(
    _: *mut c_void,
    model: *const c_void,
    weights: *mut ggml_tensor,
    fd: c_int,
    offset: u64,
    stock: ggml_backend_buffer_type_t,
) {
    let mut loaded = loaded_models();
    let loading = loaded.loading(model as usize);
    // SAFETY: llama.cpp passes a tensor.
    let (name, tensor) = unsafe { (name_of(weights), &*weights) };
    let Some(name) = name else { return };
    // SAFETY: a loaded tensor has a buffer.
    let is_in_host = unsafe { ggml_backend_buffer_is_host(tensor.buffer) };
    if fd < 0 && is_in_host {
        let begin = tensor.data as usize;
        let n_bytes = tensor.ne[3] as usize * tensor.nb[3];
        loading.in_host.push(begin..begin + n_bytes);
    }
    let Some((block, _)) = expert_part(name) else {
        loading.routers.note(name, tensor);
        return;
    };
    loading.blocks.insert(block, tensor.ne[2] as u32);
    if fd < 0 && !is_in_host {
        // SAFETY: the same.
        if unsafe { is_of_processor(ggml_backend_buffer_get_type(tensor.buffer)) } {
            loading.repacked.insert(block);
        }
        return;
    }
    let tensor = Tensor {
        name: name.to_string(),
        block,
        n_experts: tensor.ne[2] as u32,
        n_bytes: tensor.nb[2],
        file: 0,
        offset,
        stride: tensor.nb[2] as u64,
    };
    if fd < 0 {
        loading.add_resident(weights as usize, tensor);
    } else {
        // SAFETY: where llama.cpp would have it.
        unsafe { unmoved::note_streamed(name, stock) };
        loading.add_streamed(Streamed { weights, stock }, tensor, fd);
    }
}

pub unsafe extern "C" fn ready(_: *mut c_void, model: *const c_void, top_k: u32) -> *const c_char {
    // SAFETY: llama.cpp passes the model that it is loading, after its metadata.
    let title = unsafe { title_of_model(model.cast::<llama_model>()) };
    // SAFETY: the same.
    unsafe {
        loaded_models()
            .loading(model as usize)
            .routers
            .note_rules(model.cast())
    };
    // The others have something to lose while this one is made.
    ending::chain();
    let started = loaded_models().start(model as usize, title, top_k);
    ending::chain();
    loading::note_end(&started);
    unmoved::say_unmoved();
    whole::place(None);
    match started {
        Ok(()) => std::ptr::null(),
        Err(error) => {
            // llama.cpp prints the text through its own log; it is leaked, once for a failed load.
            CString::new(format!("hotset: {error}"))
                .unwrap_or_default()
                .into_raw()
        }
    }
}

pub unsafe extern "C" fn unbind(_: *mut c_void, model: *const c_void) {
    let model = model as usize;
    ending::apart(|| reports::stop(model));
}

pub unsafe extern "C" fn warmup(_: *mut c_void, model: *const c_void) -> bool {
    // It would read the whole model for nothing, and what nobody asked for would be learnt and recorded.
    !loaded_models().is_known(model as usize)
}
