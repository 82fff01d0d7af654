//! A cache: made, planned with, resized.

use super::{Hotset, Status, guard, out, params_in, slice_in, slice_out, str_in, write_all};
use crate::cache::Cache;
use crate::error::Error;
use std::ffi::c_char;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Mirrors `struct hotset_fill`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct HotsetFill {
    pub(super) expert: u32,
    pub(super) slot: u32,
}

/// Mirrors `struct hotset_params`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct HotsetParams {
    size: usize,
    n_experts: *const u32,
    expert_bytes: *const u64,
    n_layers: u32,
    n_slots: u32,
    policy: *const c_char,
}

/// `hotset_init`.
///
/// # Safety
///
/// `n_experts` and `policy` must satisfy the header.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hotset_init(
    n_experts: *const u32,
    n_layers: u32,
    n_slots: u32,
    policy: *const c_char,
) -> Option<Box<Hotset>> {
    let params = HotsetParams {
        size: size_of::<HotsetParams>(),
        n_experts,
        expert_bytes: std::ptr::null(),
        n_layers,
        n_slots,
        policy,
    };
    // SAFETY: passed on from our caller.
    unsafe { hotset_init_params(&params) }
}

/// `hotset_init_params`.
///
/// # Safety
///
/// `params` must be NULL or satisfy the header, and so must the arrays it points to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hotset_init_params(params: *const HotsetParams) -> Option<Box<Hotset>> {
    let mut made = None;
    guard(|| {
        // SAFETY: passed on from our caller, and `size` is the first member.
        let params = unsafe { params_in(params) }?;
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
        let cache = Cache::new(n_experts, expert_bytes, params.n_slots, policy)?;
        made = Some(Box::new(Hotset { cache }));
        Ok(())
    });
    made
}

/// `hotset_free`. NULL is allowed.
#[unsafe(no_mangle)]
pub extern "C" fn hotset_free(cache: Option<Box<Hotset>>) {
    let _ = catch_unwind(AssertUnwindSafe(|| drop(cache)));
}

/// `hotset_prime`.
///
/// # Safety
///
/// `frequencies` must satisfy the header: `n_frequencies` readable values for the length of the call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hotset_prime(
    cache: Option<&mut Hotset>, // NULL is None: nullability is in the type
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

/// `hotset_plan`.
///
/// # Safety
///
/// The arrays must satisfy the header: `n_ids` readable or writable values for the length of the
/// call.
#[unsafe(no_mangle)]
#[allow(clippy::too_many_arguments)] // the ABI's shape
pub unsafe extern "C" fn hotset_plan(
    cache: Option<&mut Hotset>,
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
        let n_fills_out = unsafe { out(n_fills_out, "n_fills_out") }?;
        // SAFETY: passed on from our caller, see the contract above.
        let ids = unsafe { slice_in(ids, n_ids, "ids") }?;
        // SAFETY: likewise.
        let slots = unsafe { slice_out(slots_out, n_ids, "slots_out") }?;
        // SAFETY: likewise.
        let fills_out = unsafe { slice_out(fills_out, n_ids, "fills_out") }?;
        let put = |i: usize, slot| {
            slots[i].write(slot);
        };
        let fills = cache.cache.plan_with(layer, n_tokens, ids, put)?;
        for (out, fill) in fills_out.iter_mut().zip(fills) {
            out.write(HotsetFill {
                expert: fill.expert,
                slot: fill.slot,
            });
        }
        n_fills_out.write(fills.len());
        Ok(())
    })
}

/// `hotset_commit`.
#[unsafe(no_mangle)]
pub extern "C" fn hotset_commit(cache: Option<&mut Hotset>) -> Status {
    guard(|| {
        let cache = cache.ok_or(Error::Null("cache"))?;
        cache.cache.commit().then_some(()).ok_or(Error::NoPlan)
    })
}

/// `hotset_rollback`.
#[unsafe(no_mangle)]
pub extern "C" fn hotset_rollback(cache: Option<&mut Hotset>) -> Status {
    guard(|| {
        let cache = cache.ok_or(Error::Null("cache"))?;
        cache.cache.rollback().then_some(()).ok_or(Error::NoPlan)
    })
}

/// `hotset_resize`.
///
/// # Safety
///
/// `retired_out` must satisfy the header: as many writable values as there are slots too many.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hotset_resize(
    cache: Option<&mut Hotset>,
    n_slots: u32,
    retired_out: *mut u32,
    n_retired_out: *mut usize,
) -> Status {
    guard(|| {
        let cache = &mut cache.ok_or(Error::Null("cache"))?.cache;
        // SAFETY: passed on from our caller.
        let n_retired_out = unsafe { out(n_retired_out, "n_retired_out") }?;
        let n_retired = cache.n_slots().saturating_sub(n_slots) as usize;
        // SAFETY: passed on from our caller, see the contract above.
        let retired_out = unsafe { slice_out(retired_out, n_retired, "retired_out") }?;
        let retired = cache.resize(n_slots)?;
        write_all(retired_out, &retired);
        n_retired_out.write(n_retired);
        Ok(())
    })
}
