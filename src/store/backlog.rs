//! What waits for the system, and in which order it is given to it.

use std::collections::VecDeque;

use super::job::Job;

/// Pieces of reads that wait. Those that somebody needs go before those that are read ahead.
#[derive(Default)]
pub(super) struct Backlog {
    demand: VecDeque<Job>,
    ahead: VecDeque<Job>,
}

/// Reads ahead that were recalled, by their tags.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Recalled {
    /// Those that will not be reported, and the bytes of each that had arrived.
    pub dropped: Vec<(u64, usize)>,
    /// Those that are reported soon, without some of their bytes.
    pub cut: Vec<u64>,
}

impl Backlog {
    /// Appends what somebody needs.
    pub fn add(&mut self, jobs: impl IntoIterator<Item = Job>) {
        self.demand.extend(jobs);
    }

    /// Appends what somebody needs, and with it the reads ahead whose tags satisfy `is_needed`; after all that waits or
    /// is under way, if that is to be.
    pub fn add_turn(
        &mut self,
        jobs: impl IntoIterator<Item = Job>,
        is_needed: &dyn Fn(u64) -> bool,
        waits_its_turn: bool,
    ) {
        let n_before = self.demand.len();
        self.hurry(is_needed);
        self.demand.extend(jobs);
        if let Some(first) = self.demand.get_mut(n_before).filter(|_| waits_its_turn) {
            first.waits_its_turn = true;
        }
    }

    /// Appends what somebody may need.
    pub fn add_ahead(&mut self, jobs: impl IntoIterator<Item = Job>) {
        self.ahead.extend(jobs);
    }

    /// Puts a piece whose call did not deliver all before the others.
    pub fn add_first(&mut self, job: Job) {
        self.demand.push_front(job);
    }

    /// Appends all that waits in `other`, in its order.
    pub fn append(&mut self, other: &mut Self) {
        self.demand.append(&mut other.demand);
        self.ahead.append(&mut other.ahead);
    }

    /// Somebody needs the reads ahead whose tags satisfy `is_needed`.
    pub fn hurry(&mut self, is_needed: &dyn Fn(u64) -> bool) {
        if self.ahead.is_empty() {
            return;
        }
        let ahead = std::mem::take(&mut self.ahead);
        let (needed, rest): (Vec<_>, Vec<_>) = ahead.into_iter().partition(|j| is_needed(j.tag()));
        self.demand.extend(needed);
        self.ahead = rest.into();
    }

    /// Drops what waits of the reads ahead whose tags satisfy `is_useless`.
    pub fn recall(&mut self, is_useless: &dyn Fn(u64) -> bool) -> Recalled {
        let mut recalled = Recalled::default();
        let ahead = std::mem::take(&mut self.ahead);
        let (useless, rest): (Vec<_>, Vec<_>) =
            ahead.into_iter().partition(|j| is_useless(j.tag()));
        self.ahead = rest.into();
        for job in useless {
            let tag = job.tag();
            recalled.cut.retain(|cut| *cut != tag);
            match job.whole.leave(0, Ok(())) {
                Some((arrived, _)) => recalled.dropped.push((tag, arrived)),
                None => recalled.cut.push(tag),
            }
        }
        recalled
    }

    /// What to start next while `n_running` pieces are under way, if anything. What is read ahead is started while fewer
    /// than `n_ahead_max` are.
    pub fn next(&mut self, n_running: usize, n_ahead_max: usize) -> Option<Job> {
        match self.demand.front() {
            None if n_running < n_ahead_max => self.ahead.pop_front(),
            Some(next) if next.waits_its_turn && n_running > 0 => None,
            _ => self.demand.pop_front(),
        }
    }

    /// Takes one of those that wait.
    pub fn pop(&mut self) -> Option<Job> {
        self.demand.pop_front().or_else(|| self.ahead.pop_front())
    }

    /// How many pieces wait.
    pub fn len(&self) -> usize {
        self.demand.len() + self.ahead.len()
    }
}

#[cfg(test)]
mod tests {
    use super::super::Read;
    use super::super::fault::Fault;
    use super::super::job::Whole;
    use super::*;
    use std::sync::Arc;

    fn jobs(tags: &[u64]) -> Vec<Job> {
        let job = |&tag: &u64| {
            let read = Read {
                file: 0,
                offset: 0,
                len: 512,
                need: 512,
                dst: 0,
                tag,
            };
            Job::new(Arc::new(Whole::new(read, 1)), read, 0, 512, Fault::default())
        };
        tags.iter().map(job).collect()
    }

    /// What is started at once beside `n_running` others.
    fn started(line: &mut Backlog, n_running: usize, n_ahead_max: usize) -> Vec<u64> {
        let mut tags = Vec::new();
        while let Some(job) = line.next(n_running + tags.len(), n_ahead_max) {
            tags.push(job.tag());
        }
        tags
    }

    #[test]
    fn a_turn_begins_when_nothing_is_under_way_and_takes_what_was_guessed_of_it() {
        let mut line = Backlog::default();
        line.add_ahead(jobs(&[10, 20, 11, 21]));
        line.add_turn(jobs(&[1, 2]), &|tag| tag == 10, false);
        line.add_turn(jobs(&[3, 4]), &|tag| tag == 11, true);
        line.add_turn(jobs(&[]), &|_| false, true);
        line.add_turn(jobs(&[5]), &|_| false, true);
        assert_eq!(started(&mut line, 3, 1), [10, 1, 2]);
        assert!(started(&mut line, 1, 1).is_empty());
        assert_eq!(started(&mut line, 0, 1), [11, 3, 4]);
        assert_eq!(started(&mut line, 0, 1), [5]);
        // What is left was only guessed.
        assert!(started(&mut line, 1, 1).is_empty());
        assert_eq!(started(&mut line, 0, 1), [20]);
        assert_eq!(started(&mut line, 1, 3), [21]);
        assert_eq!(line.len(), 0);
    }
}
