//! What a cache knows: where experts are, how often they were used, what other policies would have
//! done.

use super::{Hotset, Status, guard, out, slice_out, write_all};
use crate::cache::NO_SLOT;
use crate::error::Error;
use crate::tracker::{Phase, Span};

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

/// Mirrors `struct hotset_usage`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct HotsetUsage {
    n_tokens: u64,
    age: u64,
}

/// Mirrors `struct hotset_heat`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct HotsetHeat {
    n_tokens: f64,
    hottest_tenth: f64,
    hottest_quarter: f64,
    hottest_half: f64,
    entropy_bits: f64,
}

/// Mirrors `struct hotset_regret`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct HotsetHindsight {
    picks: u64,
    warm_picks: u64,
    policy_hits: u64,
    lru_hits: u64,
    belady_hits: u64,
}

/// The phase that `enum hotset_phase` numbers so.
pub(super) fn phase(number: u32) -> Result<Phase, Error> {
    let phase = Phase::ALL.get(number as usize).copied();
    phase.ok_or_else(|| unknown("phase", number, Phase::ALL.len()))
}

/// The span that `enum hotset_span` numbers so.
fn span(number: u32) -> Result<Span, Error> {
    let span = Span::all().nth(number as usize);
    span.ok_or_else(|| unknown("span", number, Span::all().count()))
}

fn unknown(name: &str, number: u32, n: usize) -> Error {
    Error::Setting {
        name: name.to_string(),
        value: number.to_string(),
        allowed: format!("must be in 0..{n}"),
    }
}

/// `hotset_get_counts`.
///
/// # Safety
///
/// `counts_out` must be NULL or point to a place for it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hotset_get_counts(
    cache: Option<&Hotset>, // NULL is None: nullability is in the type
    counts_out: *mut HotsetCounts,
) -> Status {
    guard(|| {
        let cache = cache.ok_or(Error::Null("cache"))?;
        // SAFETY: passed on from our caller.
        let out = unsafe { out(counts_out, "counts_out") }?;
        let counts = cache.cache.counts();
        out.write(HotsetCounts {
            hits: counts.decode.hits,
            misses: counts.decode.misses,
            evictions: counts.decode.evictions,
            bypassed: counts.decode.bypassed,
            prompt_hits: counts.scan.hits,
            prompt_misses: counts.scan.misses,
            prompt_bypassed: counts.scan.bypassed,
        });
        Ok(())
    })
}

/// `hotset_get_slot`.
///
/// # Safety
///
/// `slot_out` must be NULL or point to a place for it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hotset_get_slot(
    cache: Option<&Hotset>,
    layer: u32,
    expert: u32,
    slot_out: *mut u32,
) -> Status {
    guard(|| {
        let cache = cache.ok_or(Error::Null("cache"))?;
        // SAFETY: passed on from our caller.
        let out = unsafe { out(slot_out, "slot_out") }?;
        out.write(cache.cache.slot_of(layer, expert)?.unwrap_or(NO_SLOT));
        Ok(())
    })
}

/// `hotset_get_usage`.
///
/// # Safety
///
/// `usage_out` must be NULL or point to a place for it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hotset_get_usage(
    cache: Option<&Hotset>,
    phase_number: u32,
    layer: u32,
    expert: u32,
    usage_out: *mut HotsetUsage,
) -> Status {
    guard(|| {
        let cache = cache.ok_or(Error::Null("cache"))?;
        // SAFETY: passed on from our caller.
        let out = unsafe { out(usage_out, "usage_out") }?;
        let usage = cache.cache.usage(phase(phase_number)?, layer, expert)?;
        out.write(HotsetUsage {
            n_tokens: usage.n_tokens,
            age: usage.age.unwrap_or(u64::MAX),
        });
        Ok(())
    })
}

/// `hotset_get_frequencies`.
///
/// # Safety
///
/// `frequencies_out` must satisfy the header: `n_frequencies` writable values for the length of the
/// call.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hotset_get_frequencies(
    cache: Option<&Hotset>,
    phase_number: u32,
    span_number: u32,
    layer: u32,
    frequencies_out: *mut f32,
    n_frequencies: usize,
) -> Status {
    guard(|| {
        let cache = cache.ok_or(Error::Null("cache"))?;
        // SAFETY: passed on from our caller, see the contract above.
        let out = unsafe { slice_out(frequencies_out, n_frequencies, "frequencies_out") }?;
        let (phase, span) = (phase(phase_number)?, span(span_number)?);
        let frequencies = cache.cache.layer_counts(phase, span, layer)?.frequencies();
        if out.len() != frequencies.len() {
            return Err(Error::Setting {
                name: "n_frequencies".to_string(),
                value: out.len().to_string(),
                allowed: format!("layer {layer} has {} experts", frequencies.len()),
            });
        }
        write_all(out, &frequencies);
        Ok(())
    })
}

/// `hotset_get_heat`.
///
/// # Safety
///
/// `heat_out` must be NULL or point to a place for it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hotset_get_heat(
    cache: Option<&Hotset>,
    phase_number: u32,
    span_number: u32,
    layer: u32,
    heat_out: *mut HotsetHeat,
) -> Status {
    guard(|| {
        let cache = cache.ok_or(Error::Null("cache"))?;
        // SAFETY: passed on from our caller.
        let out = unsafe { out(heat_out, "heat_out") }?;
        let (phase, span) = (phase(phase_number)?, span(span_number)?);
        let counts = cache.cache.layer_counts(phase, span, layer)?;
        let hottest = |percent| counts.coverage(percent).unwrap_or_default();
        out.write(HotsetHeat {
            n_tokens: counts.n_tokens,
            hottest_tenth: hottest(10),
            hottest_quarter: hottest(25),
            hottest_half: hottest(50),
            entropy_bits: counts.entropy().unwrap_or_default(),
        });
        Ok(())
    })
}

/// `hotset_get_regret`.
///
/// # Safety
///
/// `hindsight_out` must be NULL or point to a place for it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn hotset_get_regret(
    cache: Option<&Hotset>,
    n_picks_max: usize,
    hindsight_out: *mut HotsetHindsight,
) -> Status {
    guard(|| {
        let cache = cache.ok_or(Error::Null("cache"))?;
        // SAFETY: passed on from our caller.
        let out = unsafe { out(hindsight_out, "hindsight_out") }?;
        let hindsight = cache.cache.hindsight(n_picks_max);
        out.write(HotsetHindsight {
            picks: hindsight.picks,
            warm_picks: hindsight.warm_picks,
            policy_hits: hindsight.active_hits,
            lru_hits: hindsight.lru_hits,
            belady_hits: hindsight.belady_hits,
        });
        Ok(())
    })
}
