//! Reads with io_uring: whoever submits a read starts it, one thread waits for the results.

// The ring is given raw pointers, and is shared between threads by rules of ours.
#![allow(unsafe_code)]

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr;
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use io_uring::{IoUring, opcode, squeue, types};

use super::job::Job;
use super::line::Line;
use super::queue::{AbortOnPanic, Backend, Core, join};
use super::{Arena, ModelFile, Pace};

/// Marks the entry that only wakes the thread. No job has this number.
const WAKE: u64 = u64::MAX;

pub(super) struct Ring {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// The submission side of `ring` is used only with `state` locked, its completion side only by
/// the thread.
struct Shared {
    core: Arc<Core>,
    ring: IoUring,
    /// The kernel counts completions here. The thread sleeps in a plain read of it rather than in
    /// io_uring_enter, which tools such as valgrind do not know to be a call that blocks.
    events: File,
    state: Mutex<State>,
}

struct State {
    /// Jobs given to the kernel, by the number of their entry.
    running: Vec<Option<Job>>,
    /// The numbers that are free in `running`.
    free: Vec<usize>,
    line: Line,
    is_closing: bool,
}

impl Ring {
    pub fn start(core: &Arc<Core>, pace: Pace) -> io::Result<Self> {
        // One more for WAKE. The kernel doubles this for completions, which thus never overflow.
        let mut ring = IoUring::new(pace.depth + 1)?;
        if let Some(file) = core.files.first() {
            probe(&mut ring, file)?;
        }
        let events = eventfd()?;
        ring.submitter().register_eventfd(events.as_raw_fd())?;
        let shared = Arc::new(Shared {
            core: core.clone(),
            ring,
            events,
            state: Mutex::new(State {
                running: (0..pace.depth).map(|_| None).collect(),
                free: (0..pace.depth as usize).rev().collect(),
                line: Line::default(),
                is_closing: false,
            }),
        });
        let run = shared.clone();
        let thread = thread::Builder::new()
            .name("hotset-read".into())
            .spawn(move || run.run())?;
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }
}

/// A counter that a thread can sleep on.
fn eventfd() -> io::Result<File> {
    // SAFETY: the call takes no pointers.
    match unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) } {
        -1 => Err(io::Error::last_os_error()),
        // SAFETY: a new descriptor, which nobody else owns.
        fd => Ok(File::from(unsafe { OwnedFd::from_raw_fd(fd) })),
    }
}

/// Reads once from `file`: old kernels have rings that cannot read.
fn probe(ring: &mut IoUring, file: &ModelFile) -> io::Result<()> {
    let len = file.align().max(512);
    let memory = Arena::map(len).map_err(io::Error::other)?;
    let dst = ptr::with_exposed_provenance_mut(memory.addr());
    let entry = opcode::Read::new(types::Fd(file.raw_fd()), dst, len as u32).build();
    // SAFETY: `memory` is large enough and mapped until the read has ended, below.
    unsafe { ring.submission().push(&entry) }.map_err(io::Error::other)?;
    while ring.completion().is_empty() {
        match ring.submit_and_wait(1) {
            Err(e) if e.kind() != io::ErrorKind::Interrupted => {
                // The kernel may still write there.
                std::mem::forget(memory);
                return Err(e);
            }
            _ => {}
        }
    }
    let result = ring.completion().next().map_or(0, |entry| entry.result());
    outcome(result).map(|_| ())
}

/// The result of an entry, as a system call would have returned it.
fn outcome(result: i32) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::from_raw_os_error(-result))
}

impl Backend for Ring {
    fn change(&self, change: &mut dyn FnMut(&mut Line)) {
        let mut state = self.shared.state.lock().unwrap();
        change(&mut state.line);
        self.shared.start_waiting(&mut state);
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        let mut state = self.shared.state.lock().unwrap();
        state.is_closing = true;
        let wake = opcode::Nop::new().build().user_data(WAKE);
        self.shared.push(&mut state, &wake);
        self.shared.flush(&mut state);
        drop(state);
        self.thread.take().into_iter().for_each(join);
    }
}

impl Shared {
    /// Gives the kernel as many of the waiting jobs as it may have at once.
    fn start_waiting(&self, state: &mut State) {
        while let Some(number) = state.free.pop() {
            let n_running = state.running.len() - state.free.len() - 1;
            let Some(job) = state.line.next(n_running) else {
                state.free.push(number);
                break;
            };
            self.call(state, number, job);
        }
        self.flush(state);
    }

    /// Queues the next call of `job`.
    fn call(&self, state: &mut State, number: usize, mut job: Job) {
        let fd = types::Fd(self.core.files[job.file() as usize].raw_fd());
        let call = job.call();
        let dst = ptr::with_exposed_provenance_mut(call.addr);
        let entry = opcode::Read::new(fd, dst, call.len as u32)
            .offset(call.offset)
            .build()
            .user_data(number as u64);
        state.running[number] = Some(job);
        self.push(state, &entry);
    }

    fn push(&self, _: &mut State, entry: &squeue::Entry) {
        // SAFETY: `State` is borrowed, so it is locked. A read stays inside the arena, which
        // `core` keeps mapped, and nobody else uses its bytes: the promise of whoever submitted it.
        let pushed = unsafe { self.ring.submission_shared().push(entry) };
        pushed.expect("the ring has room for every running job and WAKE");
    }

    /// Tells the kernel of all queued entries.
    fn flush(&self, _: &mut State) {
        // SAFETY: `State` is borrowed, so it is locked.
        while !unsafe { self.ring.submission_shared() }.is_empty() {
            match self.ring.submitter().submit() {
                Ok(_) => {}
                Err(e) => match e.raw_os_error() {
                    Some(libc::EINTR) => {}
                    // The kernel is short of memory; whoever submits must wait for it.
                    Some(libc::EAGAIN | libc::EBUSY) => thread::sleep(Duration::from_millis(1)),
                    _ => panic!("io_uring_enter: {e}"),
                },
            }
        }
    }

    /// The thread: waits for completions, and starts what waits for a place.
    fn run(&self) {
        let _guard = AbortOnPanic;
        let mut ended = Vec::new();
        loop {
            // SAFETY: only this thread takes completions.
            let completed: Vec<_> = unsafe { self.ring.completion_shared() }.collect();
            if completed.is_empty() {
                self.wait();
                continue;
            }
            let mut state = self.state.lock().unwrap();
            for entry in completed.iter().filter(|entry| entry.user_data() != WAKE) {
                let number = entry.user_data() as usize;
                let mut job = state.running[number].take().expect("it was running");
                match job.advance(outcome(entry.result())) {
                    Some(result) => {
                        state.free.push(number);
                        ended.push((job, result));
                    }
                    None => self.call(&mut state, number, job),
                }
            }
            if state.is_closing {
                let cancelled = || Err(io::Error::from_raw_os_error(libc::ECANCELED));
                while let Some(job) = state.line.pop() {
                    ended.push((job, cancelled()));
                }
            }
            self.start_waiting(&mut state);
            let is_over = state.is_closing && state.free.len() == state.running.len();
            drop(state);
            for (job, result) in ended.drain(..) {
                self.core.report(job, result);
            }
            if is_over {
                return;
            }
        }
    }

    /// Sleeps until there is a completion that was not waited for yet.
    fn wait(&self) {
        let mut count = [0; 8];
        if let Err(e) = (&self.events).read(&mut count) {
            assert_eq!(e.kind(), io::ErrorKind::Interrupted, "eventfd: {e}");
        }
    }
}
