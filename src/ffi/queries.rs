//! What a cache knows: where experts are, how often they were used, what other policies would have
//! done.

use super::cache::HotsetCache;
use super::numbers;
use super::pointers::{Place, Places};
use super::sized::{Grows, StructPlace};
use super::status::{Status, guard};
use crate::cache::NO_SLOT;
use crate::error::Error;
use std::mem::offset_of;

/// Mirrors `struct hotset_counts`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct HotsetCounts {
    pub(super) size: usize,
    pub(super) hits: u64,
    pub(super) misses: u64,
    pub(super) evictions: u64,
    pub(super) staged: u64,
    pub(super) prefill_hits: u64,
    pub(super) prefill_misses: u64,
    pub(super) prefill_staged: u64,
}

// SAFETY: it is `repr(C)` and begins with its size; 0 is a value of each of its numbers.
unsafe impl Grows for HotsetCounts {
    const NAME: &'static str = "hotset_counts";
    const SIZE_MIN: usize = offset_of!(Self, misses);
}

/// Mirrors `struct hotset_usage`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct HotsetUsage {
    pub(super) size: usize,
    pub(super) n_tokens: u64,
    pub(super) age: u64,
}

// SAFETY: it is `repr(C)` and begins with its size; 0 is a value of each of its numbers.
unsafe impl Grows for HotsetUsage {
    const NAME: &'static str = "hotset_usage";
    const SIZE_MIN: usize = offset_of!(Self, age);
}

/// Mirrors `struct hotset_heat`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct HotsetHeat {
    pub(super) size: usize,
    pub(super) n_tokens: f64,
    pub(super) hottest_tenth: f64,
    pub(super) hottest_quarter: f64,
    pub(super) hottest_half: f64,
    pub(super) entropy_bits: f64,
}

// SAFETY: it is `repr(C)` and begins with its size; 0 is a value of each of its numbers.
unsafe impl Grows for HotsetHeat {
    const NAME: &'static str = "hotset_heat";
    const SIZE_MIN: usize = offset_of!(Self, hottest_tenth);
}

/// Mirrors `struct hotset_hindsight`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct HotsetHindsight {
    pub(super) size: usize,
    pub(super) picks: u64,
    pub(super) warm_picks: u64,
    pub(super) policy_hits: u64,
    pub(super) lru_hits: u64,
    pub(super) belady_hits: u64,
}

// SAFETY: it is `repr(C)` and begins with its size; 0 is a value of each of its numbers.
unsafe impl Grows for HotsetHindsight {
    const NAME: &'static str = "hotset_hindsight";
    const SIZE_MIN: usize = offset_of!(Self, warm_picks);
}

/// `hotset_cache_counts`.
///
/// # Safety
///
/// `counts_out` must be NULL or satisfy the header: its size is set, and there is place for so many bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hotset_cache_counts(
    cache: Option<&HotsetCache>, // NULL is None: nullability is in the type
    counts_out: *mut HotsetCounts,
) -> Status {
    guard(|| {
        let cache = cache.ok_or(Error::Null("cache"))?;
        // SAFETY: passed on from our caller.
        let out = unsafe { StructPlace::new(counts_out, "counts_out") }?;
        let counts = cache.cache.counts();
        out.write(&HotsetCounts {
            size: size_of::<HotsetCounts>(),
            hits: counts.decode.hits,
            misses: counts.decode.misses,
            evictions: counts.decode.evictions,
            staged: counts.decode.staged,
            prefill_hits: counts.prefill.hits,
            prefill_misses: counts.prefill.misses,
            prefill_staged: counts.prefill.staged,
        });
        Ok(())
    })
}

/// `hotset_cache_slot`.
///
/// # Safety
///
/// `slot_out` must be NULL or point to a place for it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hotset_cache_slot(
    cache: Option<&HotsetCache>,
    layer: u32,
    expert: u32,
    slot_out: *mut u32,
) -> Status {
    guard(|| {
        let cache = cache.ok_or(Error::Null("cache"))?;
        // SAFETY: passed on from our caller.
        let out = unsafe { Place::new(slot_out, "slot_out") }?;
        out.write(cache.cache.slot_of(layer, expert)?.unwrap_or(NO_SLOT));
        Ok(())
    })
}

/// `hotset_cache_usage`.
///
/// # Safety
///
/// `usage_out` must be NULL or satisfy the header: its size is set, and there is place for so many bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hotset_cache_usage(
    cache: Option<&HotsetCache>,
    phase: u32,
    layer: u32,
    expert: u32,
    usage_out: *mut HotsetUsage,
) -> Status {
    guard(|| {
        let cache = cache.ok_or(Error::Null("cache"))?;
        // SAFETY: passed on from our caller.
        let out = unsafe { StructPlace::new(usage_out, "usage_out") }?;
        let usage = cache.cache.usage(numbers::phase(phase)?, layer, expert)?;
        out.write(&HotsetUsage {
            size: size_of::<HotsetUsage>(),
            n_tokens: usage.n_tokens,
            age: usage.age.unwrap_or(u64::MAX),
        });
        Ok(())
    })
}

/// `hotset_cache_frequencies`.
///
/// # Safety
///
/// `frequencies_out` must satisfy the header: `n_frequencies` writable values for the length of the
/// call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hotset_cache_frequencies(
    cache: Option<&HotsetCache>,
    phase: u32,
    span: u32,
    layer: u32,
    frequencies_out: *mut f32,
    n_frequencies: usize,
) -> Status {
    guard(|| {
        let cache = cache.ok_or(Error::Null("cache"))?;
        // SAFETY: passed on from our caller, see the contract above.
        let out = unsafe { Places::new(frequencies_out, n_frequencies, "frequencies_out") }?;
        let (phase, span) = (numbers::phase(phase)?, numbers::span(span)?);
        let frequencies = cache.cache.layer_counts(phase, span, layer)?.frequencies();
        if out.len() != frequencies.len() {
            return Err(Error::setting("n_frequencies", out.len().to_string(), format!("layer {layer} has {} experts", frequencies.len())));
        }
        out.write_all(frequencies);
        Ok(())
    })
}

/// `hotset_cache_heat`.
///
/// # Safety
///
/// `heat_out` must be NULL or satisfy the header: its size is set, and there is place for so many bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hotset_cache_heat(
    cache: Option<&HotsetCache>,
    phase: u32,
    span: u32,
    layer: u32,
    heat_out: *mut HotsetHeat,
) -> Status {
    guard(|| {
        let cache = cache.ok_or(Error::Null("cache"))?;
        // SAFETY: passed on from our caller.
        let out = unsafe { StructPlace::new(heat_out, "heat_out") }?;
        let (phase, span) = (numbers::phase(phase)?, numbers::span(span)?);
        let counts = cache.cache.layer_counts(phase, span, layer)?;
        let hottest = |percent| counts.coverage(percent).unwrap_or_default();
        out.write(&HotsetHeat {
            size: size_of::<HotsetHeat>(),
            n_tokens: counts.n_tokens,
            hottest_tenth: hottest(10),
            hottest_quarter: hottest(25),
            hottest_half: hottest(50),
            entropy_bits: counts.entropy().unwrap_or_default(),
        });
        Ok(())
    })
}

/// `hotset_cache_hindsight`.
///
/// # Safety
///
/// `hindsight_out` must be NULL or satisfy the header: its size is set, and there is place for so many bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hotset_cache_hindsight(
    cache: Option<&HotsetCache>,
    n_picks_max: usize,
    hindsight_out: *mut HotsetHindsight,
) -> Status {
    guard(|| {
        let cache = cache.ok_or(Error::Null("cache"))?;
        // SAFETY: passed on from our caller.
        let out = unsafe { StructPlace::new(hindsight_out, "hindsight_out") }?;
        let hindsight = cache.cache.hindsight(n_picks_max);
        out.write(&HotsetHindsight {
            size: size_of::<HotsetHindsight>(),
            picks: hindsight.picks,
            warm_picks: hindsight.warm_picks,
            policy_hits: hindsight.active_hits,
            lru_hits: hindsight.lru_hits,
            belady_hits: hindsight.belady_hits,
        });
        Ok(())
    })
}
