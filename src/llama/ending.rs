//! What is saved now and then, before a signal takes its course, and at the end of a process.
//!
//! A signal stops a thread anywhere, also within an allocation or with a lock of ours, and what a program does
//! then may end the process. So saving and reporting is the work of a thread of its own. Whoever asks for it
//! waits, but not for ever, and asking allocates nothing and takes no lock: handlers of signals may do it.

use super::batch::N_BEGUN;
use super::bell::{
    self, BELL, HAS_ENDED, IS_END, IS_STUCK, N_ANSWERED, N_ASKED, PROCESS, Wish, is_here,
};
use super::bound::BOUND;
use super::{device, observer, saving, signals, speaker};
use crate::output::Pace;
use crate::report;
#[cfg(all(target_os = "linux", target_env = "gnu"))]
use libc::{c_int, c_void};
use std::io::{PipeReader, PipeWriter, Read};
use std::os::fd::{AsRawFd, IntoRawFd};
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU32};
use std::sync::{Mutex, Once};
use std::thread::Builder;
use std::time::{Duration, Instant};

/// Whether there will be anything to save or to report.
static IS_WANTED: AtomicBool = AtomicBool::new(false);
static REPORTS_AT_EXIT: AtomicBool = AtomicBool::new(false);
/// Sees to it that signals do not end the process before what the models leave is saved.
pub fn chain() {
    if !BOUND.load().is_empty() || observer::observes() || !device::all().is_empty() {
        if start() {
            signals::chain();
        }
        stand_first();
    }
}

/// Says whether there will be anything to save or to report.
pub fn want(is_wanted: bool) {
    IS_WANTED.store(is_wanted, Release);
}

/// Starts the thread, if there will be anything to do. Returns whether it is there.
fn start() -> bool {
    static ONCE: Once = Once::new();
    if IS_WANTED.load(Acquire) {
        ONCE.call_once(|| {
            if let Err(cause) = try_start() {
                report::say(&format!(
                    "hotset: warning: no thread for saving: {cause}; nothing is saved when a signal ends the process"
                ));
            }
        });
    }
    IS_WANTED.load(Acquire) && is_here()
}

fn try_start() -> std::io::Result<()> {
    let (reader, writer) = std::io::pipe()?;
    never_block(&writer);
    Builder::new()
        .name("hotset-end".to_string())
        .spawn(move || attend(reader))?;
    BELL.store(writer.into_raw_fd(), Release);
    PROCESS.store(std::process::id(), Release);
    Ok(())
}

/// Whoever asks must not wait for room in the pipe: what is in there wakes the thread already.
fn never_block(writer: &PipeWriter) {
    let fd = writer.as_raw_fd();
    // SAFETY: plain system calls on a file that is open.
    unsafe {
        let flags = libc::fcntl(fd, libc::F_GETFL);
        libc::fcntl(fd, libc::F_SETFL, flags | libc::O_NONBLOCK);
    }
}

/// Saves and reports all there is when a program ends by `exit`, as some do in handlers of signals.
#[cfg(feature = "llama")]
pub fn report_at_exit() {
    REPORTS_AT_EXIT.store(true, Release);
    stand_first();
}

/// What is registered last runs first. While we wait, other threads go on, and need what is destroyed at the end: so
/// we stand before that, as far as it was made when the first batches were computed.
fn stand_first() {
    const N_MAX: u32 = 4;
    static N: AtomicU32 = AtomicU32::new(0);
    if REPORTS_AT_EXIT.load(Acquire) && N.load(Acquire) < N_MAX {
        N.fetch_add(1, AcqRel);
        register();
    }
}

/// With the status where the system tells it.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn register() {
    unsafe extern "C" {
        fn on_exit(function: extern "C" fn(c_int, *mut c_void), argument: *mut c_void) -> c_int;
    }
    extern "C" fn end(status: c_int, _: *mut c_void) {
        at_exit();
        if signals::is_in_handler() {
            // Other threads go on, and would crash without what destructors destroy.
            // SAFETY: a plain call.
            unsafe { libc::_exit(status) };
        }
    }
    // SAFETY: the function does not unwind, and the program's code stays.
    unsafe { on_exit(end, std::ptr::null_mut()) };
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn register() {
    // SAFETY: the function does not unwind, and the program's code stays.
    unsafe { libc::atexit(at_exit) };
}

extern "C" fn at_exit() {
    match PROCESS.load(Acquire) {
        // The thread could not be made, or was not needed.
        0 => saving::end(),
        // A child that was forked does nothing: the models are the parent's.
        _ => finish(),
    }
}

/// Saves and reports all there is, but for the comparison with other policies, as far as a few seconds suffice for that.
pub fn finish() {
    if !is_here() {
        speaker::flush();
    } else if !HAS_ENDED.load(Acquire) {
        bell::ask(Wish::Finish);
    }
}

/// The thread.
fn attend(mut bell: PipeReader) {
    signals::leave_to_others();
    let begin = Instant::now();
    let mut pace = Pace::default();
    loop {
        listen(&mut bell, pace.pause(begin.elapsed()));
        let n_asked = N_ASKED.load(Acquire);
        if n_asked != N_ANSWERED.load(Acquire) {
            match IS_END.load(Acquire) {
                true if HAS_ENDED.load(Acquire) => {}
                true => {
                    saving::end();
                    HAS_ENDED.store(true, Release);
                }
                false => saving::save(),
            }
            N_ANSWERED.store(n_asked, Release);
            IS_STUCK.store(false, Release);
            if !HAS_ENDED.load(Acquire) {
                // Who was interrupted with a lock goes on now.
                saving::save_profiles();
            }
        }
        signals::pass_on();
        // Before it is saved: what is computed meanwhile is for the next time.
        let n_begun = N_BEGUN.load(Relaxed);
        if pace.is_due(begin.elapsed(), n_begun) && !HAS_ENDED.load(Acquire) {
            saving::save();
            if IS_WANTED.load(Acquire) {
                signals::chain();
            }
        }
    }
}

/// Waits for the bell, or until `limit` is over.
fn listen(bell: &mut PipeReader, limit: Duration) {
    let mut file = libc::pollfd {
        fd: bell.as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    };
    let limit = limit.as_millis().min(i32::MAX as u128) as i32;
    // SAFETY: one file, which lives during the call.
    if unsafe { libc::poll(&mut file, 1, limit) } > 0 {
        let _ = bell.read(&mut [0; 64]);
    }
}

/// Does `work`, which takes locks or writes files, in another thread: the calling one may be stopped by a signal
/// that ends the process. Signals that come meanwhile interrupt other threads.
pub fn apart<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    if !is_here() {
        return work();
    }
    signals::elsewhere(|| in_a_thread(work))
}

fn in_a_thread<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    let work = Mutex::new(Some(work));
    let take = || work.lock().expect("nobody panics with it").take();
    std::thread::scope(|scope| {
        let builder = Builder::new().name("hotset-report".to_string());
        let thread = builder.spawn_scoped(scope, || take().map(|work| work()));
        let done = match thread {
            Ok(thread) => thread
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
            Err(_) => take().map(|work| work()),
        };
        done.expect("it is done once")
    })
}
