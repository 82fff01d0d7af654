//! The devices that llama.cpp can compute on.

use hotset::device::Gpu;

/// All of them; `None` in a program without llama.cpp.
#[cfg(feature = "llama")]
pub fn look() -> Option<Vec<Gpu>> {
    Some(hotset::llama::device_list::gpus())
}

/// Nobody has looked.
#[cfg(not(feature = "llama"))]
pub fn look() -> Option<Vec<Gpu>> {
    None
}
