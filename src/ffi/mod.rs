//! The C ABI declared in `include/hotset.h`: each function converts, calls, converts back.
#![allow(unsafe_code)]

mod cache;
#[cfg(test)]
mod layout;
#[cfg(feature = "hooks")]
mod llama;
mod memory;
mod numbers;
mod pointers;
mod policies;
mod profile;
mod queries;
mod sized;
mod status;
#[cfg(test)]
mod tests;
mod trace;
mod version;
mod warm;

pub use cache::*;
#[cfg(feature = "hooks")]
pub use llama::*;
pub use policies::*;
pub use profile::*;
pub use queries::*;
pub use status::*;
pub use trace::*;
pub use version::*;
pub use warm::*;
