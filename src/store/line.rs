//! What waits for the system, and in which order it is given to it.

use std::collections::VecDeque;

use super::Pace;
use super::job::{CALL_BYTES_MAX, Job};

/// Reads that wait. Those that somebody needs go before those that are read ahead.
pub(super) struct Line {
    pace: Pace,
    demand: VecDeque<Job>,
    ahead: VecDeque<Job>,
    /// The tags of reads ahead of which a call is under way, and whether somebody needs them by now.
    under_way: Vec<(u64, bool)>,
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
        for (tag, needed) in &mut self.under_way {
            *needed |= is_needed(*tag);
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

    /// Drops the reads ahead whose tags satisfy `is_useless` and of which no call is under way; returns
    /// their tags.
    pub fn recall(&mut self, is_useless: &dyn Fn(u64) -> bool) -> Vec<u64> {
        let tags = self.ahead.iter().map(|j| j.read.tag);
        let recalled = tags.filter(|tag| is_useless(*tag)).collect();
        self.ahead.retain(|j| !is_useless(j.read.tag));
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
        self.under_way.push((job.read.tag, false));
        Some(job)
    }

    /// A call of `job` has ended and another is needed: `Some` if that is to be made at once, `None` if
    /// the read waits here.
    pub fn again(&mut self, mut job: Job) -> Option<Job> {
        match self.leave(&job) {
            Some(true) => job.limit_calls(CALL_BYTES_MAX),
            Some(false) => {
                self.ahead.push_front(job);
                return None;
            }
            None => {}
        }
        Some(job)
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

    /// A call of `job` is no longer under way: whether somebody needs it, if it was read ahead.
    fn leave(&mut self, job: &Job) -> Option<bool> {
        let mut tags = self.under_way.iter();
        let at = tags.position(|(tag, _)| *tag == job.read.tag)?;
        Some(self.under_way.swap_remove(at).1)
    }
}
