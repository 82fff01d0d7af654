//! The C ABI declared in `include/hotset.h`.
#![allow(unsafe_code)]

use crate::cache::{Cache, NO_SLOT};
use crate::error::Error;
use crate::policy::REGISTRY;
use once_cell::sync::Lazy;
use std::cell::RefCell;
use std::ffi::{CStr, CString, c_char};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Mirrors `HOTSET_ABI_VERSION`.
const ABI_VERSION: u32 = 1;
const _: () = assert!(NO_SLOT == u32::MAX, "HOTSET_NO_SLOT is UINT32_MAX");

/// Mirrors `enum hotset_status`. Values are ABI: append only, never renumber.
#[repr(i32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// Success.
    Ok = 0,
    /// The caller broke a rule of the header.
    InvalidArgument = -1,
    /// A bug on our side.
    Panic = -2,
}

/// `struct hotset`: opaque to C.
pub struct Hotset {
    cache: Cache,
}

/// Mirrors `struct hotset_fill`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct HotsetFill {
    expert: u32,
    slot: u32,
}

/// Mirrors `struct hotset_counts`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct HotsetCounts {
    hits: u64,
    misses: u64,
    evictions: u64,
    bypassed: u64,
    prompt_hits: u64,
    prompt_misses: u64,
    prompt_bypassed: u64,
}

thread_local! {
    static LAST_ERROR: RefCell<CString> = RefCell::default();
}

fn remember(error: &str) {
    let text = CString::new(error.replace('\0', "")).unwrap_or_default();
    LAST_ERROR.with(|last| last.replace(text));
}

/// Runs one ABI call: errors and panics become a status, nothing unwinds into C.
fn guard(call: impl FnOnce() -> Result<(), Error>) -> Status {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(())) => Status::Ok,
        Ok(Err(error)) => {
            remember(&error.to_string());
            status(&error)
        }
        Err(_) => {
            remember("a bug in hotset, see the panic message on standard error");
            Status::Panic
        }
    }
}

/// The status of each error. Exhaustive on purpose: a new error must choose its status.
fn status(error: &Error) -> Status {
    match error {
        Error::Null(_)
        | Error::NoPlan
        | Error::ExpertOutOfRange { .. }
        | Error::LayerOutOfRange { .. }
        | Error::Event { .. }
        | Error::Setting { .. }
        | Error::Read { .. }
        | Error::File { .. }
        | Error::Io { .. } => Status::InvalidArgument,
    }
}

/// Borrows a C array. A zero length is an empty slice whatever the pointer.
///
/// # Safety
///
/// If `len > 0` and `ptr` is not NULL, `ptr` must point to `len` aligned, initialised `T` that
/// nothing writes for `'a`.
unsafe fn slice_in<'a, T>(ptr: *const T, len: usize, name: &'static str) -> Result<&'a [T], Error> {
    if len == 0 {
        return Ok(&[]);
    }
    if ptr.is_null() {
        return Err(Error::Null(name));
    }
    // SAFETY: not NULL, and the caller vouches for the rest.
    Ok(unsafe { std::slice::from_raw_parts(ptr, len) })
}

/// Borrows a C array to write to. A zero length is an empty slice whatever the pointer.
///
/// # Safety
///
/// If `len > 0` and `ptr` is not NULL, `ptr` must point to `len` aligned `T` that nothing else uses
/// for `'a`.
unsafe fn slice_out<'a, T>(
    ptr: *mut T,
    len: usize,
    name: &'static str,
) -> Result<&'a mut [T], Error> {
    if len == 0 {
        return Ok(&mut []);
    }
    if ptr.is_null() {
        return Err(Error::Null(name));
    }
    // SAFETY: not NULL, and the caller vouches for the rest.
    Ok(unsafe { std::slice::from_raw_parts_mut(ptr, len) })
}

/// `hotset_abi_version`.
#[unsafe(no_mangle)]
pub extern "C" fn hotset_abi_version() -> u32 {
    ABI_VERSION
}

/// `hotset_error`.
#[unsafe(no_mangle)]
pub extern "C" fn hotset_error() -> *const c_char {
    LAST_ERROR.with(|last| last.borrow().as_ptr())
}

/// `hotset_policy`.
#[unsafe(no_mangle)]
pub extern "C" fn hotset_policy(i: usize) -> *const c_char {
    static NAMES: Lazy<Vec<CString>> = Lazy::new(|| {
        let name = |s: &crate::policy::Spec| CString::new(s.name).unwrap_or_default();
        REGISTRY.iter().map(name).collect()
    });
    NAMES.get(i).map_or(std::ptr::null(), |name| name.as_ptr())
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
    let mut made = None;
    guard(|| {
        // SAFETY: passed on from our caller.
        let n_experts = unsafe { slice_in(n_experts, n_layers as usize, "n_experts") }?;
        if policy.is_null() {
            return Err(Error::Null("policy"));
        }
        // SAFETY: not NULL, and a C string by the header.
        let policy = unsafe { CStr::from_ptr(policy) }.to_string_lossy();
        let cache = Cache::new(n_experts, n_slots, &policy)?;
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

/// `hotset_plan`.
///
/// # Safety
///
/// The arrays must satisfy the header: `n_ids` readable or writable values for the length of the
/// call.
#[unsafe(no_mangle)]
#[allow(clippy::too_many_arguments)] // the ABI's shape
pub unsafe extern "C" fn hotset_plan(
    cache: Option<&mut Hotset>, // NULL is None: nullability is in the type
    layer: u32,
    n_tokens: u32,
    ids: *const i32,
    n_ids: usize,
    slots_out: *mut u32,
    fills_out: *mut HotsetFill,
    n_fills_out: Option<&mut usize>,
) -> Status {
    guard(|| {
        let cache = cache.ok_or(Error::Null("cache"))?;
        let n_fills_out = n_fills_out.ok_or(Error::Null("n_fills_out"))?;
        // SAFETY: passed on from our caller, see the contract above.
        let ids = unsafe { slice_in(ids, n_ids, "ids") }?;
        // SAFETY: likewise.
        let slots = unsafe { slice_out(slots_out, n_ids, "slots_out") }?;
        // SAFETY: likewise.
        let fills_out = unsafe { slice_out(fills_out, n_ids, "fills_out") }?;
        let fills = cache.cache.plan(layer, n_tokens, ids, slots)?;
        for (out, fill) in fills_out.iter_mut().zip(fills) {
            *out = HotsetFill {
                expert: fill.expert,
                slot: fill.slot,
            };
        }
        *n_fills_out = fills.len();
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

/// `hotset_get_counts`.
#[unsafe(no_mangle)]
pub extern "C" fn hotset_get_counts(
    cache: Option<&Hotset>,
    counts_out: Option<&mut HotsetCounts>,
) -> Status {
    guard(|| {
        let cache = cache.ok_or(Error::Null("cache"))?;
        let out = counts_out.ok_or(Error::Null("counts_out"))?;
        let counts = cache.cache.counts();
        *out = HotsetCounts {
            hits: counts.decode.hits,
            misses: counts.decode.misses,
            evictions: counts.decode.evictions,
            bypassed: counts.decode.bypassed,
            prompt_hits: counts.scan.hits,
            prompt_misses: counts.scan.misses,
            prompt_bypassed: counts.scan.bypassed,
        };
        Ok(())
    })
}
