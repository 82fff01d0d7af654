//! How fast a row could be at best: no faster than computing alone, nor than the disk delivers what missed.

use super::Together;
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

    /// The least milliseconds of such a token where computing and the disk slow each other as `together` says: both at
    /// once until one of them is done, and then the other alone; or one after the other, if that is sooner.
    pub fn shared_ms(compute_ms: f64, missed_bytes: f64, disk_bytes_per_s: f64, together: Together) -> f64 {
        let disk_ms = 1e3 * missed_bytes / disk_bytes_per_s;
        let compute_speed = (compute_ms / together.token_ms).clamp(0.0, 1.0);
        let disk_speed = (together.bytes_per_s / disk_bytes_per_s).clamp(0.0, 1.0);
        let both_ms = (compute_ms / compute_speed).min(disk_ms / disk_speed);
        let rest_ms = compute_ms - both_ms * compute_speed + disk_ms - both_ms * disk_speed;
        (both_ms + rest_ms).min(compute_ms + disk_ms)
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
    fn who_shares_takes_longer_than_the_slower_of_both_and_no_longer_than_their_sum() {
        // 2 MB at 1 GB/s take 2 ms.
        let shared = |compute_ms, token_ms, bytes_per_s| {
            let together = Together {
                token_ms,
                bytes_per_s,
            };
            Bound::shared_ms(compute_ms, 2e6, 1e9, together)
        };
        // Nobody slows anybody.
        assert_eq!(shared(3.0, 3.0, 1e9), 3.0);
        assert_eq!(shared(1.0, 1.0, 1e9), 2.0);
        // Both at 0.8: the disk is done after 2.5 ms, and 2 of 3 are computed.
        assert!((shared(3.0, 3.75, 0.8e9) - 3.5).abs() < 1e-9);
        // Computing is done after 1.25 ms, and 1 of 2 is read.
        assert!((shared(1.0, 1.25, 0.8e9) - 2.25).abs() < 1e-9);
        // Worse than one after the other, and what is slower alone than beside the other.
        assert_eq!(shared(3.0, 10.0, 0.3e9), 5.0);
        assert_eq!(shared(3.0, 2.9, 1.1e9), 3.0);
    }

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
