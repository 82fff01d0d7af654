//! Keeps the experts a mixture-of-experts model is about to use in fast memory.
//!
//! [`engine`] streams the experts of one model from disk and is what llama.cpp's hook calls;
//! [`cache`] decides for engines that move bytes themselves. Both rank experts with a [`policy`].

pub mod auto;
pub mod cache;
pub mod config;
pub mod device;
pub mod draft_tokens;
pub mod engine;
pub mod error;
pub mod expert;
pub mod ffi;
pub mod gguf;
pub mod hindsight;
#[cfg(feature = "hooks")]
pub mod llama;
pub mod math;
pub mod measuring;
pub mod memory;
pub mod output;
pub mod policy;
pub(crate) mod proc;
pub mod profile;
pub mod recent_events;
pub mod replay;
pub mod report;
pub mod residency;
pub mod sharing;
pub mod statistics;
pub mod stats;
pub mod store;
pub mod sync;
pub mod trace;
pub mod tracker;
pub mod trial;
