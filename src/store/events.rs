//! A counter of what there is to see, on which a thread sleeps.
//!
//! The kernel counts completions in it, and we what else there is. The thread sleeps in plain calls rather than
//! in io_uring_enter, which tools such as valgrind do not know to be a call that blocks.

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Instant;

pub(super) struct Events {
    counter: File,
}

impl Events {
    pub fn new() -> io::Result<Self> {
        let fd = eventfd(0, EventfdFlags::CLOEXEC)?;
        Ok(Self { counter: fd.into() })
    }

    /// There is something to see.
    pub fn wake(&self) {
        // Fails only if the counter is full, and then the thread is awake.
        let _ = (&self.counter).write(&1u64.to_ne_bytes());
    }

    /// Sleeps until there is something to see that was not waited for yet, or until `due`.
    pub fn wait(&self, due: Option<Instant>) {
        if let Some(due) = due {
            let left = due.saturating_duration_since(Instant::now());
            let left = Timespec::try_from(left).ok();
            let mut entries = [PollFd::new(&self.counter, PollFlags::IN)];
            if poll(&mut entries, left.as_ref()) != Ok(1) {
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
