//! What C passes: arrays and texts to read, and places to write to, which may hold nothing yet.

use super::status::{Status, guard};
use crate::error::Error;
use std::ffi::{CStr, c_char};
use std::ptr::null_mut;

/// A place for one value.
#[derive(Debug)]
pub(super) struct Place<T>(*mut T);

impl<T> Place<T> {
    /// An error if `ptr` is NULL, which is called `name`.
    ///
    /// # Safety
    ///
    /// If it is not NULL, `ptr` must be aligned, and writable as long as the place is used.
    pub(super) unsafe fn new(ptr: *mut T, name: &'static str) -> Result<Self, Error> {
        match ptr.is_null() {
            true => Err(Error::Null(name)),
            false => Ok(Self(ptr)),
        }
    }

    pub(super) fn write(&self, value: T) {
        // SAFETY: who made the place vouches for the pointer. Nothing is dropped there.
        unsafe { self.0.write(value) };
    }
}

/// Places for several values.
#[derive(Debug)]
pub(super) struct Places<T> {
    first: *mut T,
    len: usize,
}

impl<T> Places<T> {
    /// An error if `first` is NULL, which is called `name`, and `len` is not 0.
    ///
    /// # Safety
    ///
    /// If `len > 0` and it is not NULL, `first` must point to `len` aligned `T` that are writable as long as the
    /// places are used.
    pub(super) unsafe fn new(first: *mut T, len: usize, name: &'static str) -> Result<Self, Error> {
        match len > 0 && first.is_null() {
            true => Err(Error::Null(name)),
            false => Ok(Self { first, len }),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn write(&self, i: usize, value: T) {
        assert!(i < self.len, "place {i} of {}", self.len);
        // SAFETY: who made the places vouches for the pointer, and it is one of them. Nothing is dropped there.
        unsafe { self.first.add(i).write(value) };
    }

    /// Writes `values` to the first places.
    pub(super) fn write_all(&self, values: impl IntoIterator<Item = T>) {
        for (i, value) in values.into_iter().enumerate() {
            self.write(i, value);
        }
    }
}

/// Borrows a C array. A zero length is an empty slice whatever the pointer.
///
/// # Safety
///
/// If `len > 0` and `ptr` is not NULL, `ptr` must point to `len` aligned, initialised `T` that
/// nothing writes for `'a`.
pub(super) unsafe fn slice_in<'a, T>(
    ptr: *const T,
    len: usize,
    name: &'static str,
) -> Result<&'a [T], Error> {
    if len == 0 {
        return Ok(&[]);
    }
    if ptr.is_null() {
        return Err(Error::Null(name));
    }
    // SAFETY: not NULL, and the caller vouches for the rest.
    Ok(unsafe { std::slice::from_raw_parts(ptr, len) })
}

/// Borrows a C string.
///
/// # Safety
///
/// `text` must be NULL or end with a NUL, and nothing may write it for `'a`.
pub(super) unsafe fn str_in<'a>(text: *const c_char, name: &'static str) -> Result<&'a str, Error> {
    if text.is_null() {
        return Err(Error::Null(name));
    }
    // SAFETY: not NULL, and the caller vouches for the rest.
    let text = unsafe { CStr::from_ptr(text) };
    text.to_str().map_err(|_| Error::setting(name, text.to_string_lossy().into_owned(), "must be UTF-8"))
}

/// Gives the caller what `make` returns, to own; NULL, if it fails.
///
/// # Safety
///
/// As for [`Place::new`].
pub(super) unsafe fn construct<T>(
    out: *mut *mut T,
    name: &'static str,
    make: impl FnOnce() -> Result<T, Error>,
) -> Status {
    guard(|| {
        // SAFETY: passed on from our caller.
        let out = unsafe { Place::new(out, name) }?;
        out.write(null_mut());
        out.write(Box::into_raw(Box::new(make()?)));
        Ok(())
    })
}
