//! What C does with the functions, in Rust, so that a tool can watch every access: all places to write to hold
//! nothing before.

// All calls are as the header says: saying so at each of them would help nobody.
#![allow(clippy::undocumented_unsafe_blocks)]

use super::cache::*;
use super::policies::*;
use super::profile::*;
use super::queries::*;
use super::status::*;
use super::warm::*;
use crate::error::Error;
use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::ptr::{null, null_mut};

const N_EXPERTS: [u32; 2] = [6, 4];

fn cache() -> Box<HotsetCache> {
    let params = HotsetCacheParams {
        size: size_of::<HotsetCacheParams>(),
        n_experts: N_EXPERTS.as_ptr(),
        n_layers: 2,
        n_slots: 3,
        policy: c"adaptive".as_ptr(),
        expert_bytes: null(),
    };
    // SAFETY: as the header says; what is made is ours.
    unsafe { Box::from_raw(got(|out| hotset_cache_new(&params, out))) }
}

fn profile() -> Box<HotsetProfile> {
    let params = HotsetProfileParams {
        size: size_of::<HotsetProfileParams>(),
        name: c"text".as_ptr(),
        n_experts: N_EXPERTS.as_ptr(),
        n_layers: 2,
        top_k: 2,
        architecture: c"arch".as_ptr(),
        model_name: c"model".as_ptr(),
    };
    // SAFETY: as the header says; what is made is ours.
    unsafe { Box::from_raw(got(|out| hotset_profile_new(&params, out))) }
}

/// What `get` writes to a place that holds nothing.
fn got<T>(get: impl FnOnce(*mut T) -> Status) -> T {
    let mut place = MaybeUninit::uninit();
    assert_eq!(get(place.as_mut_ptr()), Status::Ok);
    // SAFETY: it was written to.
    unsafe { place.assume_init() }
}

/// What `get` writes to a struct that holds nothing but its size.
fn got_struct<T>(get: impl FnOnce(*mut T) -> Status) -> T {
    got(|place: *mut T| {
        // SAFETY: each struct begins with its size.
        unsafe { place.cast::<usize>().write(size_of::<T>()) };
        get(place)
    })
}

#[test]
fn places_that_hold_nothing_are_written_to() {
    let mut cache = cache();
    for ids in [[0, 1, 2], [3, 4, 5], [0, 1, 5]] {
        let mut slots = [MaybeUninit::<u32>::uninit(); 3];
        let mut fills = [MaybeUninit::<HotsetFill>::uninit(); 3];
        let n_fills = got(|n_out| {
            let (slots, fills) = (slots.as_mut_ptr().cast(), fills.as_mut_ptr().cast());
            // SAFETY: there is place for three of each.
            unsafe {
                hotset_cache_plan(Some(&mut cache), 0, 1, ids.as_ptr(), 3, slots, fills, n_out)
            }
        });
        // SAFETY: all slots were written, and so many fills.
        let fills: Vec<_> = unsafe {
            assert!(slots.iter().all(|slot| slot.assume_init() < 3));
            fills[..n_fills]
                .iter()
                .map(|fill| fill.assume_init())
                .collect()
        };
        assert!(
            fills
                .iter()
                .all(|fill| ids.contains(&(fill.expert as i32)) && fill.slot < 3)
        );
        assert_eq!(hotset_cache_commit(Some(&mut cache)), Status::Ok);
    }
    // SAFETY: each has a place for what it writes, here and below.
    let slot = got(|out| unsafe { hotset_cache_slot(Some(&cache), 0, 5, out) });
    assert!(slot < 3);
    got_struct(|out| unsafe { hotset_cache_counts(Some(&cache), out) });
    got_struct(|out| unsafe { hotset_cache_usage(Some(&cache), 0, 0, 5, out) });
    got_struct(|out| unsafe { hotset_cache_heat(Some(&cache), 0, 0, 0, out) });
    got_struct(|out| unsafe { hotset_cache_hindsight(Some(&cache), usize::MAX, out) });
    got_struct(|out| unsafe { hotset_policy_info(0, out) });
    let mut frequencies = [MaybeUninit::<f32>::uninit(); 6];
    let status = unsafe {
        hotset_cache_frequencies(Some(&cache), 0, 0, 0, frequencies.as_mut_ptr().cast(), 6)
    };
    assert_eq!(status, Status::Ok);
    // SAFETY: all were written.
    let sum: f32 = frequencies.iter().map(|f| unsafe { f.assume_init() }).sum();
    assert!((sum - 3.0).abs() < 1e-5);
    let mut retired = [MaybeUninit::<u32>::uninit(); 2];
    let n_retired = got(|out| unsafe {
        hotset_cache_resize(Some(&mut cache), 1, retired.as_mut_ptr().cast(), out)
    });
    // SAFETY: all were written.
    assert!(n_retired == 2 && retired.iter().all(|r| unsafe { r.assume_init() } < 3));
    hotset_cache_delete(Some(cache));
}

#[test]
fn profiles_are_compared_and_warm_a_cache() {
    let mut cache = cache();
    let mut profile = profile();
    for ids in [[0, 1], [0, 2]] {
        let mut n_fills = 0;
        let mut slots = [0; 2];
        let mut fills = [HotsetFill { expert: 0, slot: 0 }; 2];
        let (slots, fills) = (slots.as_mut_ptr(), fills.as_mut_ptr());
        let status = unsafe {
            hotset_cache_plan(
                Some(&mut cache),
                1,
                1,
                ids.as_ptr(),
                2,
                slots,
                fills,
                &mut n_fills,
            )
        };
        assert_eq!(status, Status::Ok);
        assert_eq!(hotset_cache_commit(Some(&mut cache)), Status::Ok);
    }
    assert_eq!(
        hotset_profile_learn(Some(&mut profile), Some(&mut cache)),
        Status::Ok
    );
    let same =
        got(|out| unsafe { hotset_profile_similarity(Some(&profile), Some(&profile), 0, out) });
    assert!((same - 1.0).abs() < 1e-9);
    let mut other = self::cache();
    let profiles = [Some(&*profile)];
    assert_eq!(
        unsafe { hotset_cache_prime_profiles(Some(&mut other), profiles.as_ptr(), null(), 1) },
        Status::Ok
    );
    let mut layers = [MaybeUninit::<u32>::uninit(); 3];
    let mut fills = [MaybeUninit::<HotsetFill>::uninit(); 3];
    let n_fills = got(|out| {
        let (layers, fills) = (layers.as_mut_ptr().cast(), fills.as_mut_ptr().cast());
        unsafe { hotset_cache_warm(Some(&mut other), usize::MAX, layers, fills, out) }
    });
    // SAFETY: so many were written.
    let first = unsafe { (layers[0].assume_init(), fills[0].assume_init().expert) };
    assert_eq!((n_fills, first), (3, (1, 0)));
    assert_eq!(
        unsafe { hotset_cache_follow(Some(&mut other), profiles.as_ptr(), 1) },
        Status::Ok
    );
    let mut confidence = MaybeUninit::uninit();
    let index =
        got(|out| unsafe { hotset_cache_followed(Some(&other), out, confidence.as_mut_ptr()) });
    assert_eq!(index, usize::MAX);
    hotset_cache_delete(Some(cache));
    hotset_cache_delete(Some(other));
    hotset_profile_delete(Some(profile));
}

#[test]
fn what_fails_writes_nothing() {
    let cache = cache();
    let mut slot = 77;
    // SAFETY: there is a place, or none.
    unsafe {
        assert_eq!(
            hotset_cache_slot(Some(&cache), 9, 0, &mut slot),
            Status::Argument
        );
        assert_eq!(
            hotset_cache_slot(Some(&cache), 0, 0, null_mut()),
            Status::Argument
        );
        assert_eq!(hotset_cache_slot(None, 0, 0, &mut slot), Status::Argument);
        assert_eq!(CStr::from_ptr(hotset_last_error()), c"`cache` is NULL");
    }
    assert_eq!(slot, 77);
    hotset_cache_delete(Some(cache));
}

/// C cannot make it happen.
#[test]
fn a_panic_is_a_status() {
    let status = guard(|| panic!("as a bug would"));
    assert_eq!(status, Status::Panic);
    let text = unsafe { CStr::from_ptr(hotset_last_error()) };
    assert!(text.to_string_lossy().contains("a bug in hotset"));
    assert_eq!(guard(|| Ok(())), Status::Ok);
    assert!(unsafe { CStr::from_ptr(hotset_last_error()) }.is_empty());
}

#[test]
fn a_system_without_memory_is_no_file_that_is_missing() {
    let failed = |kind: std::io::ErrorKind| {
        guard(|| {
            Err(Error::io("some", kind.into()))
        })
    };
    assert_eq!(failed(std::io::ErrorKind::OutOfMemory), Status::NoMemory);
    assert_eq!(failed(std::io::ErrorKind::NotFound), Status::Io);
}
