//! The threads of a queue.

use std::thread::{self, JoinHandle};

/// Held by every thread of a queue. One that panics, in the sink or here, leaves somebody waiting
/// for a read forever, and memory that the kernel may still write to: better to end loudly.
pub(super) struct AbortOnPanic;

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if thread::panicking() {
            std::process::abort();
        }
    }
}

/// Ends a thread of a queue. The last owner of a queue may be its sink; a thread cannot wait for
/// itself, but ends after the call of the sink, and keeps what it needs until then.
pub(super) fn join(thread: JoinHandle<()>) {
    if thread.thread().id() != thread::current().id() {
        thread.join().expect("a panic would have aborted");
    }
}
