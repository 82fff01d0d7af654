//! Which library this is.

use std::ffi::{CStr, c_char};

/// Mirrors `HOTSET_ABI_VERSION`.
pub(super) const ABI_VERSION: u32 = 2;

const TEXT: &CStr =
    match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
        Ok(text) => text,
        Err(_) => panic!("a version holds no NUL"),
    };

/// `hotset_abi_version`.
#[unsafe(no_mangle)]
pub extern "C" fn hotset_abi_version() -> u32 {
    ABI_VERSION
}

/// `hotset_version`.
#[unsafe(no_mangle)]
pub extern "C" fn hotset_version() -> u32 {
    const fn number(text: &str) -> u32 {
        match u32::from_str_radix(text, 10) {
            Ok(number) => number,
            Err(_) => panic!("a version is made of numbers"),
        }
    }
    const MAJOR: u32 = number(env!("CARGO_PKG_VERSION_MAJOR"));
    const MINOR: u32 = number(env!("CARGO_PKG_VERSION_MINOR"));
    const PATCH: u32 = number(env!("CARGO_PKG_VERSION_PATCH"));
    const { 1_000_000 * MAJOR + 1000 * MINOR + PATCH }
}

/// `hotset_version_string`.
#[unsafe(no_mangle)]
pub extern "C" fn hotset_version_string() -> *const c_char {
    TEXT.as_ptr()
}
