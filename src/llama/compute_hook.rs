//! The callbacks of computing with experts.
//!
//! # Safety
//!
//! llama.cpp calls them, as `ggml-expert-hook.h` says.

#![allow(clippy::missing_safety_doc)]

use super::batch::BATCH;
use super::bound::{BOUND, Bound};
use super::fatal::fatal;
use super::picks::picks;
use super::sys::{GGML_TYPE_F32, ggml_tensor};
use super::{device, ending, observer};
use crate::engine::{Inputs, Routing};
use std::ffi::{c_int, c_void};
use std::sync::Arc;

pub unsafe extern "C" fn find(_: *mut c_void, weights: *const ggml_tensor) -> *mut c_void {
    let table = BOUND.load();
    match table.binary_search_by_key(&(weights as usize), |(address, _)| *address) {
        // The table of a loaded model keeps this alive until `unbind`, when no graph uses it.
        Ok(at) => Arc::as_ptr(&table[at].1) as *mut c_void,
        Err(_) => std::ptr::null_mut(),
    }
}

pub unsafe extern "C" fn route(
    bound: *mut c_void,
    lane: *const c_void,
    n_threads: c_int,
    op: *const ggml_tensor,
    n_rows: *const i64,
) {
    // SAFETY: `find` returned it for a tensor that is in use, so its model is loaded.
    let bound = unsafe { &*bound.cast::<Bound>() };
    let result = bound.model.engine().and_then(|engine| {
        let n_experts = engine.layout().layers[bound.layer].n_experts as usize;
        // SAFETY: one count per expert, written by this thread just before.
        let n_rows = unsafe { std::slice::from_raw_parts(n_rows, n_experts) };
        // SAFETY: an operation with weights, inputs and ids, which llama.cpp has just counted.
        let (picks, inputs) = unsafe {
            let sources = &(*op).src;
            (picks(&*sources[2]), inputs(&*sources[1]))
        };
        BATCH.with_borrow(|batch| {
            let routing = Routing {
                picks,
                n_rows,
                batch,
                inputs,
            };
            let (lane, n_threads) = (lane as usize, n_threads as u32);
            let begins = engine.route(bound.layer, bound.part, lane, n_threads, &routing)?;
            if begins && !batch.is_trial() {
                device::learn_uncached(bound.layer, picks, &[], batch)?;
            }
            Ok(())
        })
    });
    if let Err(error) = result {
        fatal(&error);
    }
}

/// What the router saw of each token, if the operation reads the same.
///
/// # Safety
///
/// `tensor` is the input of an operation that is being computed.
unsafe fn inputs(tensor: &ggml_tensor) -> Inputs<'_> {
    const BYTES: usize = size_of::<f32>();
    let [width, n_each, n_tokens] = [0, 1, 2].map(|i| tensor.ne[i] as usize);
    // The last operation of a layer has an input for each expert of a token.
    let is_plain = tensor.type_ == GGML_TYPE_F32 && tensor.nb[0] == BYTES && n_each == 1;
    if !is_plain || !tensor.nb[2].is_multiple_of(BYTES) {
        return Inputs::default();
    }
    // Of many tokens a few are enough.
    let step = match n_tokens > Inputs::N_MAX {
        true => n_tokens
            .div_ceil(Inputs::N_SAMPLED)
            .max(Inputs::SAMPLED_STEP),
        false => 1,
    };
    let stride = tensor.nb[2] / BYTES * step;
    let n = (n_tokens - 1) / step * stride + width;
    // SAFETY: the operation before has written it to memory.
    let values = unsafe { std::slice::from_raw_parts(tensor.data.cast::<f32>(), n) };
    Inputs::new(values, width, stride)
}

pub unsafe extern "C" fn acquire(
    bound: *mut c_void,
    lane: *const c_void,
    ith: c_int,
    i: c_int,
    expert: *mut c_int,
) -> *const c_void {
    // SAFETY: as in `route`.
    let bound = unsafe { &*bound.cast::<Bound>() };
    let engine = bound.model.engine();
    match engine.and_then(|e| e.acquire(bound.layer, lane as usize, ith as u32, i as usize)) {
        Ok(Some((id, address))) => {
            // SAFETY: the caller passes a place for the id.
            unsafe { *expert = id as c_int };
            address as *const c_void
        }
        Ok(None) => std::ptr::null(),
        Err(error) => fatal(&error),
    }
}

pub unsafe extern "C" fn observe(
    _: *mut c_void,
    weights: *const ggml_tensor,
    ids: *const ggml_tensor,
) {
    BATCH.with_borrow(|batch| {
        if batch.is_trial() {
            return;
        }
        // SAFETY: the ids of an operation on the weights, in memory.
        let seen = unsafe { observer::record(weights as usize, &*ids, batch) };
        let heard = seen.map(|(layer, picks)| device::learn_uncached(layer, picks, &[], batch));
        if let Some(Err(error)) = heard {
            fatal(&error);
        }
    });
}

pub unsafe extern "C" fn buffer(_: *mut c_void, address: *const c_void, n_bytes: usize) {
    crate::memory::note_buffer(address as usize, n_bytes);
}

pub unsafe extern "C" fn ends(_: *mut c_void) {
    ending::finish();
}
