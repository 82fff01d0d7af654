//! What is known of a device before anything is on it.

use serde::Serialize;

/// A device that computes, besides the processor.
#[derive(Debug, Clone, Serialize)]
pub struct Gpu {
    /// As `--device` takes it.
    pub name: String,
    /// What it calls itself.
    pub description: String,
    /// Its memory; 0 if it does not say.
    pub memory_bytes: u64,
    /// What of it is free.
    pub free_bytes: u64,
    /// Whether its memory is the machine's.
    pub is_integrated: bool,
}
