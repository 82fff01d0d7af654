//! Structs that begin with their size, to which later versions append members.
//!
//! The size is the caller's `sizeof`. A caller that is older than the library knows fewer members, a newer one more.

use crate::error::Error;
use std::marker::PhantomData;
use std::mem::MaybeUninit;

/// No version of a struct has more bytes: a larger size is one that nobody has set.
const SIZE_MAX: usize = 4096;

/// A struct that grows.
///
/// # Safety
///
/// It must be `repr(C)` and begin with its size, a `usize`. All bytes 0 must be a value of it.
pub(super) unsafe trait Grows: Copy {
    /// What it is called in C.
    const NAME: &'static str;
    /// The bytes of the members that every version has.
    const SIZE_MIN: usize;
}

/// The size that the caller has set.
///
/// # Safety
///
/// `ptr` must point to an aligned, initialised `usize`.
unsafe fn size_of_caller<T: Grows>(ptr: *const T) -> Result<usize, Error> {
    // SAFETY: passed on from our caller; `T` begins with it.
    let size = unsafe { ptr.cast::<usize>().read() };
    // As every sizeof: members, which may be pointers, come whole.
    let is_sizeof = size.is_multiple_of(align_of::<T>());
    if is_sizeof && (T::SIZE_MIN..=SIZE_MAX).contains(&size) {
        return Ok(size);
    }
    Err(wrong_size(
        size,
        format!(
            "must be sizeof(struct {}), here {}",
            T::NAME,
            size_of::<T>()
        ),
    ))
}

fn wrong_size(size: usize, allowed: String) -> Error {
    Error::setting("size", size, allowed)
}

/// Copies a struct. Members that the caller does not know are 0, and those that we do not know must be.
///
/// # Safety
///
/// `ptr` must be NULL or point to an aligned struct of as many initialised bytes as its size says, and its size must be
/// initialised in any case.
pub(super) unsafe fn struct_in<T: Grows>(ptr: *const T, name: &'static str) -> Result<T, Error> {
    if ptr.is_null() {
        return Err(Error::Null(name));
    }
    // SAFETY: not NULL, and passed on from our caller.
    let size = unsafe { size_of_caller(ptr) }?;
    let n_known = size.min(size_of::<T>());
    let bytes = ptr.cast::<u8>();
    // SAFETY: below the size, for which our caller vouches.
    if let Some(at) = (n_known..size).find(|&at| unsafe { bytes.add(at).read() } != 0) {
        let why = format!(
            "this version knows {n_known} bytes of struct {}, and byte {at} is not 0",
            T::NAME
        );
        return Err(wrong_size(size, why));
    }
    let mut value = MaybeUninit::<T>::zeroed();
    // SAFETY: neither is shorter. What is copied are members of `T`, and `T` may be 0 elsewhere.
    unsafe {
        bytes.copy_to_nonoverlapping(value.as_mut_ptr().cast(), n_known);
        Ok(value.assume_init())
    }
}

/// A place for a struct, which holds its size and may hold nothing else.
#[derive(Debug)]
pub(super) struct StructPlace<T> {
    bytes: *mut u8,
    size: usize,
    holds: PhantomData<T>,
}

impl<T: Grows> StructPlace<T> {
    /// An error if `ptr` is NULL, which is called `name`.
    ///
    /// # Safety
    ///
    /// `ptr` must be NULL or point to an aligned struct of as many writable bytes as its size says, which must be
    /// initialised, as long as the place is used.
    pub(super) unsafe fn new(ptr: *mut T, name: &'static str) -> Result<Self, Error> {
        if ptr.is_null() {
            return Err(Error::Null(name));
        }
        Ok(Self {
            // SAFETY: not NULL, and passed on from our caller.
            size: unsafe { size_of_caller(ptr) }?,
            bytes: ptr.cast(),
            holds: PhantomData,
        })
    }

    /// Writes the members that the caller knows, and 0 to what we do not know. The size stays as it is.
    pub(super) fn write(&self, value: &T) {
        let (first, n_known) = (size_of::<usize>(), self.size.min(size_of::<T>()));
        let from = std::ptr::from_ref(value).cast::<u8>();
        // SAFETY: who made the place vouches for `size` bytes, of which these are a part, and `value` has as many as
        // are copied. The caller's memory is no value of ours.
        unsafe {
            let to = self.bytes.add(first);
            from.add(first).copy_to_nonoverlapping(to, n_known - first);
            self.bytes.add(n_known).write_bytes(0, self.size - n_known);
        }
    }
}
