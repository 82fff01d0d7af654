//! How much is given to the system at once: enough to keep a disk busy, no more.

use std::time::{Duration, Instant};

use super::probe::bytes_per_second;
use super::{ModelFile, QueueKind};
use crate::error::Result;

/// How much is given to the system at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// Reads under way at once, at least 1. More may be submitted; they wait.
    pub depth: u32,
    /// A read ahead goes on only while fewer reads than this are under way, at least 1.
    pub ahead_depth: u32,
    /// Bytes of one call of a read ahead at most: between two calls it gives way to others.
    pub ahead_bytes: usize,
}

impl Default for Pace {
    /// What suits most disks.
    fn default() -> Self {
        Self {
            depth: 32,
            ahead_depth: 4,
            ahead_bytes: 512 << 10,
        }
    }
}

/// How long one trial takes.
const TRIAL: Duration = Duration::from_millis(10);
/// No trial begins later than this.
const DEADLINE: Duration = Duration::from_millis(130);
/// The longest read of a trial, and the memory for all of its reads.
const READ_BYTES_MAX: usize = 1 << 20;
const TRIAL_BYTES_MAX: usize = 16 << 20;
/// A disk that delivers less in a trial of one read is not measured: that would take too long.
const SLOW_BYTES_PER_SECOND: f64 = 100e6;
/// What is not much slower than the fastest is as good.
const GOOD_ENOUGH: f64 = 0.9;
/// The same of reads ahead, for which giving way counts more.
const GOOD_ENOUGH_AHEAD: f64 = 0.7;

impl Pace {
    /// Finds out by reading from `file` for less than 200 ms. `n_bytes` is what is read most: a part of an
    /// expert. What cannot be found out is as in the default: if reads go through the page cache, or the
    /// disk is slow.
    ///
    /// Fails if the system refuses memory or threads, or a read fails.
    pub fn measure(file: &ModelFile, kind: QueueKind, n_bytes: usize) -> Result<Self> {
        let begin = Instant::now();
        let mut pace = Self::default();
        let is_late = || begin.elapsed() > DEADLINE;
        let speed = |n_bytes, depth| bytes_per_second(file, kind, n_bytes, depth, TRIAL);
        let n_bytes = n_bytes.min(READ_BYTES_MAX);
        let is_measurable = file.is_direct() && file.len() > TRIAL_BYTES_MAX as u64;
        if !is_measurable || speed(n_bytes, 1)? < SLOW_BYTES_PER_SECOND {
            return Ok(pace);
        }
        let mut best = 0.0;
        for depth in [2, 4, 8, 16, 32, 64] {
            if is_late() || depth as usize * n_bytes > TRIAL_BYTES_MAX {
                break;
            }
            let found = speed(n_bytes, depth)?;
            if found * GOOD_ENOUGH > best {
                best = found;
                // Twice as many: the thread that starts the next one shares a core with computing.
                pace.depth = 2 * depth;
            }
        }
        for (n, depth) in [(256 << 10, 2), (512 << 10, 2), (512 << 10, 4), (1 << 20, 4)] {
            if is_late() {
                break;
            }
            (pace.ahead_bytes, pace.ahead_depth) = (n, depth);
            if speed(n.min(n_bytes), depth)? >= best * GOOD_ENOUGH_AHEAD {
                break;
            }
        }
        Ok(pace)
    }
}
