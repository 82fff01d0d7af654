//! How much is given to the system at once: enough to keep a disk busy, and no more.
//!
//! A disk that is given many reads works on all of them, and all of them end late. What is computed
//! first needs its bytes first, so reads are cut into pieces, of which only so many are under way as
//! it takes to reach the disk's speed.

use std::fmt;
use std::time::{Duration, Instant};

use bytesize::ByteSize;

use super::probe::bytes_per_second;
use super::{ModelFile, QueueKind};
use crate::error::Result;

/// How much is given to the system at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// Pieces under way at once, at least 1. More may be submitted; they wait.
    pub depth: u32,
    /// Bytes of a piece at most, at least 1. Rounded up to the alignment of the file.
    pub piece_bytes: usize,
}

impl Default for Pace {
    /// What suits most disks.
    fn default() -> Self {
        Self {
            depth: 8,
            piece_bytes: 1 << 20,
        }
    }
}

impl fmt::Display for Pace {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let piece = ByteSize(self.piece_bytes as u64);
        write!(
            f,
            "{} pieces of {} at once",
            self.depth,
            piece.display().iec_short()
        )
    }
}

/// How long one trial takes.
const TRIAL: Duration = Duration::from_millis(9);
/// No trial begins later than this.
const DEADLINE: Duration = Duration::from_millis(150);
/// Pieces and how many of them are under way, by the bytes under way; large pieces first, because each
/// costs time to submit.
const TRIALS: [(usize, u32); 10] = [
    (512 << 10, 1),
    (512 << 10, 2),
    (256 << 10, 4),
    (1 << 20, 2),
    (512 << 10, 4),
    (1 << 20, 4),
    (512 << 10, 8),
    (1 << 20, 8),
    (512 << 10, 16),
    (1 << 20, 16),
];
/// A disk that delivers less with one piece under way is not measured: that would take too long.
const SLOW_BYTES_PER_SECOND: f64 = 100e6;
/// What is not much slower than the fastest is as good.
const GOOD_ENOUGH: f64 = 0.9;

impl Pace {
    /// Finds out by reading from `file` for less than 200 ms. `n_bytes` is what is read most: a part of an
    /// expert. The default if it cannot be found out: reads go through the page cache, or the disk is slow.
    ///
    /// Fails if the system refuses memory or threads, or a read fails.
    pub fn measure(file: &ModelFile, kind: QueueKind, n_bytes: usize) -> Result<Self> {
        let begin = Instant::now();
        let mut found: Vec<(f64, usize, u32)> = Vec::new();
        for (piece_bytes, depth) in TRIALS {
            if !file.is_direct() || begin.elapsed() > DEADLINE {
                break;
            }
            // Short reads take more of them for as many bytes under way.
            let read_bytes = piece_bytes.min(n_bytes);
            let n_reads = depth * (piece_bytes / read_bytes) as u32;
            let pace = Self {
                depth: n_reads,
                piece_bytes,
            };
            let speed = bytes_per_second(file, kind, read_bytes, n_reads, pace, TRIAL)?;
            found.push((speed, piece_bytes, n_reads));
            if found.len() == 1 && speed < SLOW_BYTES_PER_SECOND {
                break;
            }
        }
        let best = found.iter().map(|(speed, ..)| *speed).fold(0.0, f64::max);
        let good = found
            .iter()
            .find(|(speed, ..)| *speed >= best * GOOD_ENOUGH);
        Ok(match good {
            Some(&(_, piece_bytes, depth)) if found.len() > 1 => Self {
                // One more: the thread that starts the next one shares a core with computing.
                depth: depth + 1,
                piece_bytes,
            },
            _ => Self::default(),
        })
    }
}
