//! How fast a row could be at best: no faster than computing alone, nor than the disk delivers what missed.

use serde::Serialize;

/// What keeps a row from being faster, if everything else overlaps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Binds {
    /// Computing, with every expert in memory.
    Compute,
    /// Reading what missed.
    Disk,
}

/// The least time of a token.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Bound {
    /// In milliseconds.
    pub ms: f64,
    /// Which part of it is the longer one.
    pub by: Binds,
}

impl Bound {
    /// The bound of a token that computes for `compute_ms` (`None`: not measured, and left out) and misses
    /// `missed_bytes`, which a disk of `disk_bytes_per_s` (above 0) reads meanwhile.
    pub fn of(compute_ms: Option<f64>, missed_bytes: f64, disk_bytes_per_s: f64) -> Self {
        let disk_ms = 1e3 * missed_bytes / disk_bytes_per_s;
        match compute_ms {
            Some(ms) if ms >= disk_ms => Self {
                ms,
                by: Binds::Compute,
            },
            _ => Self {
                ms: disk_ms,
                by: Binds::Disk,
            },
        }
    }

    /// The part of the possible speed that a token of `measured_ms` (above 0) has: 1 is all of it.
    pub fn fraction(&self, measured_ms: f64) -> f64 {
        self.ms / measured_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slower_of_both_binds() {
        // 2 MB at 1 GB/s take 2 ms.
        let bound = |compute_ms| Bound::of(compute_ms, 2e6, 1e9);
        assert_eq!(bound(Some(1.5)).by, Binds::Disk);
        assert_eq!(bound(Some(1.5)).ms, 2.0);
        assert_eq!(bound(Some(2.5)).by, Binds::Compute);
        assert_eq!(bound(Some(2.5)).ms, 2.5);
        assert_eq!(bound(None).ms, 2.0);
        assert_eq!(bound(None).by, Binds::Disk);
        assert_eq!(bound(Some(1.0)).fraction(8.0), 0.25);
        assert_eq!(Bound::of(Some(3.0), 0.0, 1e9).by, Binds::Compute);
    }
}
