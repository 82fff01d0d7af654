//! What a cache does with profiles: starts as they say, and recognises which one the workload is like.

use super::cache::{HotsetCache, HotsetFill};
use super::pointers::{Place, Places};
use super::profile::{HotsetProfile, parts_in, profiles_in};
use super::status::{Status, guard};
use crate::error::Error;

/// `hotset_cache_prime_profiles`.
///
/// # Safety
///
/// The arrays must satisfy the header.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hotset_cache_prime_profiles(
    cache: Option<&mut HotsetCache>,
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

/// `hotset_cache_warm`.
///
/// # Safety
///
/// The arrays must satisfy the header: `n_max` writable values, or as many as there are slots if that
/// is less.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hotset_cache_warm(
    cache: Option<&mut HotsetCache>,
    n_max: usize,
    layers_out: *mut u32,
    fills_out: *mut HotsetFill,
    n_fills_out: *mut usize,
) -> Status {
    guard(|| {
        let cache = &mut cache.ok_or(Error::Null("cache"))?.cache;
        // SAFETY: passed on from our caller.
        let n_fills_out = unsafe { Place::new(n_fills_out, "n_fills_out") }?;
        let n_max = n_max.min(cache.n_slots() as usize);
        // SAFETY: passed on from our caller, see the contract above.
        let layers_out = unsafe { Places::new(layers_out, n_max, "layers_out") }?;
        // SAFETY: likewise.
        let fills_out = unsafe { Places::new(fills_out, n_max, "fills_out") }?;
        let filled = cache.warm(n_max)?;
        layers_out.write_all(filled.iter().map(|(id, _)| id.layer));
        fills_out.write_all(filled.iter().map(|&(id, slot)| HotsetFill {
            expert: id.expert,
            slot,
        }));
        n_fills_out.write(filled.len());
        Ok(())
    })
}

/// `hotset_cache_follow`.
///
/// # Safety
///
/// `profiles` must satisfy the header.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hotset_cache_follow(
    cache: Option<&mut HotsetCache>,
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

/// `hotset_cache_followed`.
///
/// # Safety
///
/// `index_out` and `confidence_out` must each be NULL or point to a place for it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hotset_cache_followed(
    cache: Option<&HotsetCache>,
    index_out: *mut usize,
    confidence_out: *mut f64,
) -> Status {
    guard(|| {
        let cache = cache.ok_or(Error::Null("cache"))?;
        // SAFETY: passed on from our caller.
        let index_out = unsafe { Place::new(index_out, "index_out") }?;
        // SAFETY: passed on from our caller.
        let confidence_out = unsafe { Place::new(confidence_out, "confidence_out") }?;
        let verdict = cache.cache.followed()?;
        index_out.write(verdict.map_or(usize::MAX, |verdict| verdict.profile));
        confidence_out.write(verdict.map_or(0.0, |verdict| verdict.confidence));
        Ok(())
    })
}
