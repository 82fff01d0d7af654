//! Reads that are under way, and since when there are none.

use crate::timeline::{Pen, What};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// What the disk has to do.
pub struct Flight {
    begin: Instant,
    /// Reads that were asked for and have not ended. Below 0 for a moment, when one ends at once.
    n_reads: AtomicI64,
    /// When the last one ended, in nanoseconds after `begin`.
    idle_since: AtomicU64,
    /// What draws them.
    pub pen: OnceLock<Pen>,
}

impl Default for Flight {
    fn default() -> Self {
        Self {
            begin: Instant::now(),
            n_reads: AtomicI64::new(0),
            idle_since: AtomicU64::new(0),
            pen: OnceLock::new(),
        }
    }
}

impl Flight {
    /// Nanoseconds since it was made.
    pub fn now(&self) -> u64 {
        self.begin.elapsed().as_nanos() as u64
    }

    /// So many reads are asked for. Returns how long there were none before, since `began` at most, which
    /// is a time that [`Self::now`] gave.
    pub fn ask(&self, n: usize, began: u64) -> Duration {
        if n == 0 || self.n_reads.fetch_add(n as i64, Ordering::Relaxed) > 0 {
            return Duration::ZERO;
        }
        let idle_since = self.idle_since.load(Ordering::Relaxed).max(began);
        Duration::from_nanos(self.now().saturating_sub(idle_since))
    }

    /// Whether any read has not ended.
    pub fn has_reads(&self) -> bool {
        self.n_reads.load(Ordering::Relaxed) > 0
    }

    /// The read with this tag has ended.
    pub fn end(&self, tag: u64) {
        self.leave(1);
        if let Some(pen) = self.pen.get() {
            pen.disk(What::Done { tag });
        }
    }

    /// The read with this tag will not be made.
    pub fn recall(&self, tag: u64) {
        self.leave(1);
        if let Some(pen) = self.pen.get() {
            pen.disk(What::Recalled { tag });
        }
    }

    fn leave(&self, n: i64) {
        if self.n_reads.fetch_sub(n, Ordering::Relaxed) == n {
            self.idle_since.store(self.now(), Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_disk_is_idle_between_the_last_end_and_the_next_read() {
        let flight = Flight::default();
        let pause = || std::thread::sleep(Duration::from_millis(5));
        pause();
        // Nothing counts that was before the batch.
        let began = flight.now();
        assert!(flight.ask(2, began) < Duration::from_millis(5));
        pause();
        assert_eq!(flight.ask(1, began), Duration::ZERO);
        flight.end(0);
        flight.recall(1);
        pause();
        assert_eq!(flight.ask(1, began), Duration::ZERO, "one is under way");
        flight.end(2);
        flight.end(3);
        pause();
        assert_eq!(flight.ask(0, began), Duration::ZERO, "nothing is asked for");
        let idle = flight.ask(1, began);
        let most = Duration::from_nanos(flight.now() - began);
        assert!((Duration::from_millis(5)..most).contains(&idle), "{idle:?}");
    }
}
