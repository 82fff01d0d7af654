//! How a call ends: its status, and the words of the thread that made it.

use crate::error::Error;
use std::cell::RefCell;
use std::ffi::{CStr, CString, c_char};
use std::io::{self, ErrorKind};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Mirrors `hotset_status`. Values are ABI: append only, never renumber.
#[repr(i32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// Success.
    Ok = 0,
    /// The caller broke a rule of the header.
    Argument = -1,
    /// A bug on our side.
    Panic = -2,
    /// A profile of another model.
    Mismatch = -3,
    /// The system does not read or write a file.
    Io = -4,
    /// A file holds something else.
    Corrupt = -5,
    /// The call comes too early or too late.
    State = -6,
    /// The system has no memory for it.
    NoMemory = -7,
}

impl Status {
    /// All of them.
    pub(super) const ALL: [Self; 8] = [
        Self::Ok,
        Self::Argument,
        Self::Panic,
        Self::Mismatch,
        Self::Io,
        Self::Corrupt,
        Self::State,
        Self::NoMemory,
    ];

    fn text(self) -> &'static CStr {
        match self {
            Self::Ok => c"success",
            Self::Argument => c"an argument is not valid",
            Self::Panic => c"a bug in hotset",
            Self::Mismatch => c"a profile is of another model",
            Self::Io => c"a file cannot be read or written",
            Self::Corrupt => c"a file is damaged or of another kind",
            Self::State => c"the call comes at the wrong time",
            Self::NoMemory => c"there is not enough memory",
        }
    }

    /// Exhaustive on purpose: a new error must choose its status.
    fn of(error: &Error) -> Self {
        match error {
            Error::Null(_)
            | Error::ExpertOutOfRange { .. }
            | Error::LayerOutOfRange { .. }
            | Error::Event { .. }
            | Error::Setting { .. } => Self::Argument,
            Error::NoPlan | Error::State(_) => Self::State,
            Error::Mismatch { .. } => Self::Mismatch,
            Error::File { .. } => Self::Corrupt,
            Error::NoMemory { .. } => Self::NoMemory,
            Error::Read { cause, .. }
            | Error::Unreadable { cause, .. }
            | Error::Io { cause, .. }
            | Error::System { cause, .. } => Self::of_system(cause),
        }
    }

    fn of_system(cause: &io::Error) -> Self {
        match cause.kind() {
            ErrorKind::OutOfMemory => Self::NoMemory,
            _ => Self::Io,
        }
    }
}

thread_local! {
    /// Why the latest call of this thread failed, if it did.
    static LAST_ERROR: RefCell<Option<CString>> = const { RefCell::new(None) };
}

/// A thread that ends and has destroyed it already remembers nothing.
fn remember(text: &str) {
    let text = CString::new(text.replace('\0', "")).unwrap_or_default();
    let _ = LAST_ERROR.try_with(|last| last.replace(Some(text)));
}

/// Nearly always there is nothing to forget.
fn forget() {
    let _ = LAST_ERROR.try_with(|last| {
        if last.borrow().is_some() {
            last.replace(None);
        }
    });
}

/// Runs one ABI call: errors and panics become a status, nothing unwinds into C.
pub(super) fn guard(call: impl FnOnce() -> Result<(), Error>) -> Status {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(())) => {
            forget();
            Status::Ok
        }
        Ok(Err(error)) => {
            remember(&error.to_string());
            Status::of(&error)
        }
        Err(_) => {
            remember("a bug in hotset, see the panic message on standard error");
            Status::Panic
        }
    }
}

/// Drops what a caller has owned. That it panics cannot be told.
pub(super) fn discard<T>(owned: Option<Box<T>>) {
    let _ = catch_unwind(AssertUnwindSafe(|| drop(owned)));
}

/// `hotset_status_text`.
#[unsafe(no_mangle)]
pub extern "C" fn hotset_status_text(status: i32) -> *const c_char {
    let known = Status::ALL.iter().find(|known| **known as i32 == status);
    known
        .map_or(c"no status of this version", |known| known.text())
        .as_ptr()
}

/// `hotset_last_error`.
#[unsafe(no_mangle)]
pub extern "C" fn hotset_last_error() -> *const c_char {
    let text = LAST_ERROR.try_with(|last| last.borrow().as_ref().map(|text| text.as_ptr()));
    text.ok().flatten().unwrap_or(c"".as_ptr())
}
