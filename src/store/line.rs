//! What waits for the system, and in which order it is given to it.

use std::collections::VecDeque;

use super::job::Job;

/// A read ahead is started only while fewer reads than this are under way: enough to keep a disk busy,
/// little enough that a read that somebody waits for soon has the disk to itself.
const AHEAD_MAX: usize = 2;

/// Reads that wait. Those that somebody needs go before those that are read ahead.
#[derive(Default)]
pub(super) struct Line {
    demand: VecDeque<Job>,
    ahead: VecDeque<Job>,
}

impl Line {
    /// Appends reads that somebody needs.
    pub fn add(&mut self, jobs: impl IntoIterator<Item = Job>) {
        self.demand.extend(jobs);
    }

    /// Appends reads that somebody may need.
    pub fn add_ahead(&mut self, jobs: impl IntoIterator<Item = Job>) {
        self.ahead.extend(jobs);
    }

    /// Makes the reads ahead whose tags satisfy `is_needed` reads that somebody needs.
    pub fn hurry(&mut self, is_needed: &dyn Fn(u64) -> bool) {
        for job in std::mem::take(&mut self.ahead) {
            match is_needed(job.read.tag) {
                true => self.demand.push_back(job),
                false => self.ahead.push_back(job),
            }
        }
    }

    /// Drops the reads ahead whose tags satisfy `is_useless`; returns the tags.
    pub fn recall(&mut self, is_useless: &dyn Fn(u64) -> bool) -> Vec<u64> {
        let tags = self.ahead.iter().map(|j| j.read.tag);
        let recalled = tags.filter(|tag| is_useless(*tag)).collect();
        self.ahead.retain(|j| !is_useless(j.read.tag));
        recalled
    }

    /// The read to start next while `n_running` are under way, if any.
    pub fn next(&mut self, n_running: usize) -> Option<Job> {
        match self.demand.pop_front() {
            None if n_running < AHEAD_MAX => self.ahead.pop_front(),
            next => next,
        }
    }

    /// Takes one of those that wait.
    pub fn pop(&mut self) -> Option<Job> {
        self.demand.pop_front().or_else(|| self.ahead.pop_front())
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.demand.len() + self.ahead.len()
    }
}
