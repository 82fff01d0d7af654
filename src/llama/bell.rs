//! Asking the thread that saves (`ending.rs`), and waiting for it. Handlers of signals do that: nothing here allocates
//! or takes a lock.

use std::sync::atomic::Ordering::{AcqRel, Acquire, Release};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32};
use std::time::{Duration, Instant};

/// What the thread is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// To save what there is; the process may go on.
    Save,
    /// To save and report all of it: nothing follows.
    Finish,
}

/// How long somebody waits for it.
const PATIENCE: Duration = Duration::from_secs(3);
/// The process that has the thread: a child that was forked lacks it.
pub(super) static PROCESS: AtomicU32 = AtomicU32::new(0);
/// Where a byte wakes the thread.
pub(super) static BELL: AtomicI32 = AtomicI32::new(-1);
/// How often the thread was asked, and up to which of these it has answered.
pub(super) static N_ASKED: AtomicU32 = AtomicU32::new(0);
pub(super) static N_ANSWERED: AtomicU32 = AtomicU32::new(0);
/// Whether somebody has asked for the end.
pub(super) static IS_END: AtomicBool = AtomicBool::new(false);
/// Whether that was done.
pub(super) static HAS_ENDED: AtomicBool = AtomicBool::new(false);
/// Somebody has waited in vain: nobody else should.
pub(super) static IS_STUCK: AtomicBool = AtomicBool::new(false);

/// Whether this process has the thread.
pub fn is_here() -> bool {
    // SAFETY: a plain system call. Not `std`, which promises nothing to handlers of signals.
    PROCESS.load(Acquire) == unsafe { libc::getpid() } as u32
}

/// Asks the thread, if it is there, and waits for a few seconds at most. Returns whether it has answered.
pub fn ask(wish: Wish) -> bool {
    if !is_here() {
        return false;
    }
    if wish == Wish::Finish {
        IS_END.store(true, Release);
    }
    let ticket = N_ASKED.fetch_add(1, AcqRel).wrapping_add(1);
    ring();
    let is_answered = || N_ANSWERED.load(Acquire).wrapping_sub(ticket) as i32 >= 0;
    let begin = Instant::now();
    while !is_answered() {
        if IS_STUCK.load(Acquire) || begin.elapsed() > PATIENCE {
            IS_STUCK.store(true, Release);
            return false;
        }
        pause();
    }
    true
}

/// Wakes the thread.
pub fn ring() {
    // SAFETY: one byte of a static, into a pipe that stays open.
    unsafe { libc::write(BELL.load(Acquire), b"!".as_ptr().cast(), 1) };
}

/// Sleeps for a moment.
pub fn pause() {
    // SAFETY: no files, only a time.
    unsafe { libc::poll(std::ptr::null_mut(), 0, 1) };
}
