//! What policies would have done with a recorded trace.

use super::pointers::str_in;
use super::sized::{Grows, StructPlace};
use super::status::{Status, guard};
use crate::replay::{belady, replay};
use crate::residency::Counts;
use crate::trace::Trace;
use std::ffi::c_char;
use std::mem::offset_of;
use std::path::Path;

/// Mirrors `struct hotset_tally`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct HotsetTally {
    pub(super) hits: u64,
    pub(super) misses: u64,
    pub(super) evictions: u64,
}

impl From<Counts> for HotsetTally {
    fn from(counts: Counts) -> Self {
        let (decode, prefill) = (counts.decode, counts.prefill);
        Self {
            hits: decode.hits + prefill.hits,
            misses: decode.misses + prefill.misses,
            evictions: decode.evictions + prefill.evictions,
        }
    }
}

/// Mirrors `struct hotset_replay_result`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct HotsetReplayResult {
    pub(super) size: usize,
    pub(super) n_tokens: u64,
    pub(super) n_experts: u64,
    pub(super) policy: HotsetTally,
    pub(super) lru: HotsetTally,
    pub(super) belady: HotsetTally,
}

// SAFETY: it is `repr(C)` and begins with its size; 0 is a value of each of its numbers.
unsafe impl Grows for HotsetReplayResult {
    const NAME: &'static str = "hotset_replay_result";
    const SIZE_MIN: usize = offset_of!(Self, n_experts);
}

/// `hotset_trace_replay`.
///
/// # Safety
///
/// `path` and `policy` must satisfy the header; `result_out` must be NULL or do so: its size is set, and there is place
/// for so many bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hotset_trace_replay(
    path: *const c_char,
    policy: *const c_char,
    n_slots: u32,
    n_tokens_max: u32,
    result_out: *mut HotsetReplayResult,
) -> Status {
    guard(|| {
        // SAFETY: passed on from our caller.
        let out = unsafe { StructPlace::new(result_out, "result_out") }?;
        // SAFETY: passed on from our caller.
        let path = unsafe { str_in(path, "path") }?;
        // SAFETY: likewise.
        let policy = unsafe { str_in(policy, "policy") }?;
        crate::policy::find(policy)?;
        let trace = Trace::open(Path::new(path), n_tokens_max)?;
        let shape = trace.header().shape();
        let n_slots = n_slots.min(shape.n_total() as u32);
        let events = || trace.events().map(|(_, event)| event);
        out.write(&HotsetReplayResult {
            size: size_of::<HotsetReplayResult>(),
            n_tokens: trace.n_tokens().into(),
            n_experts: shape.n_total() as u64,
            policy: replay(events(), &shape, n_slots, policy)?.into(),
            lru: replay(events(), &shape, n_slots, "lru")?.into(),
            belady: belady(events(), &shape, n_slots)?.into(),
        });
        Ok(())
    })
}
