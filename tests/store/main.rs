//! The read queue against real files: whatever the way of reading, the bytes are the file's.

// Looks into arenas, and takes system calls away from threads.
#![allow(unsafe_code)]

mod ahead;
#[cfg(target_os = "linux")]
mod arena;
mod files;
mod queue;
#[cfg(target_os = "linux")]
mod refused;
mod retry;
mod support;
mod way;
