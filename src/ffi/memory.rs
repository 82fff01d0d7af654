//! Asks for memory before it is needed: an allocation that fails in the midst of a call would end the caller's process.

use crate::error::Error;
use std::hint::black_box;

/// An error if the system does not promise as many bytes at once. They are given back at once: nobody else of this
/// process may take them meanwhile.
pub(super) fn check(n_bytes: u64, what: impl FnOnce() -> String) -> Result<(), Error> {
    let mut promised = Vec::<u8>::new();
    let size = usize::try_from(n_bytes).unwrap_or(usize::MAX);
    if promised.try_reserve_exact(size).is_ok() {
        // Or the compiler sees that nobody uses them, and never asks.
        black_box(promised.as_ptr());
        return Ok(());
    }
    Err(Error::NoMemory {
        what: what(),
        n_bytes,
    })
}
