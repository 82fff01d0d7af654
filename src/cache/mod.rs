//! A cache for engines that are not llama.cpp: router ids in, slots out. What the C ABI exports.

mod expert_cache;
mod profile;

pub use expert_cache::{Cache, N_LAYERS_MAX, N_TOTAL_MAX, NO_SLOT};
pub use profile::{begin_profile, merge_profiles, profile_similarity};
