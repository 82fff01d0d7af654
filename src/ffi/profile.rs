//! Profiles: made, read, written, learnt, compared.

use super::cache::HotsetCache;
use super::memory;
use super::numbers;
use super::pointers::{Place, construct, slice_in, str_in};
use super::sized::{Grows, struct_in};
use super::status::{Status, discard, guard};
use crate::cache::{begin_profile, merge_profiles, profile_similarity};
use crate::error::Error;
use crate::profile::Profile;
use crate::trace::Header;
use std::ffi::c_char;
use std::mem::offset_of;
use std::path::Path;

/// `struct hotset_profile`: opaque to C.
pub struct HotsetProfile {
    profile: Profile,
}

const _: () = {
    const fn is_shared_by_threads<T: Send + Sync>() {}
    is_shared_by_threads::<HotsetProfile>();
};

/// Most bytes that a profile takes for each expert, and each layer.
const BYTES_EXPERT: u64 = 64;
const BYTES_LAYER: u64 = 512;

/// Mirrors `struct hotset_profile_params`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct HotsetProfileParams {
    pub(super) size: usize,
    pub(super) name: *const c_char,
    pub(super) n_experts: *const u32,
    pub(super) n_layers: u32,
    pub(super) top_k: u32,
    pub(super) architecture: *const c_char,
    pub(super) model_name: *const c_char,
}

// SAFETY: it is `repr(C)` and begins with its size; NULL and 0 are values of the others.
unsafe impl Grows for HotsetProfileParams {
    const NAME: &'static str = "hotset_profile_params";
    const SIZE_MIN: usize = offset_of!(Self, architecture);
}

/// Borrows a C string, which is empty if it is NULL.
///
/// # Safety
///
/// As for [`str_in`].
unsafe fn known_in<'a>(text: *const c_char, name: &'static str) -> Result<&'a str, Error> {
    match text.is_null() {
        true => Ok(""),
        // SAFETY: passed on from our caller.
        false => unsafe { str_in(text, name) },
    }
}

/// Borrows an array of profiles.
///
/// # Safety
///
/// As for [`slice_in`]; each entry must be NULL or a profile that nothing writes for `'a`.
pub(super) unsafe fn profiles_in<'a>(
    profiles: *const Option<&'a HotsetProfile>,
    n_profiles: usize,
) -> Result<Vec<&'a Profile>, Error> {
    // SAFETY: passed on from our caller.
    let profiles = unsafe { slice_in(profiles, n_profiles, "profiles") }?;
    let profile = |entry: &Option<&'a HotsetProfile>| {
        let profile = entry.ok_or(Error::Null("profiles[i]"))?;
        Ok(&profile.profile)
    };
    profiles.iter().map(profile).collect()
}

/// Borrows an array of profiles with their weights, all 1 if these are NULL.
///
/// # Safety
///
/// As for [`profiles_in`], and for [`slice_in`] if `weights` is not NULL.
pub(super) unsafe fn parts_in(
    profiles: *const Option<&HotsetProfile>,
    weights: *const f64,
    n_profiles: usize,
) -> Result<Vec<(&Profile, f64)>, Error> {
    // SAFETY: passed on from our caller.
    let profiles = unsafe { profiles_in(profiles, n_profiles) }?;
    let weights = match weights.is_null() {
        true => vec![1.0; n_profiles],
        // SAFETY: likewise.
        false => unsafe { slice_in(weights, n_profiles, "weights") }?.to_vec(),
    };
    Ok(profiles.into_iter().zip(weights).collect())
}

/// `hotset_profile_new`.
///
/// # Safety
///
/// `params` must be NULL or satisfy the header, and so must what it points to; `profile_out` must be NULL or point to a
/// place for a pointer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hotset_profile_new(
    params: *const HotsetProfileParams,
    profile_out: *mut *mut HotsetProfile,
) -> Status {
    let make = || {
        // SAFETY: passed on from our caller.
        let params = unsafe { struct_in(params, "params") }?;
        // SAFETY: likewise.
        let name = unsafe { str_in(params.name, "name") }?;
        // SAFETY: likewise.
        let architecture = unsafe { known_in(params.architecture, "architecture") }?;
        // SAFETY: likewise.
        let model_name = unsafe { known_in(params.model_name, "model_name") }?;
        let n_layers = params.n_layers as usize;
        // SAFETY: likewise.
        let n_experts = unsafe { slice_in(params.n_experts, n_layers, "n_experts") }?;
        let n_total: u64 = n_experts.iter().map(|&n| u64::from(n)).sum();
        // More are refused anyway.
        let n_total = n_total.min(Header::N_TOTAL_MAX.into());
        let n_bytes = BYTES_EXPERT * n_total + BYTES_LAYER * n_total.min(n_experts.len() as u64);
        memory::check(n_bytes, || format!("a profile of {n_total} experts"))?;
        begin_profile(name, architecture, model_name, n_experts, params.top_k)
            .map(|profile| HotsetProfile { profile })
    };
    // SAFETY: passed on from our caller.
    unsafe { construct(profile_out, "profile_out", make) }
}

/// `hotset_profile_read`.
///
/// # Safety
///
/// `path` must satisfy the header; `profile_out` must be NULL or point to a place for a pointer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hotset_profile_read(
    path: *const c_char,
    profile_out: *mut *mut HotsetProfile,
) -> Status {
    let make = || {
        // SAFETY: passed on from our caller.
        let path = unsafe { str_in(path, "path") }?;
        Profile::read(Path::new(path)).map(|profile| HotsetProfile { profile })
    };
    // SAFETY: passed on from our caller.
    unsafe { construct(profile_out, "profile_out", make) }
}

/// `hotset_profile_write`.
///
/// # Safety
///
/// `path` must satisfy the header.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hotset_profile_write(
    profile: Option<&HotsetProfile>, // NULL is None: nullability is in the type
    path: *const c_char,
) -> Status {
    guard(|| {
        let profile = profile.ok_or(Error::Null("profile"))?;
        // SAFETY: passed on from our caller.
        let path = unsafe { str_in(path, "path") }?;
        profile.profile.write(Path::new(path))
    })
}

/// `hotset_profile_delete`. NULL is allowed.
#[unsafe(no_mangle)]
pub extern "C" fn hotset_profile_delete(profile: Option<Box<HotsetProfile>>) {
    discard(profile);
}

/// `hotset_profile_learn`.
#[unsafe(no_mangle)]
pub extern "C" fn hotset_profile_learn(
    profile: Option<&mut HotsetProfile>,
    cache: Option<&mut HotsetCache>,
) -> Status {
    guard(|| {
        let profile = profile.ok_or(Error::Null("profile"))?;
        let cache = cache.ok_or(Error::Null("cache"))?;
        cache.cache.learn_into(&mut profile.profile)
    })
}

/// `hotset_profile_merge`.
///
/// # Safety
///
/// `name` and the arrays must satisfy the header; `profile_out` must be NULL or point to a place for a pointer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hotset_profile_merge(
    name: *const c_char,
    profiles: *const Option<&HotsetProfile>,
    weights: *const f64,
    n_profiles: usize,
    profile_out: *mut *mut HotsetProfile,
) -> Status {
    let make = || {
        // SAFETY: passed on from our caller.
        let name = unsafe { str_in(name, "name") }?;
        // SAFETY: likewise.
        let parts = unsafe { parts_in(profiles, weights, n_profiles) }?;
        merge_profiles(name, &parts).map(|profile| HotsetProfile { profile })
    };
    // SAFETY: passed on from our caller.
    unsafe { construct(profile_out, "profile_out", make) }
}

/// `hotset_profile_similarity`.
///
/// # Safety
///
/// `similarity_out` must be NULL or point to a place for it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hotset_profile_similarity(
    a: Option<&HotsetProfile>,
    b: Option<&HotsetProfile>,
    phase: u32,
    similarity_out: *mut f64,
) -> Status {
    guard(|| {
        let a = a.ok_or(Error::Null("a"))?;
        let b = b.ok_or(Error::Null("b"))?;
        // SAFETY: passed on from our caller.
        let out = unsafe { Place::new(similarity_out, "similarity_out") }?;
        out.write(profile_similarity(
            &a.profile,
            &b.profile,
            numbers::phase(phase)?,
        )?);
        Ok(())
    })
}
