//! Reads with io_uring: whoever submits a read starts it, one thread waits for the results. Threads that wait for a read
//! may take results, too: that is sooner than waking the one, and being woken by it.
//!
//! Where the kernel stops taking reads, threads take over (`lost.rs`).

// The ring is given raw pointers, and is shared between threads by rules of ours.
#![allow(unsafe_code)]

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::ptr;
use std::sync::atomic::{Ordering, fence};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use io_uring::{IoUring, cqueue, opcode, squeue, types};

use super::backlog::Backlog;
use super::core::{Backend, Core};
use super::events::Events;
use super::job::{Job, Next};
use super::lost::Lost;
use super::patience::{Patience, patiently};
use super::threads::{AbortOnPanic, join};
use super::{Arena, ModelFile, QueueDepth, Read};

pub(super) struct Ring {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// The submission side of `ring` is used only with `state` locked, its completion side only with `taken` locked.
struct Shared {
    core: Arc<Core>,
    ring: IoUring,
    /// Whether the kernel can be told to wake nobody: from 5.8 on. Those that have this flag, of 5.9, can.
    can_be_quiet: bool,
    events: Events,
    state: Mutex<State>,
    taken: Mutex<Taken>,
}

/// What whoever takes results needs for it; here to be allocated once.
#[derive(Default)]
struct Taken {
    completed: Vec<cqueue::Entry>,
    ended: Ended,
    /// Threads that look for results all the time. While there are any the kernel does not wake ours.
    n_lookers: u32,
}

struct State {
    /// Jobs that have a place, by the number of their entry. Between two calls a job may be elsewhere.
    running: Vec<Option<Job>>,
    /// The numbers that are free in `running`.
    free: Vec<usize>,
    /// The numbers of entries that the kernel has not taken yet.
    pushed: VecDeque<usize>,
    /// Numbers of jobs whose next call is to come later, and when.
    delayed: Vec<(Instant, usize)>,
    /// When to tell the kernel of entries that it had no memory for.
    flush_at: Option<Instant>,
    patience: Patience,
    line: Backlog,
    /// What reads since the kernel has stopped.
    lost: Option<Lost>,
    /// Jobs that nothing reads, and why; the thread reports them.
    stranded: Vec<(Job, io::Error)>,
    /// What the thread should say.
    note: Option<String>,
    is_closing: bool,
}

impl Ring {
    pub fn start(core: &Arc<Core>, queue_depth: QueueDepth) -> io::Result<Self> {
        // The kernel doubles this for completions, which thus never overflow.
        let mut ring = IoUring::new(queue_depth.depth)?;
        if let Some(file) = core.files.first() {
            probe(&mut ring, file)?;
        }
        let events = Events::new()?;
        ring.submitter()
            .register_eventfd(events.as_fd().as_raw_fd())?;
        let shared = Arc::new(Shared {
            core: core.clone(),
            can_be_quiet: ring.params().is_feature_poll_32bits(),
            ring,
            events,
            state: Mutex::new(State {
                running: (0..queue_depth.depth).map(|_| None).collect(),
                free: (0..queue_depth.depth as usize).rev().collect(),
                pushed: VecDeque::new(),
                delayed: Vec::new(),
                flush_at: None,
                patience: Patience::default(),
                line: Backlog::default(),
                lost: None,
                stranded: Vec::new(),
                note: None,
                is_closing: false,
            }),
            taken: Mutex::default(),
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

/// Reads once from `file`: old kernels have rings that cannot read. A kernel that is short of memory is given time.
fn probe(ring: &mut IoUring, file: &ModelFile) -> io::Result<()> {
    let len = file.align().max(512);
    let memory = Arena::map(len).map_err(io::Error::other)?;
    let dst = ptr::with_exposed_provenance_mut(memory.addr());
    let mut is_given = false;
    let read = patiently(|| {
        if !is_given {
            let entry = opcode::Read::new(types::Fd(file.raw_fd()), dst, len as u32).build();
            // SAFETY: `memory` is large enough and mapped until the read has ended, below.
            unsafe { ring.submission().push(&entry) }.map_err(io::Error::other)?;
            is_given = true;
        }
        while ring.completion().is_empty() {
            ring.submit_and_wait(1)?;
        }
        is_given = false;
        outcome(ring.completion().next().map_or(0, |entry| entry.result()))
    });
    if is_given {
        // The kernel may still write there.
        std::mem::forget(memory);
    }
    read.map(|_| ())
}

/// The result of an entry, as a system call would have returned it.
fn outcome(result: i32) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::from_raw_os_error(-result))
}

impl Backend for Ring {
    fn change(&self, change: &mut dyn FnMut(&mut Backlog)) {
        let mut state = self.shared.state.lock().unwrap();
        if let Some(Lost::Threads(pool)) = &state.lost {
            return pool.change(change);
        }
        change(&mut state.line);
        self.shared.start_waiting(&mut state);
    }

    fn help(&self) -> bool {
        let Ok(mut taken) = self.shared.taken.try_lock() else {
            return true;
        };
        self.shared.take_completed(&mut taken.completed);
        if !taken.completed.is_empty() {
            let _guard = AbortOnPanic;
            self.shared.go_round(&mut taken);
        }
        // Of a lost ring threads do the work.
        self.shared.core.lost.get().is_none()
    }

    fn note_looker(&self, is_here: bool) {
        if !self.shared.can_be_quiet {
            return;
        }
        let mut taken = self.shared.taken.lock().unwrap();
        // SAFETY: only who has locked `taken` uses the completion side.
        let completions = unsafe { self.shared.ring.completion_shared() };
        if is_here {
            taken.n_lookers += 1;
            return completions.disable_eventfd();
        }
        taken.n_lookers -= 1;
        if taken.n_lookers > 0 {
            return;
        }
        completions.enable_eventfd();
        drop(completions);
        drop(taken);
        // What has ended in between has woken nobody.
        fence(Ordering::SeqCst);
        self.help();
    }

    fn longest_under_way(&self) -> Option<Option<(Read, Instant)>> {
        let state = self.shared.state.try_lock().ok()?;
        let running = state.running.iter().flatten().filter_map(Job::under_way);
        let elsewhere = match &state.lost {
            Some(lost) => lost.longest_under_way()?,
            None => None,
        };
        Some(running.chain(elsewhere).min_by_key(|(_, since)| *since))
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        let mut state = self.shared.state.lock().unwrap();
        state.is_closing = true;
        self.shared.events.wake();
        let pool = state.lost.take();
        drop(state);
        self.thread.take().into_iter().for_each(join);
        drop(pool);
    }
}

impl Shared {
    /// Gives the kernel as many of the waiting jobs as it may have at once.
    fn start_waiting(&self, state: &mut State) {
        if state.lost.is_some() {
            self.hand_over(state);
            return;
        }
        while let Some(number) = state.free.pop() {
            // What pauses before another try holds nobody up.
            let n_running = state.running.len() - state.free.len() - 1 - state.delayed.len();
            let Some(job) = state.line.next(n_running, self.core.ahead_depth) else {
                state.free.push(number);
                break;
            };
            self.call(state, number, job);
        }
        if state.flush_at.is_none() {
            self.flush(state);
        }
    }

    /// Queues the next call of `job`.
    fn call(&self, state: &mut State, number: usize, mut job: Job) {
        let (fd, call) = self.core.call(&mut job);
        self.core.take_time();
        let dst = ptr::with_exposed_provenance_mut(call.addr);
        let entry = opcode::Read::new(types::Fd(fd), dst, call.len as u32)
            .offset(call.offset)
            .build()
            .user_data(number as u64);
        state.running[number] = Some(job);
        state.pushed.push_back(number);
        self.push(state, &entry);
    }

    fn push(&self, _: &mut State, entry: &squeue::Entry) {
        // SAFETY: `State` is borrowed, so it is locked. A read stays inside the arena, which
        // `core` keeps mapped, and nobody else uses its bytes: the promise of whoever submitted it.
        let pushed = unsafe { self.ring.submission_shared().push(entry) };
        pushed.expect("the ring has room for every running job");
    }

    /// Tells the kernel of all queued entries, or notes when to try again.
    fn flush(&self, state: &mut State) {
        state.flush_at = None;
        // What is still in the ring then belongs to nobody.
        if state.is_closing || state.lost.is_some() {
            return;
        }
        while !state.pushed.is_empty() {
            let told = self.ring.submitter().submit();
            // SAFETY: `State` is borrowed, so it is locked.
            let n_left = unsafe { self.ring.submission_shared() }.len();
            state.pushed.drain(..state.pushed.len() - n_left);
            let Err(cause) = told else {
                state.patience = Patience::default();
                continue;
            };
            let now = Instant::now();
            let pause = match cause.raw_os_error() {
                Some(libc::EINTR) => continue,
                // The kernel is short of memory. Whoever submits need not wait for it: the thread will.
                Some(libc::EAGAIN | libc::EBUSY | libc::ENOMEM) => state.patience.pause(now),
                _ => None,
            };
            let Some(pause) = pause else {
                self.lose(state, &cause);
                return;
            };
            state.flush_at = Some(now + pause);
            self.events.wake();
            return;
        }
    }

    /// The kernel takes no more reads: what it has not taken is read by threads from now on. What it has
    /// taken ends as ever.
    fn lose(&self, state: &mut State, cause: &io::Error) {
        let n_threads = state.running.len() as u32;
        let (lost, note) = Lost::start(&self.core, n_threads, cause);
        state.note = Some(note);
        state.lost = Some(lost);
        // Nobody tells the kernel of the entries that are still in the ring.
        while let Some(number) = state.pushed.pop_back() {
            let job = state.running[number].take().expect("it was pushed");
            state.free.push(number);
            state.line.add_first(job);
        }
        self.hand_over(state);
        self.events.wake();
    }

    /// Gives what waits to what is there instead of the ring.
    fn hand_over(&self, state: &mut State) {
        if let Some(lost) = &state.lost {
            lost.take_over(&mut state.line, &mut state.stranded);
            if !state.stranded.is_empty() {
                self.events.wake();
            }
        }
    }

    /// The thread: waits for completions, and starts what waits for a place.
    fn run(&self) {
        let _guard = AbortOnPanic;
        loop {
            let mut taken = self.taken.lock().unwrap();
            self.take_completed(&mut taken.completed);
            let round = self.go_round(&mut taken);
            drop(taken);
            if round.is_over {
                return;
            }
            if round.is_idle {
                self.events.wait(round.due);
            }
        }
    }

    /// Takes the results that there are. `taken` must be locked, which `completed` belongs to.
    fn take_completed(&self, completed: &mut Vec<cqueue::Entry>) {
        completed.clear();
        // SAFETY: only who has locked `taken` takes completions.
        completed.extend(unsafe { self.ring.completion_shared() });
    }

    /// Goes on with what was taken, starts what waits for a place, and reports what has ended.
    fn go_round(&self, taken: &mut Taken) -> Round {
        let Taken { completed, ended, .. } = taken;
        let jobs = self.take(completed);
        let nexts = jobs.into_iter().map(|(number, mut job, result)| {
            let next = self.core.advance(&mut job, outcome(result));
            (number, job, next)
        });
        // No lock is held while each looks at its outcome.
        let nexts: Vec<_> = nexts.collect();
        let mut state = self.state.lock().unwrap();
        for (number, job, next) in nexts {
            self.go_on(&mut state, number, job, next, ended);
        }
        if self.core.ends_together && !state.is_closing && !ended.is_empty() {
            // Somebody waits for what has ended, and nobody yet for what comes after it.
            drop(state);
            self.report(ended);
            state = self.state.lock().unwrap();
        }
        self.do_what_is_due(&mut state);
        if state.is_closing {
            self.cancel(&mut state, ended);
        }
        self.start_waiting(&mut state);
        for (job, cause) in state.stranded.drain(..) {
            ended.push((job, Err(cause)));
        }
        let note = state.note.take();
        let is_over = state.is_closing && state.free.len() == state.running.len();
        let due = state.due();
        drop(state);
        if let Some(note) = note {
            self.core.sink.note(&note);
        }
        let is_idle = completed.is_empty() && ended.is_empty();
        self.report(ended);
        Round {
            is_over,
            is_idle,
            due,
        }
    }

    fn report(&self, ended: &mut Ended) {
        for (job, result) in ended.drain(..) {
            self.core.report(job, result);
        }
    }

    /// The jobs of these completions, by their numbers, and what the kernel says of them.
    fn take(&self, completed: &[cqueue::Entry]) -> Vec<(usize, Job, i32)> {
        if completed.is_empty() {
            return Vec::new();
        }
        let mut state = self.state.lock().unwrap();
        let take = |entry: &cqueue::Entry| {
            let number = entry.user_data() as usize;
            let job = state.running[number].take().expect("it was running");
            (number, job, entry.result())
        };
        completed.iter().map(take).collect()
    }

    /// What becomes of a job after a call.
    fn go_on(&self, state: &mut State, number: usize, job: Job, next: Next, ended: &mut Ended) {
        match next {
            Next::End(result) => {
                state.free.push(number);
                ended.push((job, result));
            }
            _ if state.lost.is_some() => {
                state.free.push(number);
                state.line.add_first(job);
            }
            Next::Call => self.call(state, number, job),
            Next::Pause(pause) => {
                state.running[number] = Some(job);
                state.delayed.push((Instant::now() + pause, number));
                // Whoever took this result goes away; the thread knows until when it may sleep.
                self.events.wake();
            }
        }
    }

    /// Makes the calls whose pause is over.
    fn do_what_is_due(&self, state: &mut State) {
        let Some(due) = state.due() else { return };
        let now = Instant::now();
        if due > now {
            return;
        }
        let delayed = std::mem::take(&mut state.delayed);
        for (due, number) in delayed {
            if due > now {
                state.delayed.push((due, number));
                continue;
            }
            let job = state.running[number].take().expect("it has a place");
            self.go_on(state, number, job, Next::Call, &mut Vec::new());
        }
        if state.flush_at.is_some_and(|due| due <= now) {
            self.flush(state);
        }
    }

    /// Ends what the kernel has not been given.
    fn cancel(&self, state: &mut State, ended: &mut Ended) {
        let cancelled = || Err(io::Error::from_raw_os_error(libc::ECANCELED));
        let delayed = std::mem::take(&mut state.delayed)
            .into_iter()
            .map(|(_, number)| number);
        let not_taken = std::mem::take(&mut state.pushed);
        for number in delayed.chain(not_taken) {
            let job = state.running[number].take().expect("it has a place");
            state.free.push(number);
            ended.push((job, cancelled()));
        }
        while let Some(job) = state.line.pop() {
            ended.push((job, cancelled()));
        }
    }
}

impl State {
    /// When to do what was put off.
    fn due(&self) -> Option<Instant> {
        let delayed = self.delayed.iter().map(|(due, _)| *due);
        delayed.chain(self.flush_at).min()
    }
}

/// What taking results has shown.
struct Round {
    /// The ring is closed, and nothing is under way.
    is_over: bool,
    is_idle: bool,
    /// When to do what was put off.
    due: Option<Instant>,
}

/// Jobs that are reported when `state` is not locked.
type Ended = Vec<(Job, io::Result<()>)>;
