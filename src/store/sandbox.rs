//! Sandboxes that end a process for a system call instead of refusing it.
//!
//! systemd's `SystemCallFilter=@system-service` does so with io_uring, which its lists leave out. Nobody can
//! ask a filter what it would do, so a child process tries: the filter is its, too.

// A process that shares nothing is made by a raw call, and may make raw calls only.
#![allow(unsafe_code)]

use rustix::process::{Pid, WaitOptions, waitpid};
use std::cell::RefCell;
use std::fs;
use std::ptr;

thread_local! {
    /// The last sandbox that was tried, and what became of the child. Threads may have filters of their own.
    static KNOWN: RefCell<Option<(String, bool)>> = const { RefCell::new(None) };
}

/// Whether the calling thread is in a sandbox that ends the process when io_uring is set up.
pub(super) fn kills_uring() -> bool {
    let Some(sandbox) = sandbox() else {
        return false;
    };
    KNOWN.with_borrow_mut(|known| match known {
        Some((tried, kills)) if *tried == sandbox => *kills,
        _ => {
            let kills = dies();
            *known = Some((sandbox, kills));
            kills
        }
    })
}

/// What the system says of the filters that the calling thread has; `None` if it has none. Filters are only
/// ever added, so their number tells one sandbox of a process from another.
fn sandbox() -> Option<String> {
    let status = fs::read_to_string("/proc/thread-self/status").ok()?;
    let lines = status.lines().filter(|line| line.starts_with("Seccomp"));
    let sandbox: String = lines.collect();
    // Mode 2 is a filter.
    let is_filtered = sandbox.starts_with("Seccomp:\t2");
    is_filtered.then_some(sandbox)
}

/// Whether a child that sets up io_uring is ended by a signal. False if there can be no child.
fn dies() -> bool {
    // SAFETY: without flags this is a fork that sends nobody a signal when the child ends. The child has only
    // the calling thread, in which no lock may be taken any more: it makes two plain calls. The first fails,
    // unless it is fatal, because no ring has 0 entries.
    let child = unsafe {
        let child = libc::syscall(libc::SYS_clone, 0, 0, 0, 0, 0);
        if child == 0 {
            libc::syscall(libc::SYS_io_uring_setup, 0, ptr::null_mut::<libc::c_void>());
            libc::syscall(libc::SYS_exit_group, 0);
        }
        child
    };
    if child < 0 {
        return false;
    }
    // It sends no signal when it ends.
    let options = WaitOptions::from_bits_retain(libc::__WALL as u32);
    let child = Pid::from_raw(child as i32);
    match rustix::io::retry_on_intr(|| waitpid(child, options)) {
        Ok(Some((_, status))) => status.signaled(),
        _ => false,
    }
}
