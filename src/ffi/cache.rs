//! A cache: made, planned with, resized.

use super::memory;
use super::pointers::{Place, Places, construct, slice_in, str_in};
use super::sized::{Grows, struct_in};
use super::status::{Status, discard, guard};
use crate::cache::Cache;
use crate::error::Error;
use crate::recent_events::MODEL_BYTES;
use std::ffi::c_char;
use std::mem::offset_of;

/// `struct hotset_cache`: opaque to C.
pub struct HotsetCache {
    pub(super) cache: Cache,
}

const _: () = {
    const fn moves_between_threads<T: Send>() {}
    moves_between_threads::<HotsetCache>();
};

/// Mirrors `struct hotset_fill`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct HotsetFill {
    pub(super) expert: u32,
    pub(super) slot: u32,
}

/// Mirrors `struct hotset_cache_params`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct HotsetCacheParams {
    pub(super) size: usize,
    pub(super) n_experts: *const u32,
    pub(super) n_layers: u32,
    pub(super) n_slots: u32,
    pub(super) policy: *const c_char,
    pub(super) expert_bytes: *const u64,
}

// SAFETY: it is `repr(C)` and begins with its size; NULL and 0 are values of the others.
unsafe impl Grows for HotsetCacheParams {
    const NAME: &'static str = "hotset_cache_params";
    const SIZE_MIN: usize = offset_of!(Self, expert_bytes);
}

/// Bytes of a new cache for each expert, for each layer, and besides: twice what any policy took when it was measured, as
/// a cache grows while it is used. The latest events are the most of the rest.
const BYTES_EXPERT: u64 = 256;
const BYTES_LAYER: u64 = 1024;
const BYTES_REST: u64 = MODEL_BYTES as u64;
/// Plans of up to so many ids take what any process has.
const IDS_FEW: usize = 1 << 12;
/// Most bytes that a plan takes for each id.
const BYTES_ID: u64 = 64;

/// `hotset_cache_new`.
///
/// # Safety
///
/// `params` must be NULL or satisfy the header, and so must the arrays it points to; `cache_out` must be NULL or point to
/// a place for a pointer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hotset_cache_new(
    params: *const HotsetCacheParams,
    cache_out: *mut *mut HotsetCache,
) -> Status {
    let make = || {
        // SAFETY: passed on from our caller.
        let params = unsafe { struct_in(params, "params") }?;
        let n_layers = params.n_layers as usize;
        // SAFETY: passed on from our caller.
        let n_experts = unsafe { slice_in(params.n_experts, n_layers, "n_experts") }?;
        let expert_bytes = match params.expert_bytes.is_null() {
            true => None,
            // SAFETY: likewise.
            false => Some(unsafe { slice_in(params.expert_bytes, n_layers, "expert_bytes") }?),
        };
        // SAFETY: likewise.
        let policy = unsafe { str_in(params.policy, "policy") }?;
        let n_total = Cache::check_size(n_experts)?;
        let n_bytes =
            BYTES_EXPERT * n_total + BYTES_LAYER * u64::from(params.n_layers) + BYTES_REST;
        memory::check(n_bytes, || format!("a cache of {n_total} experts"))?;
        let cache = Cache::new(n_experts, expert_bytes, params.n_slots, policy)?;
        Ok(HotsetCache { cache })
    };
    // SAFETY: passed on from our caller.
    unsafe { construct(cache_out, "cache_out", make) }
}

/// `hotset_cache_delete`. NULL is allowed.
#[unsafe(no_mangle)]
pub extern "C" fn hotset_cache_delete(cache: Option<Box<HotsetCache>>) {
    discard(cache);
}

/// `hotset_cache_prime`.
///
/// # Safety
///
/// `frequencies` must satisfy the header: `n_frequencies` readable values for the length of the call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hotset_cache_prime(
    cache: Option<&mut HotsetCache>, // NULL is None: nullability is in the type
    frequencies: *const f32,
    n_frequencies: usize,
    n_tokens: f32,
) -> Status {
    guard(|| {
        let cache = cache.ok_or(Error::Null("cache"))?;
        // SAFETY: passed on from our caller, see the contract above.
        let frequencies = unsafe { slice_in(frequencies, n_frequencies, "frequencies") }?;
        cache.cache.prime(frequencies, n_tokens)
    })
}

/// `hotset_cache_plan`.
///
/// # Safety
///
/// The arrays must satisfy the header: `n_ids` readable or writable values for the length of the
/// call.
#[unsafe(no_mangle)]
#[allow(clippy::too_many_arguments)] // the ABI's shape
pub unsafe extern "C" fn hotset_cache_plan(
    cache: Option<&mut HotsetCache>,
    layer: u32,
    n_tokens: u32,
    ids: *const i32,
    n_ids: usize,
    slots_out: *mut u32,
    fills_out: *mut HotsetFill,
    n_fills_out: *mut usize,
) -> Status {
    guard(|| {
        let cache = cache.ok_or(Error::Null("cache"))?;
        // SAFETY: passed on from our caller.
        let n_fills_out = unsafe { Place::new(n_fills_out, "n_fills_out") }?;
        // SAFETY: passed on from our caller, see the contract above.
        let ids = unsafe { slice_in(ids, n_ids, "ids") }?;
        // SAFETY: likewise.
        let slots = unsafe { Places::new(slots_out, n_ids, "slots_out") }?;
        // SAFETY: likewise.
        let fills_out = unsafe { Places::new(fills_out, n_ids, "fills_out") }?;
        if n_ids > IDS_FEW {
            memory::check(BYTES_ID * n_ids as u64, || format!("a plan of {n_ids} ids"))?;
        }
        let put = |i, slot| slots.write(i, slot);
        let fills = cache.cache.plan_with(layer, n_tokens, ids, put)?;
        fills_out.write_all(fills.iter().map(|fill| HotsetFill {
            expert: fill.expert,
            slot: fill.slot,
        }));
        n_fills_out.write(fills.len());
        Ok(())
    })
}

/// `hotset_cache_commit`.
#[unsafe(no_mangle)]
pub extern "C" fn hotset_cache_commit(cache: Option<&mut HotsetCache>) -> Status {
    guard(|| {
        let cache = cache.ok_or(Error::Null("cache"))?;
        cache.cache.commit().then_some(()).ok_or(Error::NoPlan)
    })
}

/// `hotset_cache_rollback`.
#[unsafe(no_mangle)]
pub extern "C" fn hotset_cache_rollback(cache: Option<&mut HotsetCache>) -> Status {
    guard(|| {
        let cache = cache.ok_or(Error::Null("cache"))?;
        cache.cache.rollback().then_some(()).ok_or(Error::NoPlan)
    })
}

/// `hotset_cache_resize`.
///
/// # Safety
///
/// `retired_out` must satisfy the header: as many writable values as there are slots too many.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hotset_cache_resize(
    cache: Option<&mut HotsetCache>,
    n_slots: u32,
    retired_out: *mut u32,
    n_retired_out: *mut usize,
) -> Status {
    guard(|| {
        let cache = &mut cache.ok_or(Error::Null("cache"))?.cache;
        // SAFETY: passed on from our caller.
        let n_retired_out = unsafe { Place::new(n_retired_out, "n_retired_out") }?;
        let n_retired = cache.n_slots().saturating_sub(n_slots) as usize;
        // SAFETY: passed on from our caller, see the contract above.
        let retired_out = unsafe { Places::new(retired_out, n_retired, "retired_out") }?;
        let retired = cache.resize(n_slots)?;
        assert_eq!(retired.len(), retired_out.len());
        retired_out.write_all(retired);
        n_retired_out.write(n_retired);
        Ok(())
    })
}
