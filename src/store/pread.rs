//! Reads with a pool of threads: for systems without io_uring.

// pread into the arena goes through a raw pointer.
#![allow(unsafe_code)]

use std::io;
use std::ptr;
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};

use super::job::Job;
use super::line::Line;
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

struct State {
    line: Line,
    n_running: usize,
    is_closing: bool,
}

impl Pool {
    pub fn start(core: &Arc<Core>, n_threads: u32) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            core: core.clone(),
            state: Mutex::new(State {
                line: Line::default(),
                n_running: 0,
                is_closing: false,
            }),
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
    fn change(&self, change: &mut dyn FnMut(&mut Line)) {
        let mut state = self.shared.state.lock().unwrap();
        change(&mut state.line);
        for _ in 0..state.line.len().min(self.threads.len()) {
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
        let mut state = self.state.lock().unwrap();
        loop {
            let State {
                line,
                n_running,
                is_closing,
            } = &mut *state;
            let is_closing = *is_closing;
            let next = match is_closing {
                true => line.pop(),
                false => line.next(*n_running),
            };
            let Some(mut job) = next else {
                if is_closing {
                    return;
                }
                state = self.changed.wait(state).unwrap();
                continue;
            };
            *n_running += 1;
            drop(state);
            let ended = match is_closing {
                true => Some(Err(io::Error::from_raw_os_error(libc::ECANCELED))),
                false => self.call(&mut job),
            };
            state = self.state.lock().unwrap();
            state.n_running -= 1;
            match ended {
                None => state.line.add_first(job),
                Some(result) => {
                    drop(state);
                    self.core.report(job, result);
                    state = self.state.lock().unwrap();
                }
            }
        }
    }

    /// Makes the next call of a read: how it ended, or `None` if another call is needed.
    fn call(&self, job: &mut Job) -> Option<io::Result<()>> {
        let fd = self.core.files[job.file() as usize].raw_fd();
        let call = job.call();
        let outcome = libc::off_t::try_from(call.offset)
            .map_err(io::Error::other)
            .and_then(|offset| {
                let dst = ptr::with_exposed_provenance_mut(call.addr);
                // SAFETY: a call stays inside the arena, which `core` keeps mapped, and nobody else
                // uses these bytes: the promise of whoever submitted the read.
                let n = unsafe { libc::pread(fd, dst, call.len, offset) };
                usize::try_from(n).map_err(|_| io::Error::last_os_error())
            });
        job.advance(outcome)
    }
}
