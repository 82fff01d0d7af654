//! Profiles: made, read, written, taught, compared; and what caches do with them.

use super::queries::phase;
use super::{Hotset, HotsetFill, Status, guard, out, params_in, slice_in, slice_out, str_in};
use crate::cache::{begin_profile, merge_profiles, profile_similarity};
use crate::error::Error;
use crate::profile::Profile;
use std::ffi::c_char;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

/// `struct hotset_profile`: opaque to C.
pub struct HotsetProfile {
    profile: Profile,
}

/// Mirrors `struct hotset_profile_params`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct HotsetProfileParams {
    size: usize,
    name: *const c_char,
    architecture: *const c_char,
    model_name: *const c_char,
    n_experts: *const u32,
    n_layers: u32,
    top_k: u32,
}

#[cfg(test)]
impl HotsetProfileParams {
    /// Of a model with so many experts by layer, of which a token uses two.
    pub(super) fn of(n_experts: &[u32]) -> Self {
        Self {
            size: size_of::<Self>(),
            name: c"text".as_ptr(),
            architecture: c"arch".as_ptr(),
            model_name: c"model".as_ptr(),
            n_experts: n_experts.as_ptr(),
            n_layers: n_experts.len() as u32,
            top_k: 2,
        }
    }
}

/// What `make` returns, or NULL.
fn made(make: impl FnOnce() -> Result<Profile, Error>) -> Option<Box<HotsetProfile>> {
    let mut made = None;
    guard(|| {
        made = Some(Box::new(HotsetProfile { profile: make()? }));
        Ok(())
    });
    made
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
unsafe fn profiles_in<'a>(
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
unsafe fn parts_in(
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

/// `hotset_profile_init`.
///
/// # Safety
///
/// `params` must be NULL or satisfy the header, and so must what it points to.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hotset_profile_init(
    params: *const HotsetProfileParams,
) -> Option<Box<HotsetProfile>> {
    made(|| {
        // SAFETY: passed on from our caller, and `size` is the first member.
        let params = unsafe { params_in(params) }?;
        // SAFETY: likewise.
        let name = unsafe { str_in(params.name, "name") }?;
        // SAFETY: likewise.
        let architecture = unsafe { known_in(params.architecture, "architecture") }?;
        // SAFETY: likewise.
        let model_name = unsafe { known_in(params.model_name, "model_name") }?;
        let n_layers = params.n_layers as usize;
        // SAFETY: likewise.
        let n_experts = unsafe { slice_in(params.n_experts, n_layers, "n_experts") }?;
        begin_profile(name, architecture, model_name, n_experts, params.top_k)
    })
}

/// `hotset_profile_read`.
///
/// # Safety
///
/// `path` must satisfy the header.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hotset_profile_read(path: *const c_char) -> Option<Box<HotsetProfile>> {
    // SAFETY: passed on from our caller.
    made(|| Profile::read(Path::new(unsafe { str_in(path, "path") }?)))
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

/// `hotset_profile_free`. NULL is allowed.
#[unsafe(no_mangle)]
pub extern "C" fn hotset_profile_free(profile: Option<Box<HotsetProfile>>) {
    let _ = catch_unwind(AssertUnwindSafe(|| drop(profile)));
}

/// `hotset_profile_learn`.
#[unsafe(no_mangle)]
pub extern "C" fn hotset_profile_learn(
    profile: Option<&mut HotsetProfile>,
    cache: Option<&mut Hotset>,
) -> Status {
    guard(|| {
        let profile = profile.ok_or(Error::Null("profile"))?;
        let cache = cache.ok_or(Error::Null("cache"))?;
        cache.cache.teach(&mut profile.profile)
    })
}

/// `hotset_profile_merge`.
///
/// # Safety
///
/// `name` and the arrays must satisfy the header.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hotset_profile_merge(
    name: *const c_char,
    profiles: *const Option<&HotsetProfile>,
    weights: *const f64,
    n_profiles: usize,
) -> Option<Box<HotsetProfile>> {
    made(|| {
        // SAFETY: passed on from our caller.
        let name = unsafe { str_in(name, "name") }?;
        // SAFETY: likewise.
        let parts = unsafe { parts_in(profiles, weights, n_profiles) }?;
        merge_profiles(name, &parts)
    })
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
    phase_number: u32,
    similarity_out: *mut f64,
) -> Status {
    guard(|| {
        let a = a.ok_or(Error::Null("a"))?;
        let b = b.ok_or(Error::Null("b"))?;
        // SAFETY: passed on from our caller.
        let out = unsafe { out(similarity_out, "similarity_out") }?;
        out.write(profile_similarity(
            &a.profile,
            &b.profile,
            phase(phase_number)?,
        )?);
        Ok(())
    })
}

/// `hotset_prime_profiles`.
///
/// # Safety
///
/// The arrays must satisfy the header.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hotset_prime_profiles(
    cache: Option<&mut Hotset>,
    profiles: *const Option<&HotsetProfile>,
    weights: *const f64,
    n_profiles: usize,
) -> Status {
    guard(|| {
        let cache = cache.ok_or(Error::Null("cache"))?;
        // SAFETY: passed on from our caller.
        let parts = unsafe { parts_in(profiles, weights, n_profiles) }?;
        cache.cache.prime_with(&parts)
    })
}

/// `hotset_warm`.
///
/// # Safety
///
/// The arrays must satisfy the header: `n_max` writable values, or as many as there are slots if that
/// is less.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hotset_warm(
    cache: Option<&mut Hotset>,
    n_max: usize,
    layers_out: *mut u32,
    fills_out: *mut HotsetFill,
    n_fills_out: *mut usize,
) -> Status {
    guard(|| {
        let cache = &mut cache.ok_or(Error::Null("cache"))?.cache;
        // SAFETY: passed on from our caller.
        let n_fills_out = unsafe { out(n_fills_out, "n_fills_out") }?;
        let n_max = n_max.min(cache.n_slots() as usize);
        // SAFETY: passed on from our caller, see the contract above.
        let layers_out = unsafe { slice_out(layers_out, n_max, "layers_out") }?;
        // SAFETY: likewise.
        let fills_out = unsafe { slice_out(fills_out, n_max, "fills_out") }?;
        let filled = cache.warm(n_max)?;
        for ((layer, fill), &(id, slot)) in layers_out.iter_mut().zip(fills_out).zip(&filled) {
            layer.write(id.layer);
            fill.write(HotsetFill {
                expert: id.expert,
                slot,
            });
        }
        n_fills_out.write(filled.len());
        Ok(())
    })
}

/// `hotset_follow`.
///
/// # Safety
///
/// `profiles` must satisfy the header.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hotset_follow(
    cache: Option<&mut Hotset>,
    profiles: *const Option<&HotsetProfile>,
    n_profiles: usize,
) -> Status {
    guard(|| {
        let cache = cache.ok_or(Error::Null("cache"))?;
        // SAFETY: passed on from our caller.
        let profiles = unsafe { profiles_in(profiles, n_profiles) }?;
        cache.cache.follow(&profiles)
    })
}

/// `hotset_get_followed`.
///
/// # Safety
///
/// `index_out` and `confidence_out` must each be NULL or point to a place for it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hotset_get_followed(
    cache: Option<&Hotset>,
    index_out: *mut usize,
    confidence_out: *mut f64,
) -> Status {
    guard(|| {
        let cache = cache.ok_or(Error::Null("cache"))?;
        // SAFETY: passed on from our caller.
        let index_out = unsafe { out(index_out, "index_out") }?;
        // SAFETY: passed on from our caller.
        let confidence_out = unsafe { out(confidence_out, "confidence_out") }?;
        let verdict = cache.cache.followed()?;
        index_out.write(verdict.map_or(usize::MAX, |verdict| verdict.profile));
        confidence_out.write(verdict.map_or(0.0, |verdict| verdict.confidence));
        Ok(())
    })
}
