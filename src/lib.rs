//! Keeps the experts a mixture-of-experts model is about to use in fast memory.
//!
//! [`cache`] decides for engines that move bytes themselves: it ranks experts with a [`policy`], and [`profile`] keeps what
//! a workload picks. `include/hotset.h` is the same for C. `llama` is what llama.cpp's hook calls: there the experts of a model
//! are streamed from disk. [`trace`] and [`replay`] are recorded routing, and what policies would make of it.

// Some parts only serve the program and the tests, which see them with the feature.
#![cfg_attr(not(feature = "internals"), allow(dead_code, unused_imports))]

pub mod cache;
pub mod config;
pub mod error;
pub mod expert;
#[cfg(feature = "hooks")]
pub mod llama;
pub mod policy;
pub(crate) mod proc;
pub mod profile;
pub mod replay;
pub mod trace;
pub mod tracker;

/// Declares modules that are nobody's but this package's.
macro_rules! internal {
    ($($module:ident)*) => {$(
        #[cfg(feature = "internals")]
        #[doc(hidden)]
        pub mod $module;
        #[cfg(not(feature = "internals"))]
        mod $module;
    )*};
}

internal! {
    device
    draft_tokens
    engine
    ffi
    gguf
    hindsight
    live
    measuring
    memory
    notice
    numbers
    output
    pack
    pooled
    recent_events
    report
    residency
    sharing
    stats
    statistics
    store
    sync
    timeline
    trial
}
