//! What waits for the system, and in which order it is given to it.

use std::collections::VecDeque;

use super::Pace;
use super::job::{CALL_BYTES_MAX, Job};

/// Reads that wait. Those that somebody needs go before those that are read ahead.
pub(super) struct Line {
    pace: Pace,
    demand: VecDeque<Job>,
    ahead: VecDeque<Job>,
    /// The tags of reads ahead of which a call is under way.
    under_way: Vec<(u64, Fate)>,
}

/// What becomes of a read ahead when its call has ended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// It waits for its next call.
    Waits,
    /// Somebody needs it: its next call is made at once.
    GoesOn,
    /// Nobody needs it: it ends.
    Ends,
}

/// A read of which a call has ended, and not all has arrived.
pub(super) enum Next {
    /// The next call is to be made at once.
    Call(Job),
    /// The read waits in the line.
    Wait,
    /// The read ends as it is.
    End(Job),
}

/// Reads ahead that were recalled, by their tags.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Recalled {
    /// Those that will not be reported, and the bytes of each that had arrived.
    pub dropped: Vec<(u64, usize)>,
    /// Those that are reported soon, whether all of their bytes have arrived or not.
    pub cut: Vec<u64>,
}

impl Line {
    /// Nothing waits.
    pub fn new(pace: Pace) -> Self {
        Self {
            pace,
            demand: VecDeque::new(),
            ahead: VecDeque::new(),
            under_way: Vec::new(),
        }
    }

    /// Appends reads that somebody needs.
    pub fn add(&mut self, jobs: impl IntoIterator<Item = Job>) {
        self.demand.extend(jobs);
    }

    /// Puts a read that somebody needs before all others.
    pub fn add_first(&mut self, job: Job) {
        self.demand.push_front(job);
    }

    /// Appends reads that somebody may need.
    pub fn add_ahead(&mut self, jobs: impl IntoIterator<Item = Job>) {
        for mut job in jobs {
            job.limit_calls(self.pace.ahead_bytes);
            self.ahead.push_back(job);
        }
    }

    /// Makes the reads ahead whose tags satisfy `is_needed` reads that somebody needs.
    pub fn hurry(&mut self, is_needed: &dyn Fn(u64) -> bool) {
        for (tag, fate) in &mut self.under_way {
            if is_needed(*tag) {
                *fate = Fate::GoesOn;
            }
        }
        for mut job in std::mem::take(&mut self.ahead) {
            if is_needed(job.read.tag) {
                job.limit_calls(CALL_BYTES_MAX);
                self.demand.push_back(job);
            } else {
                self.ahead.push_back(job);
            }
        }
    }

    /// Ends the reads ahead whose tags satisfy `is_useless`: at once, or with the call that is under way.
    pub fn recall(&mut self, is_useless: &dyn Fn(u64) -> bool) -> Recalled {
        let mut recalled = Recalled::default();
        self.ahead.retain(|job| {
            let tag = job.read.tag;
            if is_useless(tag) {
                recalled.dropped.push((tag, job.arrived()));
            }
            !is_useless(tag)
        });
        for (tag, fate) in &mut self.under_way {
            if is_useless(*tag) {
                *fate = Fate::Ends;
                recalled.cut.push(*tag);
            }
        }
        recalled
    }

    /// The read to start or go on with next while `n_running` are under way, if any.
    pub fn next(&mut self, n_running: usize) -> Option<Job> {
        if let Some(job) = self.demand.pop_front() {
            return Some(job);
        }
        if n_running >= self.pace.ahead_depth as usize {
            return None;
        }
        let job = self.ahead.pop_front()?;
        self.under_way.push((job.read.tag, Fate::Waits));
        Some(job)
    }

    /// A call of `job` has ended and another is needed.
    pub fn again(&mut self, mut job: Job) -> Next {
        match self.leave(&job) {
            None => Next::Call(job),
            Some(Fate::GoesOn) => {
                job.limit_calls(CALL_BYTES_MAX);
                Next::Call(job)
            }
            Some(Fate::Waits) => {
                self.ahead.push_front(job);
                Next::Wait
            }
            Some(Fate::Ends) => Next::End(job),
        }
    }

    /// `job` has ended.
    pub fn ended(&mut self, job: &Job) {
        self.leave(job);
    }

    /// Takes one of those that wait.
    pub fn pop(&mut self) -> Option<Job> {
        self.demand.pop_front().or_else(|| self.ahead.pop_front())
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.demand.len() + self.ahead.len()
    }

    /// A call of `job` is no longer under way; what becomes of it, if it is read ahead.
    fn leave(&mut self, job: &Job) -> Option<Fate> {
        let mut tags = self.under_way.iter();
        let at = tags.position(|(tag, _)| *tag == job.read.tag)?;
        Some(self.under_way.swap_remove(at).1)
    }
}
