//! The callbacks behind the part of the hook that is about devices.
//!
//! # Safety
//!
//! llama.cpp calls them, as `ggml-expert-hook.h` says.

#![allow(clippy::missing_safety_doc)]

use super::batch::BATCH;
use super::fatal::fatal;
use super::loaded::loaded_models;
use super::sys::{ggml_backend, ggml_tensor};
use super::{copies, device, ending, reports, unmoved};
use crate::report;
use std::ffi::{CStr, c_char, c_void};
use std::sync::Arc;

/// This thread begins a batch.
pub fn begin_batch() {
    device::begin_batch();
    if let Err(error) = copies::end() {
        fatal(&error);
    }
}

pub unsafe extern "C" fn cached(
    _: *mut c_void,
    cache: *const c_void,
    model: *const c_void,
    backend: *mut ggml_backend,
    layer: i32,
    n_slots: i32,
    slots: *mut ggml_tensor,
    weights: *const *mut ggml_tensor,
    banks: *const *mut ggml_tensor,
    n_weights: usize,
) -> *mut c_void {
    let Some(cached) = loaded_models().cached(cache as usize, model as usize) else {
        return std::ptr::null_mut();
    };
    let tensors = |first: *const *mut ggml_tensor| -> &[*mut ggml_tensor] {
        match n_weights {
            0 => &[],
            // SAFETY: there are so many, for the length of the call.
            n => unsafe { std::slice::from_raw_parts(first, n) },
        }
    };
    // SAFETY: NULL or a tensor of 32-bit numbers in memory, one for each expert.
    let slots =
        unsafe { slots.as_ref() }.map(|slots| (slots.data.cast::<i32>(), slots.ne[1] as u32));
    let is_ours = cached.tell(device::Telling {
        backend,
        block: layer as u32,
        n_slots: n_slots as u32,
        slots,
        weights: tensors(weights).iter().map(|w| w.cast_const()).collect(),
        banks: tensors(banks).to_vec(),
    });
    match is_ours {
        // It is kept until `close`, after which llama.cpp plans nothing.
        true => Arc::as_ptr(&cached) as *mut c_void,
        false => std::ptr::null_mut(),
    }
}

pub unsafe extern "C" fn plan(cached: *mut c_void, layer: i32, ids: *const i32, n_ids: usize) {
    // SAFETY: `cached` returned it for a cache that is not closed; there are so many ids.
    let (cached, ids) = unsafe {
        let cached = &*cached.cast::<device::Cached>();
        (cached, std::slice::from_raw_parts(ids, n_ids))
    };
    if let Err(error) = BATCH.with_borrow(|batch| cached.plan(layer as u32, ids, batch)) {
        fatal(&error);
    }
}

pub unsafe extern "C" fn use_(_: *mut c_void, cache: *const c_void) -> bool {
    let Some(cached) = device::find(cache as usize) else {
        return true;
    };
    BATCH.with_borrow_mut(|batch| {
        if batch.is_trial() {
            return false;
        }
        let is_used = cached.make().and_then(|()| cached.is_used(batch));
        let is_used = is_used.unwrap_or_else(|error| fatal(&error));
        if !is_used {
            batch.set_aside();
        }
        is_used
    })
}

pub unsafe extern "C" fn close(_: *mut c_void, cache: *const c_void) {
    if let Some(cached) = device::find(cache as usize) {
        if let Err(error) = cached.end() {
            fatal(&error);
        }
        ending::apart(|| reports::close(&cached));
    }
}

pub unsafe extern "C" fn copy(
    _: *mut c_void,
    backend: *mut ggml_backend,
    weights: *const ggml_tensor,
    op: *const ggml_tensor,
    ids: *const i32,
) -> bool {
    // SAFETY: passed on from llama.cpp.
    let copied =
        BATCH.with_borrow(|batch| unsafe { copies::copy(backend, weights, &*op, ids, batch) });
    copied.unwrap_or_else(|error| fatal(&error))
}

pub unsafe extern "C" fn uncached(
    _: *mut c_void,
    model: *const c_void,
    why: *const c_char,
) -> bool {
    if unmoved::is_aside() {
        return true;
    }
    // SAFETY: llama.cpp passes a C string.
    let why = unsafe { CStr::from_ptr(why) }.to_string_lossy();
    let mut loaded = loaded_models();
    let n_repacked = loaded.repacked(model as usize).len();
    // The only reason that it can have to do with.
    let why = match (why.ends_with("in host memory"), n_repacked) {
        // All of them are on devices: nothing is missing.
        (true, 0) => return true,
        (true, n) => format!("{why}, those of {n} are repacked for the processor (--no-repack)"),
        _ => why.into_owned(),
    };
    // llama.cpp makes contexts that only measure, for one reason after the other.
    if loaded.has_news(&why) {
        report::say(&format!("hotset: no experts are kept on a device: {why}"));
    }
    true
}
