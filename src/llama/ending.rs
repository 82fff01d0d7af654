//! What is saved now and then, before a signal takes its course, and at the end of a process.
//!
//! A signal stops a thread anywhere, also within an allocation or with a lock of ours, and what a program does
//! then may end the process. So saving and reporting is the work of a thread of its own. Whoever asks for it
//! waits, but not for ever, and asking allocates nothing and takes no lock: handlers of signals may do it.

use super::{hook, signals};
use crate::report;
#[cfg(all(target_os = "linux", target_env = "gnu"))]
use libc::{c_int, c_void};
use std::io::{PipeReader, PipeWriter, Read};
use std::os::fd::{AsRawFd, IntoRawFd};
use std::sync::atomic::Ordering::{AcqRel, Acquire, Release};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32};
use std::sync::{Mutex, Once};
use std::thread::Builder;
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
/// When it saves for the first time, and how often then.
const FIRST_SAVE: Duration = Duration::from_secs(15);
const SAVE_INTERVAL: Duration = Duration::from_secs(120);

/// Whether there will be anything to save or to report.
static IS_WANTED: AtomicBool = AtomicBool::new(false);
/// The process that has the thread: a child that was forked lacks it.
static PROCESS: AtomicU32 = AtomicU32::new(0);
/// Where a byte wakes the thread.
static BELL: AtomicI32 = AtomicI32::new(-1);
/// How often the thread was asked, and up to which of these it has answered.
static N_ASKED: AtomicU32 = AtomicU32::new(0);
static N_ANSWERED: AtomicU32 = AtomicU32::new(0);
/// Whether somebody has asked for the end.
static IS_END: AtomicBool = AtomicBool::new(false);
/// Whether that was done.
static HAS_ENDED: AtomicBool = AtomicBool::new(false);
static REPORTS_AT_EXIT: AtomicBool = AtomicBool::new(false);
/// Somebody has waited in vain: nobody else should.
static IS_STUCK: AtomicBool = AtomicBool::new(false);

/// Says whether there will be anything to save or to report.
pub fn want(is_wanted: bool) {
    IS_WANTED.store(is_wanted, Release);
}

/// Starts the thread, if there will be anything to do. Returns whether it is there.
pub fn start() -> bool {
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

/// Whether this process has the thread.
pub fn is_here() -> bool {
    // SAFETY: a plain system call. Not `std`, which promises nothing to handlers of signals.
    PROCESS.load(Acquire) == unsafe { libc::getpid() } as u32
}

/// Saves and reports all there is when a program ends by `exit`, as some do in handlers of signals.
#[cfg(feature = "llama")]
pub fn report_at_exit() {
    REPORTS_AT_EXIT.store(true, Release);
    stand_first();
}

/// What is registered last runs first. While we wait, other threads go on, and need what is destroyed at the end: so
/// we stand before that, as far as it was made when the first batches were computed.
pub fn stand_first() {
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
        0 => hook::end(),
        // A child that was forked does nothing: the models are the parent's.
        _ => finish(),
    }
}

/// Saves and reports all there is, but for the comparison with other policies, as far as a few seconds suffice for that.
pub fn finish() {
    if !HAS_ENDED.load(Acquire) {
        ask(Wish::Finish);
    }
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

/// The thread.
fn attend(mut bell: PipeReader) {
    signals::leave_to_others();
    let mut next = Instant::now() + FIRST_SAVE;
    loop {
        listen(&mut bell, next.saturating_duration_since(Instant::now()));
        let n_asked = N_ASKED.load(Acquire);
        if n_asked != N_ANSWERED.load(Acquire) {
            match IS_END.load(Acquire) {
                true if HAS_ENDED.load(Acquire) => {}
                true => {
                    hook::end();
                    HAS_ENDED.store(true, Release);
                }
                false => hook::save(),
            }
            N_ANSWERED.store(n_asked, Release);
            IS_STUCK.store(false, Release);
            if !HAS_ENDED.load(Acquire) {
                // Who was interrupted with a lock goes on now.
                hook::save_profiles();
            }
        }
        signals::pass_on();
        if Instant::now() >= next {
            next = Instant::now() + SAVE_INTERVAL;
            if !HAS_ENDED.load(Acquire) {
                hook::save();
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
