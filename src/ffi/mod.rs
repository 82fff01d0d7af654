//! The C ABI declared in `include/hotset.h`.
#![allow(unsafe_code)]

use crate::cache::{Cache, NO_SLOT};
use crate::error::Error;
use std::cell::RefCell;
use std::ffi::{CStr, CString, c_char};
use std::mem::MaybeUninit;
use std::panic::{AssertUnwindSafe, catch_unwind};

mod cache;
mod catalog;
mod profile;
mod queries;

pub use cache::*;
pub use catalog::*;
pub use profile::*;
pub use queries::*;

/// Mirrors `HOTSET_ABI_VERSION`.
const ABI_VERSION: u32 = 1;
const _: () = assert!(NO_SLOT == u32::MAX, "HOTSET_NO_SLOT is UINT32_MAX");

/// Mirrors `enum hotset_status`. Values are ABI: append only, never renumber.
#[repr(i32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// Success.
    Ok = 0,
    /// The caller broke a rule of the header.
    InvalidArgument = -1,
    /// A bug on our side.
    Panic = -2,
}

/// `struct hotset`: opaque to C.
pub struct Hotset {
    cache: Cache,
}

thread_local! {
    static LAST_ERROR: RefCell<CString> = RefCell::default();
}

fn remember(error: &str) {
    let text = CString::new(error.replace('\0', "")).unwrap_or_default();
    LAST_ERROR.with(|last| last.replace(text));
}

/// Runs one ABI call: errors and panics become a status, nothing unwinds into C.
fn guard(call: impl FnOnce() -> Result<(), Error>) -> Status {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(())) => Status::Ok,
        Ok(Err(error)) => {
            remember(&error.to_string());
            status(&error)
        }
        Err(_) => {
            remember("a bug in hotset, see the panic message on standard error");
            Status::Panic
        }
    }
}

/// The status of each error. Exhaustive on purpose: a new error must choose its status.
fn status(error: &Error) -> Status {
    match error {
        Error::Null(_)
        | Error::NoPlan
        | Error::ExpertOutOfRange { .. }
        | Error::LayerOutOfRange { .. }
        | Error::Event { .. }
        | Error::Setting { .. }
        | Error::Read { .. }
        | Error::File { .. }
        | Error::Io { .. }
        | Error::System { .. } => Status::InvalidArgument,
    }
}

/// Borrows a C array. A zero length is an empty slice whatever the pointer.
///
/// # Safety
///
/// If `len > 0` and `ptr` is not NULL, `ptr` must point to `len` aligned, initialised `T` that
/// nothing writes for `'a`.
unsafe fn slice_in<'a, T>(ptr: *const T, len: usize, name: &'static str) -> Result<&'a [T], Error> {
    if len == 0 {
        return Ok(&[]);
    }
    if ptr.is_null() {
        return Err(Error::Null(name));
    }
    // SAFETY: not NULL, and the caller vouches for the rest.
    Ok(unsafe { std::slice::from_raw_parts(ptr, len) })
}

/// Borrows a C array to write to, which may hold anything. A zero length is an empty slice whatever the pointer.
///
/// # Safety
///
/// If `len > 0` and `ptr` is not NULL, `ptr` must point to `len` aligned `T` that nothing else uses
/// for `'a`.
unsafe fn slice_out<'a, T>(
    ptr: *mut T,
    len: usize,
    name: &'static str,
) -> Result<&'a mut [MaybeUninit<T>], Error> {
    if len == 0 {
        return Ok(&mut []);
    }
    if ptr.is_null() {
        return Err(Error::Null(name));
    }
    // SAFETY: not NULL, the caller vouches for the rest, and nothing has to be there yet.
    Ok(unsafe { std::slice::from_raw_parts_mut(ptr.cast(), len) })
}

/// Writes to all of a C array that holds nothing yet. Panics if that has another length.
fn write_all<T: Copy>(places: &mut [MaybeUninit<T>], values: &[T]) {
    assert_eq!(places.len(), values.len());
    for (place, &value) in places.iter_mut().zip(values) {
        place.write(value);
    }
}

/// Borrows a C value to write to, which may hold anything.
///
/// # Safety
///
/// `ptr` must be NULL or point to an aligned `T` that nothing else uses for `'a`.
unsafe fn out<'a, T>(ptr: *mut T, name: &'static str) -> Result<&'a mut MaybeUninit<T>, Error> {
    // SAFETY: the caller vouches for it, and nothing has to be there yet.
    unsafe { ptr.cast::<MaybeUninit<T>>().as_mut() }.ok_or(Error::Null(name))
}

/// Copies a struct of parameters, whose first member says how large the caller thinks it is.
///
/// # Safety
///
/// `T` must begin with that size, a `usize`. `params` must be NULL or point to as many bytes as it says,
/// an initialised `T` if these are as many as a `T` has.
unsafe fn params_in<T: Copy>(params: *const T) -> Result<T, Error> {
    if params.is_null() {
        return Err(Error::Null("params"));
    }
    // SAFETY: not NULL, and the caller vouches for the first member.
    let size = unsafe { params.cast::<usize>().read() };
    if size != size_of::<T>() {
        return Err(Error::Setting {
            name: "size".to_string(),
            value: size.to_string(),
            allowed: format!("must be {} in this version", size_of::<T>()),
        });
    }
    // SAFETY: there are `size` bytes, and the caller vouches for them.
    Ok(unsafe { params.read() })
}

/// Borrows a C string.
///
/// # Safety
///
/// `text` must be NULL or end with a NUL, and nothing may write it for `'a`.
unsafe fn str_in<'a>(text: *const c_char, name: &'static str) -> Result<&'a str, Error> {
    if text.is_null() {
        return Err(Error::Null(name));
    }
    // SAFETY: not NULL, and the caller vouches for the rest.
    let text = unsafe { CStr::from_ptr(text) };
    text.to_str().map_err(|_| Error::Setting {
        name: name.to_string(),
        value: text.to_string_lossy().into_owned(),
        allowed: "must be UTF-8".to_string(),
    })
}

/// `hotset_abi_version`.
#[unsafe(no_mangle)]
pub extern "C" fn hotset_abi_version() -> u32 {
    ABI_VERSION
}

/// `hotset_error`.
#[unsafe(no_mangle)]
pub extern "C" fn hotset_error() -> *const c_char {
    LAST_ERROR.with(|last| last.borrow().as_ptr())
}

#[cfg(test)]
mod tests;
