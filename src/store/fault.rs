//! Read errors on demand, so that tests and users can see what a bad disk does.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::error::{Error, Result};

/// What is to go wrong. The default is nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Faults {
    /// This read fails with EIO, counted from 1 in the order of submission.
    pub read: Option<u64>,
    /// Every so many reads, one stops half way at first.
    pub short: Option<u64>,
    /// What a thread waits before it reports a read.
    pub delay: Duration,
}

impl Faults {
    /// Reads the value of `HOTSET_FAULT`: `read=17`, `short=5`, `delay_ms=3`, or several with
    /// commas between them.
    pub fn parse(value: &str) -> Result<Self> {
        let mut faults = Self::default();
        for item in value.split(',') {
            let (name, number) = item.split_once('=').unwrap_or((item, ""));
            match (name, number.parse()) {
                ("read", Ok(n @ 1..)) => faults.read = Some(n),
                ("short", Ok(n @ 1..)) => faults.short = Some(n),
                ("delay_ms", Ok(n)) => faults.delay = Duration::from_millis(n),
                _ => {
                    return Err(Error::Setting {
                        name: "HOTSET_FAULT".into(),
                        value: value.into(),
                        allowed: format!(
                            "`{item}` is none of read=N, short=N (N at least 1), delay_ms=N"
                        ),
                    });
                }
            }
        }
        Ok(faults)
    }
}

/// What is to go wrong with one read.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Fault {
    pub fails: bool,
    pub is_short: bool,
}

/// Counts the reads of one queue and picks those that suffer.
#[derive(Debug)]
pub(super) struct Injector {
    faults: Faults,
    n_reads: AtomicU64,
}

impl Injector {
    pub fn new(faults: Faults) -> Self {
        Self {
            faults,
            n_reads: AtomicU64::new(0),
        }
    }

    /// The fate of the next read.
    pub fn next(&self) -> Fault {
        let n = self.n_reads.fetch_add(1, Ordering::Relaxed) + 1;
        Fault {
            fails: self.faults.read == Some(n),
            is_short: self
                .faults
                .short
                .is_some_and(|every| n.is_multiple_of(every)),
        }
    }

    /// Called before a read is reported.
    pub fn delay(&self) {
        if !self.faults.delay.is_zero() {
            std::thread::sleep(self.faults.delay);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_read_fails_and_every_so_many_are_short() {
        let injector = Injector::new(Faults::parse("read=3,short=2").unwrap());
        let fates: Vec<_> = (0..6).map(|_| injector.next()).collect();
        let fails: Vec<_> = fates.iter().map(|fate| fate.fails).collect();
        let is_short: Vec<_> = fates.iter().map(|fate| fate.is_short).collect();
        assert_eq!(fails, [false, false, true, false, false, false]);
        assert_eq!(is_short, [false, true, false, true, false, true]);
    }
}
