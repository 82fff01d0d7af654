//! What C does with the functions, in Rust, so that a tool can watch every access: all places to write to hold
//! nothing before.

// All calls are as the header says: saying so at each of them would help nobody.
#![allow(clippy::undocumented_unsafe_blocks)]

use super::*;
use std::ptr::{null, null_mut};

const N_EXPERTS: [u32; 2] = [6, 4];

fn cache() -> Box<Hotset> {
    // SAFETY: as the header says.
    let cache = unsafe { hotset_init(N_EXPERTS.as_ptr(), 2, 3, c"adaptive".as_ptr()) };
    cache.expect("the arguments are right")
}

/// What `get` writes to a place that holds nothing.
fn got<T>(get: impl FnOnce(*mut T) -> Status) -> T {
    let mut place = MaybeUninit::uninit();
    assert_eq!(get(place.as_mut_ptr()), Status::Ok);
    // SAFETY: it was written to.
    unsafe { place.assume_init() }
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
            unsafe { hotset_plan(Some(&mut cache), 0, 1, ids.as_ptr(), 3, slots, fills, n_out) }
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
        assert_eq!(hotset_commit(Some(&mut cache)), Status::Ok);
    }
    // SAFETY: each has a place for what it writes, here and below.
    let slot = got(|out| unsafe { hotset_get_slot(Some(&cache), 0, 5, out) });
    assert!(slot < 3);
    got(|out| unsafe { hotset_get_counts(Some(&cache), out) });
    got(|out| unsafe { hotset_get_usage(Some(&cache), 0, 0, 5, out) });
    got(|out| unsafe { hotset_get_heat(Some(&cache), 0, 0, 0, out) });
    got(|out| unsafe { hotset_get_regret(Some(&cache), usize::MAX, out) });
    got(|out| unsafe { hotset_get_policy_info(0, out) });
    let mut frequencies = [MaybeUninit::<f32>::uninit(); 6];
    let status = unsafe {
        hotset_get_frequencies(Some(&cache), 0, 0, 0, frequencies.as_mut_ptr().cast(), 6)
    };
    assert_eq!(status, Status::Ok);
    // SAFETY: all were written.
    let sum: f32 = frequencies.iter().map(|f| unsafe { f.assume_init() }).sum();
    assert!((sum - 3.0).abs() < 1e-5);
    let mut retired = [MaybeUninit::<u32>::uninit(); 2];
    let n_retired =
        got(|out| unsafe { hotset_resize(Some(&mut cache), 1, retired.as_mut_ptr().cast(), out) });
    // SAFETY: all were written.
    assert!(n_retired == 2 && retired.iter().all(|r| unsafe { r.assume_init() } < 3));
    hotset_free(Some(cache));
}

#[test]
fn profiles_are_compared_and_warm_a_cache() {
    let mut cache = cache();
    let params = HotsetProfileParams::of(&N_EXPERTS);
    // SAFETY: as the header says, here and below.
    let mut profile = unsafe { hotset_profile_init(&params) }.expect("the arguments are right");
    for ids in [[0, 1], [0, 2]] {
        let mut n_fills = 0;
        let mut slots = [0; 2];
        let mut fills = [HotsetFill { expert: 0, slot: 0 }; 2];
        let (slots, fills) = (slots.as_mut_ptr(), fills.as_mut_ptr());
        let status = unsafe {
            hotset_plan(
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
        assert_eq!(hotset_commit(Some(&mut cache)), Status::Ok);
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
        unsafe { hotset_prime_profiles(Some(&mut other), profiles.as_ptr(), null(), 1) },
        Status::Ok
    );
    let mut layers = [MaybeUninit::<u32>::uninit(); 3];
    let mut fills = [MaybeUninit::<HotsetFill>::uninit(); 3];
    let n_fills = got(|out| {
        let (layers, fills) = (layers.as_mut_ptr().cast(), fills.as_mut_ptr().cast());
        unsafe { hotset_warm(Some(&mut other), usize::MAX, layers, fills, out) }
    });
    // SAFETY: so many were written.
    let first = unsafe { (layers[0].assume_init(), fills[0].assume_init().expert) };
    assert_eq!((n_fills, first), (3, (1, 0)));
    assert_eq!(
        unsafe { hotset_follow(Some(&mut other), profiles.as_ptr(), 1) },
        Status::Ok
    );
    let mut confidence = MaybeUninit::uninit();
    let index =
        got(|out| unsafe { hotset_get_followed(Some(&other), out, confidence.as_mut_ptr()) });
    assert_eq!(index, usize::MAX);
    hotset_free(Some(cache));
    hotset_free(Some(other));
    hotset_profile_free(Some(profile));
}

#[test]
fn what_fails_writes_nothing() {
    let cache = cache();
    let mut slot = 77;
    // SAFETY: there is a place, or none.
    unsafe {
        assert_eq!(
            hotset_get_slot(Some(&cache), 9, 0, &mut slot),
            Status::InvalidArgument
        );
        assert_eq!(
            hotset_get_slot(Some(&cache), 0, 0, null_mut()),
            Status::InvalidArgument
        );
        assert_eq!(
            hotset_get_slot(None, 0, 0, &mut slot),
            Status::InvalidArgument
        );
        assert_eq!(CStr::from_ptr(hotset_error()), c"`cache` is NULL");
    }
    assert_eq!(slot, 77);
    hotset_free(Some(cache));
}
