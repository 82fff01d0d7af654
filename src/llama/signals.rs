//! Saving before a signal ends the process.
//!
//! Our handler stands before the one that the program has set, or before the default. It runs in the thread
//! that the signal interrupts, asks another thread to save (`ending.rs`), and then calls what was there, in the
//! same thread: so a `read` that waits for input ends, and a program that exits in its handler does that where
//! it would. Nothing is blocked where the program runs, so what it starts inherits nothing.
//!
//! Programs set their handlers at any time, so we look again before each batch.

use super::bell::{self, Wish};
use crate::sync::Busy;
use libc::{c_int, c_void, siginfo_t};
use std::sync::Mutex;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Release};
use std::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, AtomicUsize};
use std::time::{Duration, Instant};

/// Signals that end a program when a person, the system, a closed terminal or whoever read what it prints asks for it.
const SIGNALS: [c_int; 4] = [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGPIPE];

/// What a signal did before our handler was set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Course {
    handler: usize,
    flags: c_int,
}

const DEFAULT: &Course = &Course {
    handler: libc::SIG_DFL,
    flags: 0,
};

/// What is known of one of the signals.
struct Link {
    /// What it does after our handler, and what it did when that was set for the first time: a program that
    /// has replaced our handler may call it in its own.
    course: AtomicPtr<Course>,
    first: AtomicPtr<Course>,
    /// The thread that is in the program's handler, called by ours.
    caller: AtomicUsize,
}

impl Link {
    const fn new() -> Self {
        Self {
            course: AtomicPtr::new(std::ptr::null_mut()),
            first: AtomicPtr::new(std::ptr::null_mut()),
            caller: AtomicUsize::new(0),
        }
    }
}

static LINKS: [Link; SIGNALS.len()] = [const { Link::new() }; SIGNALS.len()];

/// The thread in which a signal waits for what is saved; 0 if there is none.
static WAITING: AtomicUsize = AtomicUsize::new(0);
/// How often each signal came meanwhile: two may mean more than one.
static PENDING: [AtomicU32; SIGNALS.len()] = [const { AtomicU32::new(0) }; SIGNALS.len()];
/// Since when signals wait for a thread that is busy, in milliseconds of a clock; 0 if none does.
static HELD_BACK: AtomicU64 = AtomicU64::new(0);
/// The first thread of the process, if it was seen, and a bit for each signal that it takes.
static MAIN: AtomicUsize = AtomicUsize::new(0);
static MAIN_TAKES: AtomicU32 = AtomicU32::new(0);

/// Gives a program of llama.cpp the signals as its own `main` would have them. Call it before there are threads.
#[cfg(feature = "llama")]
pub fn begin() {
    extern "C" fn pass(_: c_int) {}
    // SAFETY: plain calls, and a handler that does nothing.
    unsafe {
        // Rust has it ignored, and a program whose text nobody reads any more would go on to its last token.
        libc::signal(libc::SIGPIPE, libc::SIG_DFL);
        // A limit on the size of files is an error of what is written, and no end of the program. What is ignored would
        // be inherited by what the program starts, a handler is not.
        if action(libc::SIGXFSZ, None).sa_sigaction == libc::SIG_DFL {
            libc::signal(libc::SIGXFSZ, pass as *const () as usize);
        }
    }
}

/// Puts our handler before those that are set now, unless it is there, or the thread that it asks is not. What is ignored
/// stays ignored.
pub fn chain() {
    /// All that were ever found. They stay, because a handler may be about to look at one.
    static COURSES: Mutex<Vec<&'static Course>> = Mutex::new(Vec::new());
    let Ok(mut courses) = COURSES.try_lock() else {
        return;
    };
    if !bell::is_here() {
        return;
    }
    look_at_this_thread();
    let mut intern = |course: Course| {
        let known = courses.iter().find(|known| ***known == course).copied();
        known.unwrap_or_else(|| {
            courses.push(Box::leak(Box::new(course)));
            courses.last().expect("one was pushed")
        })
    };
    for (link, signal) in LINKS.iter().zip(SIGNALS) {
        link.chain(signal, &mut intern);
    }
}

impl Link {
    fn chain(&self, signal: c_int, intern: &mut impl FnMut(Course) -> &'static Course) {
        let found = action(signal, None);
        // The first process of a container is not ended by what has no handler.
        let is_shielded = found.sa_sigaction == libc::SIG_DFL && std::process::id() == 1;
        if is_ours(&found) || found.sa_sigaction == libc::SIG_IGN || is_shielded {
            return;
        }
        self.remember(intern(course(&found)));
        let mut ours = found;
        ours.sa_sigaction = on_signal as *const () as usize;
        // As the program wants its handler to be called, but for one that is called once: ours stays.
        ours.sa_flags = found.sa_flags & !libc::SA_RESETHAND | libc::SA_SIGINFO;
        let replaced = action(signal, Some(&ours));
        if replaced.sa_sigaction == libc::SIG_IGN {
            action(signal, Some(&replaced));
        } else if !is_ours(&replaced) && course(&replaced) != course(&found) {
            // Another thread has just set it.
            self.remember(intern(course(&replaced)));
        }
    }

    fn remember(&self, course: &'static Course) {
        let course = std::ptr::from_ref(course).cast_mut();
        self.course.store(course, Release);
        let null = std::ptr::null_mut();
        let _ = self.first.compare_exchange(null, course, AcqRel, Acquire);
    }
}

/// What `signal` does, before it does what `new` says.
fn action(signal: c_int, new: Option<&libc::sigaction>) -> libc::sigaction {
    let new = new.map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: plain data, which the call fills, and NULL or an action that was read from it.
    unsafe {
        let mut old: libc::sigaction = std::mem::zeroed();
        libc::sigaction(signal, new, &mut old);
        old
    }
}

fn course(action: &libc::sigaction) -> Course {
    Course {
        handler: action.sa_sigaction,
        flags: action.sa_flags & (libc::SA_SIGINFO | libc::SA_RESETHAND),
    }
}

fn is_ours(action: &libc::sigaction) -> bool {
    action.sa_sigaction == on_signal as *const () as usize
}

/// This thread, as a number that is not 0.
fn this_thread() -> usize {
    // SAFETY: a plain call.
    unsafe { libc::pthread_self() as usize }
}

/// Whether this thread is in a handler of the program.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub fn is_in_handler() -> bool {
    let me = this_thread();
    LINKS.iter().any(|link| link.caller.load(Acquire) == me)
}

/// Notes which signals the first thread takes, if it is this one. It is in no handler, whatever it left.
fn look_at_this_thread() {
    let me = this_thread();
    for link in &LINKS {
        let _ = link.caller.compare_exchange(me, 0, AcqRel, Acquire);
    }
    if !is_main() {
        return;
    }
    // SAFETY: plain data, which the call fills.
    let takes = unsafe {
        let mut blocked: libc::sigset_t = std::mem::zeroed();
        libc::pthread_sigmask(libc::SIG_BLOCK, std::ptr::null(), &mut blocked);
        let takes = |at: &usize| libc::sigismember(&blocked, SIGNALS[*at]) == 0;
        (0..SIGNALS.len()).filter(takes).map(bit).sum()
    };
    MAIN.store(me, Release);
    MAIN_TAKES.store(takes, Release);
}

fn is_main() -> bool {
    #[cfg(target_os = "linux")]
    // SAFETY: plain calls. Older versions of glibc have no function for the first.
    return unsafe { libc::syscall(libc::SYS_gettid) == libc::c_long::from(libc::getpid()) };
    #[cfg(target_vendor = "apple")]
    // SAFETY: a plain call.
    return unsafe { libc::pthread_main_np() == 1 };
    #[cfg(not(any(target_os = "linux", target_vendor = "apple")))]
    return false;
}

fn bit(at: usize) -> u32 {
    1 << at
}

/// The calling thread, which starts no program, takes none of the signals from now on, and what it writes ends nothing.
/// Returns which it took none of before.
pub fn leave_to_others() -> libc::sigset_t {
    // SAFETY: plain data, which sigemptyset and the last call initialise.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        let mut before = set;
        libc::sigemptyset(&mut set);
        for signal in SIGNALS.iter().chain(&[libc::SIGXFSZ]) {
            libc::sigaddset(&mut set, *signal);
        }
        libc::pthread_sigmask(libc::SIG_BLOCK, &set, &mut before);
        before
    }
}

/// Does `work`, for which the program waits here, perhaps with a lock that its handlers want: meanwhile other threads
/// take the signals. A handler that waits there for the lock gets it in the end.
pub fn elsewhere<T>(work: impl FnOnce() -> T) -> T {
    let takes = match is_main() {
        true => MAIN_TAKES.swap(0, AcqRel),
        false => 0,
    };
    let before = leave_to_others();
    let done = work();
    // SAFETY: the mask that this thread had.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &before, std::ptr::null_mut()) };
    MAIN_TAKES.fetch_or(takes, AcqRel);
    done
}

/// Lets the signals that came while another waited take their course.
pub fn pass_on() {
    const LIMIT: Duration = Duration::from_millis(100);
    if !is_any_pending() {
        return;
    }
    let begin = Instant::now();
    while WAITING.load(Acquire) != 0 && begin.elapsed() < LIMIT {
        bell::pause();
    }
    // Who was busy goes on.
    bell::pause();
    send_pending();
    if is_any_pending() {
        // The system keeps no second signal of a kind until the first is taken.
        (0..10).for_each(|_| bell::pause());
        bell::ring();
    }
}

fn is_any_pending() -> bool {
    PENDING.iter().any(|n| n.load(Acquire) != 0)
}

/// Takes one back, unless others have taken all.
fn take_pending(at: usize) -> bool {
    let less = |n: u32| n.checked_sub(1);
    PENDING[at].fetch_update(AcqRel, Acquire, less).is_ok()
}

/// Sends one of each that is pending.
fn send_pending() {
    for at in (0..SIGNALS.len()).filter(|&at| take_pending(at)) {
        send(at);
    }
}

fn send(at: usize) {
    // SAFETY: plain calls; the first thread lives as long as the process, or nearly so.
    unsafe {
        match MAIN_TAKES.load(Acquire) & bit(at) != 0 {
            true => libc::pthread_kill(MAIN.load(Acquire) as libc::pthread_t, SIGNALS[at]),
            false => libc::kill(libc::getpid(), SIGNALS[at]),
        }
    };
}

extern "C" fn on_signal(signal: c_int, info: *mut siginfo_t, context: *mut c_void) {
    let errno = std::io::Error::last_os_error().raw_os_error();
    if let Some(at) = SIGNALS.iter().position(|&s| s == signal) {
        handle(at, info, context);
    }
    set_errno(errno.unwrap_or(0));
}

/// Only does what a handler of signals may: no allocation, no lock.
fn handle(at: usize, info: *mut siginfo_t, context: *mut c_void) {
    let link = &LINKS[at];
    let me = this_thread();
    if link.caller.load(Acquire) == me {
        // The program's handler calls the one that it has replaced.
        let first = link.first.load(Acquire);
        if first != link.course.load(Acquire) {
            link.take(at, first, info, context);
        }
        return;
    }
    if bell::is_here() {
        let passes = MAIN_TAKES.load(Acquire) & bit(at) != 0 && me != MAIN.load(Acquire);
        if !begin_waiting(at, me) {
            return;
        }
        if passes {
            // The system has chosen this one only because that one is about to run another handler. It may
            // compute, and must not go on while an exit in this thread destroys what it uses.
            WAITING.store(0, Release);
            send(at);
            return;
        }
        if is_held_back() {
            PENDING[at].fetch_add(1, AcqRel);
            WAITING.store(0, Release);
            bell::ring();
            return;
        }
        // SAFETY: it was set before our handler, to what stays.
        let is_end = unsafe { (*link.course.load(Acquire)).handler } == libc::SIG_DFL;
        let is_answered = bell::ask(match is_end {
            true => Wish::Finish,
            false => Wish::Save,
        });
        WAITING.store(0, Release);
        if !is_answered {
            send_pending();
        }
    }
    link.take(at, link.course.load(Acquire), info, context);
}

/// Whether a signal has to come again, because this thread has a lock that saving needs. Not for long: it may wait for a
/// disk that does not answer.
fn is_held_back() -> bool {
    const LIMIT: u64 = 1000;
    if !Busy::is_here() {
        HELD_BACK.store(0, Release);
        return false;
    }
    let now = clock();
    let since = HELD_BACK.compare_exchange(0, now, AcqRel, Acquire);
    since.map_or_else(|since| now.saturating_sub(since) < LIMIT, |_| true)
}

/// Milliseconds, of which there are some.
fn clock() -> u64 {
    let mut now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: plain data, which the call fills.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut now) };
    now.tv_sec as u64 * 1000 + now.tv_nsec as u64 / 1_000_000 + 1
}

/// Makes this thread the one that waits. If another does, or this one in a handler below, the signal is sent
/// again when that is over: what was interrupted gets some time to give its locks back.
fn begin_waiting(at: usize, me: usize) -> bool {
    loop {
        if WAITING.compare_exchange(0, me, AcqRel, Acquire).is_ok() {
            return true;
        }
        PENDING[at].fetch_add(1, AcqRel);
        if WAITING.load(Acquire) != 0 {
            bell::ring();
            return false;
        }
        // Too late for whoever waited, who may have been answered by nobody.
        if !take_pending(at) {
            return false;
        }
    }
}

impl Link {
    /// Lets the signal take its course.
    fn take(&self, at: usize, course: *mut Course, info: *mut siginfo_t, context: *mut c_void) {
        let signal = SIGNALS[at];
        // SAFETY: it was set before our handler, to what stays.
        let Course { handler, flags } = *unsafe { &*course };
        if handler == libc::SIG_IGN {
            return;
        }
        if handler == libc::SIG_DFL {
            // SAFETY: plain calls. The signal comes when this handler returns, which has it blocked.
            unsafe {
                libc::signal(signal, libc::SIG_DFL);
                libc::raise(signal);
            }
            return;
        }
        if flags & libc::SA_RESETHAND != 0 {
            self.course
                .store(std::ptr::from_ref(DEFAULT).cast_mut(), Release);
        }
        let me = this_thread();
        self.caller.store(me, Release);
        // SAFETY: the program has set this handler for the signal, of the kind that the flags say.
        unsafe {
            if flags & libc::SA_SIGINFO != 0 {
                type Handler = extern "C" fn(c_int, *mut siginfo_t, *mut c_void);
                std::mem::transmute::<usize, Handler>(handler)(signal, info, context);
            } else {
                std::mem::transmute::<usize, extern "C" fn(c_int)>(handler)(signal);
            }
        }
        // Another thread may have come to the same handler, and stays in it.
        let _ = self.caller.compare_exchange(me, 0, AcqRel, Acquire);
    }
}

fn set_errno(errno: c_int) {
    // SAFETY: the place is this thread's own.
    unsafe {
        #[cfg(target_os = "linux")]
        {
            *libc::__errno_location() = errno;
        }
        #[cfg(target_vendor = "apple")]
        {
            *libc::__error() = errno;
        }
    }
    let _ = errno;
}
