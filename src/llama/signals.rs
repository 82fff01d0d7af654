//! Saving before a signal ends the process.
//!
//! Programs of llama.cpp set handlers of their own, some of which end the process at once, so a handler of
//! ours would be replaced, or come too late. Instead the signals are blocked in all threads but wait for
//! one of ours, which saves and then lets them take their usual course.

use super::hook;
use std::sync::Once;

/// Signals that end a program when a person or the system asks for it.
const SIGNALS: [libc::c_int; 2] = [libc::SIGINT, libc::SIGTERM];

/// Saves profiles before SIGINT and SIGTERM do what they do. Call it in the first thread, before it starts
/// others: these inherit what it blocks.
pub fn save_before_the_end() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let set = set(&SIGNALS);
        // SAFETY: the set is initialised; the old mask is not asked for.
        unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &set, std::ptr::null_mut()) };
        std::thread::spawn(wait);
    });
}

fn set(signals: &[libc::c_int]) -> libc::sigset_t {
    // SAFETY: a set of signals is plain data, which sigemptyset initialises.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        signals.iter().for_each(|&signal| {
            libc::sigaddset(&mut set, signal);
        });
        set
    }
}

fn wait() -> ! {
    let all = set(&SIGNALS);
    loop {
        let mut signal = 0;
        // SAFETY: both live during the call, and the signals are blocked in this thread.
        if unsafe { libc::sigwait(&all, &mut signal) } != 0 {
            continue;
        }
        hook::save_profiles();
        let one = set(&[signal]);
        // SAFETY: plain calls. The signal is raised in this thread, where it takes its usual course as
        // soon as it is not blocked; if the process is still there after it, it is blocked again.
        unsafe {
            libc::raise(signal);
            libc::pthread_sigmask(libc::SIG_UNBLOCK, &one, std::ptr::null_mut());
            libc::pthread_sigmask(libc::SIG_BLOCK, &one, std::ptr::null_mut());
        }
    }
}
