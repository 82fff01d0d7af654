//! Reads with a pool of threads: for systems without io_uring.

// pread into the arena goes through a raw pointer.
#![allow(unsafe_code)]

use std::collections::VecDeque;
use std::io;
use std::ptr;
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};

use super::job::Job;
use super::queue::{AbortOnPanic, Backend, Core, join};

/// More threads than this do not make a disk faster.
pub(super) const THREADS_MAX: u32 = 8;

pub(super) struct Pool {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

struct Shared {
    core: Arc<Core>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Job>,
    is_closing: bool,
}

impl Pool {
    pub fn start(core: &Arc<Core>, n_threads: u32) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            core: core.clone(),
            state: Mutex::default(),
            changed: Condvar::new(),
        });
        // The threads live in the pool from the first one on: if one cannot be started, drop
        // ends the others.
        let mut pool = Self {
            shared,
            threads: Vec::new(),
        };
        for i in 0..n_threads {
            let shared = pool.shared.clone();
            let builder = thread::Builder::new().name(format!("hotset-read-{i}"));
            pool.threads.push(builder.spawn(move || shared.run())?);
        }
        Ok(pool)
    }
}

impl Backend for Pool {
    fn submit(&self, mut jobs: VecDeque<Job>) {
        let n_jobs = jobs.len();
        self.shared.state.lock().unwrap().waiting.append(&mut jobs);
        for _ in 0..n_jobs.min(self.threads.len()) {
            self.shared.changed.notify_one();
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.state.lock().unwrap().is_closing = true;
        self.shared.changed.notify_all();
        self.threads.drain(..).for_each(join);
    }
}

impl Shared {
    fn run(&self) {
        let _guard = AbortOnPanic;
        loop {
            let state = self.state.lock().unwrap();
            let mut state = self
                .changed
                .wait_while(state, |s| s.waiting.is_empty() && !s.is_closing)
                .unwrap();
            let is_closing = state.is_closing;
            let Some(mut job) = state.waiting.pop_front() else {
                return;
            };
            drop(state);
            let result = if is_closing {
                Err(io::Error::from_raw_os_error(libc::ECANCELED))
            } else {
                self.read(&mut job)
            };
            self.core.report(&job, result);
        }
    }

    fn read(&self, job: &mut Job) -> io::Result<()> {
        let fd = self.core.files[job.read.file as usize].raw_fd();
        loop {
            let call = job.call();
            let offset = libc::off_t::try_from(call.offset).map_err(io::Error::other)?;
            let dst = ptr::with_exposed_provenance_mut(call.addr);
            // SAFETY: a call stays inside the arena, which `core` keeps mapped, and nobody else
            // uses these bytes: the promise of whoever submitted the read.
            let n = unsafe { libc::pread(fd, dst, call.len, offset) };
            let outcome = usize::try_from(n).map_err(|_| io::Error::last_os_error());
            if let Some(result) = job.advance(outcome) {
                return result;
            }
        }
    }
}
