//! The callbacks that say what the calling thread computes.

use super::batch::{BATCH, N_BEGUN};
use super::bound::each_model;
use super::{device, device_hook, ending, observer, requests};
use crate::engine::{Batch, Token};
use std::ffi::c_void;
use std::sync::atomic::Ordering::Relaxed;

pub unsafe extern "C" fn batch(
    _: *mut c_void,
    memory: *const c_void,
    n_tokens: u32,
    id: *const i32,
    pos: *const i32,
    seq_id: *const *mut i32,
    output: *const i8,
) {
    let token = |i| {
        // SAFETY: there are so many tokens, and each is in one sequence at least.
        let (pos, seq, output) = unsafe { (*pos.add(i), **seq_id.add(i), *output.add(i)) };
        let is_output = output != 0;
        Token {
            seq,
            pos,
            is_output,
        }
    };
    let tokens = (0..n_tokens as usize).map(token);
    BATCH.with_borrow_mut(|batch| {
        batch.begin(memory as usize, tokens);
        // Embeddings may be computed instead of tokens.
        if !id.is_null() {
            // SAFETY: as above.
            batch.name((0..n_tokens as usize).map(|i| unsafe { *id.add(i) }));
        }
    });
    if requests::are_counted() && !BATCH.with_borrow(Batch::is_trial) {
        // SAFETY: as above.
        requests::begin((0..n_tokens as usize).map(|i| unsafe { **seq_id.add(i) }));
    }
    BATCH.with_borrow(|batch| each_model(|model| model.begin_batch(batch)));
    device_hook::begin_batch();
    N_BEGUN.fetch_add(1, Relaxed);
    ending::chain();
}

pub unsafe extern "C" fn trim(
    _: *mut c_void,
    memory: *const c_void,
    seq: i32,
    begin: i32,
    end: i32,
) {
    if BATCH.with_borrow(Batch::is_trial) {
        return;
    }
    each_model(|model| model.drop_tokens(memory as usize, seq, begin, end));
    observer::drop_tokens(memory as usize, seq, begin, end);
    for cached in device::all() {
        cached.drop_tokens(memory as usize, seq, begin, end);
    }
}

pub unsafe extern "C" fn probe(_: *mut c_void, is_on: bool) {
    BATCH.with_borrow_mut(|batch| batch.set_trial(is_on));
}
