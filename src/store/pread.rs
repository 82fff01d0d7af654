//! Reads with a pool of threads: for systems without io_uring, and where they are faster.

// pread into the arena goes through a raw pointer.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::RawFd;
use std::ptr;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use super::Read;
use super::backlog::Backlog;
use super::core::{Backend, Core};
use super::job::{Call, Job, Next};
use super::threads::{AbortOnPanic, join};

/// As many threads keep a disk busy that answers soon.
pub(super) const THREADS_USUAL: u32 = 8;
/// More than this do not pay even where most of a read is waiting.
pub(super) const THREADS_MAX: u32 = 32;

pub(super) struct ReadThreads {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    core: Arc<Core>,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    line: Backlog,
    /// What each thread reads, and since when.
    running: Vec<Option<(Read, Instant)>>,
    n_running: usize,
    /// Jobs whose next call is to come later, and when.
    delayed: Vec<(Instant, Job)>,
    is_closing: bool,
}

impl ReadThreads {
    /// A pool of `n_threads`, or of as many of them as the system lets us have and why not of more. Fails
    /// if there can be none.
    pub fn start(core: &Arc<Core>, n_threads: u32) -> io::Result<(Self, Option<io::Error>)> {
        let shared = Arc::new(Shared {
            core: core.clone(),
            state: Mutex::new(State {
                line: Backlog::default(),
                running: vec![None; n_threads as usize],
                n_running: 0,
                delayed: Vec::new(),
                is_closing: false,
            }),
            changed: Condvar::new(),
        });
        let mut pool = Self {
            shared,
            threads: Vec::new(),
        };
        for i in 0..n_threads as usize {
            let shared = pool.shared.clone();
            let builder = thread::Builder::new().name(format!("hotset-read-{i}"));
            match builder.spawn(move || shared.run(i)) {
                Ok(thread) => pool.threads.push(thread),
                Err(cause) if i == 0 => return Err(cause),
                Err(cause) => return Ok((pool, Some(cause))),
            }
        }
        Ok((pool, None))
    }

    /// How many there are.
    pub fn n_threads(&self) -> usize {
        self.threads.len()
    }
}

impl Backend for ReadThreads {
    fn change(&self, change: &mut dyn FnMut(&mut Backlog)) {
        let mut state = self.shared.state.lock().unwrap();
        change(&mut state.line);
        for _ in 0..state.line.len().min(self.threads.len()) {
            self.shared.changed.notify_one();
        }
    }

    fn longest_under_way(&self) -> Option<Option<(Read, Instant)>> {
        let state = self.shared.state.try_lock().ok()?;
        let delayed = state.delayed.iter().filter_map(|(_, job)| job.under_way());
        let running = state.running.iter().filter_map(|running| *running);
        Some(running.chain(delayed).min_by_key(|(_, since)| *since))
    }
}

impl Drop for ReadThreads {
    fn drop(&mut self) {
        self.shared.state.lock().unwrap().is_closing = true;
        self.shared.changed.notify_all();
        self.threads.drain(..).for_each(join);
    }
}

impl State {
    /// What to do next, if anything.
    fn next(&mut self, ahead_depth: usize) -> Option<Job> {
        if self.is_closing {
            let delayed = self.delayed.pop().map(|(_, job)| job);
            return delayed.or_else(|| self.line.pop());
        }
        if !self.delayed.is_empty() {
            let now = Instant::now();
            if let Some(i) = self.delayed.iter().position(|(due, _)| *due <= now) {
                return Some(self.delayed.swap_remove(i).1);
            }
        }
        self.line.next(self.n_running, ahead_depth)
    }
}

impl Shared {
    /// Thread `number`.
    fn run(&self, number: usize) {
        let _guard = AbortOnPanic;
        let mut state = self.state.lock().unwrap();
        loop {
            let is_closing = state.is_closing;
            let Some(mut job) = state.next(self.core.ahead_depth) else {
                if is_closing {
                    return;
                }
                state = self.wait(state);
                continue;
            };
            if is_closing {
                drop(state);
                let cancelled = io::Error::from_raw_os_error(libc::ECANCELED);
                self.core.report(job, Err(cancelled));
                state = self.state.lock().unwrap();
                continue;
            }
            let (fd, call) = self.core.call(&mut job);
            // Those whose turn has come wait for who sleeps.
            if self.core.ends_together && state.line.len() > 0 {
                self.changed.notify_one();
            }
            state.n_running += 1;
            state.running[number] = job.under_way();
            drop(state);
            self.core.take_time();
            let outcome = self.call(fd, &call);
            let next = self.core.advance(&mut job, outcome);
            state = self.state.lock().unwrap();
            state.n_running -= 1;
            state.running[number] = None;
            match next {
                Next::Call => state.line.add_first(job),
                Next::Pause(pause) => {
                    state.delayed.push((Instant::now() + pause, job));
                    // Who sleeps has not heard of it.
                    self.changed.notify_all();
                }
                Next::End(result) => {
                    drop(state);
                    self.core.report(job, result);
                    state = self.state.lock().unwrap();
                }
            }
        }
    }

    /// Sleeps until something changes or is due.
    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        match state.delayed.iter().map(|(due, _)| *due).min() {
            None => self.changed.wait(state).unwrap(),
            Some(due) => {
                let left = due.saturating_duration_since(Instant::now());
                self.changed.wait_timeout(state, left).unwrap().0
            }
        }
    }

    /// Makes a call of a read.
    fn call(&self, fd: RawFd, call: &Call) -> io::Result<usize> {
        let offset = libc::off_t::try_from(call.offset).map_err(io::Error::other)?;
        let dst = ptr::with_exposed_provenance_mut(call.addr);
        // SAFETY: a call stays inside the arena, which `core` keeps mapped, and nobody else
        // uses these bytes: the promise of whoever submitted the read.
        let n = unsafe { libc::pread(fd, dst, call.len, offset) };
        usize::try_from(n).map_err(|_| io::Error::last_os_error())
    }
}
