//! A counter of what there is to see, on which a thread sleeps.
//!
//! The kernel counts completions in it, and we what else there is. The thread sleeps in plain calls rather than
//! in io_uring_enter, which tools such as valgrind do not know to be a call that blocks.

// eventfd and poll have no safe form.
#![allow(unsafe_code)]

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Instant;

pub(super) struct Events {
    counter: File,
}

impl Events {
    pub fn new() -> io::Result<Self> {
        // SAFETY: the call takes no pointers.
        match unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) } {
            -1 => Err(io::Error::last_os_error()),
            fd => {
                // SAFETY: a new descriptor, which nobody else owns.
                let fd = unsafe { OwnedFd::from_raw_fd(fd) };
                Ok(Self { counter: fd.into() })
            }
        }
    }

    /// There is something to see.
    pub fn wake(&self) {
        // Fails only if the counter is full, and then the thread is awake.
        let _ = (&self.counter).write(&1u64.to_ne_bytes());
    }

    /// Sleeps until there is something to see that was not waited for yet, or until `due`.
    pub fn wait(&self, due: Option<Instant>) {
        if let Some(due) = due {
            let mut entry = libc::pollfd {
                fd: self.counter.as_raw_fd(),
                events: libc::POLLIN,
                revents: 0,
            };
            let left = due.saturating_duration_since(Instant::now());
            // Rounded up, or it would look too early.
            let ms = left.as_millis().min(60_000) as libc::c_int + 1;
            // SAFETY: `entry` is one entry, readable and writable for the length of the call.
            if unsafe { libc::poll(&mut entry, 1, ms) } != 1 {
                return;
            }
        }
        let mut count = [0; 8];
        if let Err(e) = (&self.counter).read(&mut count) {
            assert_eq!(e.kind(), io::ErrorKind::Interrupted, "eventfd: {e}");
        }
    }
}

impl AsFd for Events {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.counter.as_fd()
    }
}
