//! The devices that llama.cpp can compute on.

use serde::Serialize;

/// A device.
#[derive(Debug, Clone, Serialize)]
pub struct Gpu {
    pub name: String,
    pub description: String,
    /// 0 where the device does not say.
    pub memory_bytes: u64,
    pub free_bytes: u64,
    /// Whether its memory is that of the machine.
    pub is_integrated: bool,
}

/// All of them; `None` in a program without llama.cpp.
#[cfg(feature = "llama")]
pub fn look() -> Option<Vec<Gpu>> {
    let found = hotset::llama::device_list::gpus().into_iter();
    let gpu = |gpu: hotset::llama::device_list::Gpu| Gpu {
        name: gpu.name,
        description: gpu.description,
        memory_bytes: gpu.memory_bytes,
        free_bytes: gpu.free_bytes,
        is_integrated: gpu.is_integrated,
    };
    Some(found.map(gpu).collect())
}

/// Nobody has looked.
#[cfg(not(feature = "llama"))]
pub fn look() -> Option<Vec<Gpu>> {
    None
}
