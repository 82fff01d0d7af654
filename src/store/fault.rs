//! Read errors on demand, so that tests and users can see what a bad disk does.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::error::{Error, Result};
use crate::numbers::whole;

/// The longest time: a minute.
const MS_MAX: u64 = 60_000;

/// What is to go wrong. The default is nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Faults {
    /// This read fails with EIO, counted from 1 in the order of submission.
    pub read: Option<u64>,
    /// Every so many reads, one stops half way at first.
    pub short: Option<u64>,
    /// What a thread waits before it reports a read.
    pub delay: Duration,
    /// Every so many calls, one fails with EAGAIN.
    pub again: Option<u64>,
    /// Every so many calls, one fails with ENOMEM.
    pub nomem: Option<u64>,
    /// From this call on, direct reads fail with EINVAL.
    pub direct: Option<u64>,
    /// How much too late the first read comes.
    pub stall: Duration,
    /// How long a call takes, as long as which io_uring blocks whoever makes it.
    pub serial: Duration,
}

impl Faults {
    /// What `HOTSET_FAULT` accepts, for people.
    const VALUES: &str = "read=N, short=N, again=N, nomem=N, direct=N, delay_ms=N, stall_ms=N, \
         serial_ms=N, separated by commas";

    /// Reads the value of `HOTSET_FAULT`: `read=17`, `short=5`, `delay_ms=3`, or several with
    /// commas between them.
    pub fn parse(value: &str) -> Result<Self> {
        let mut faults = Self::default();
        for item in value.split(',') {
            let (name, number) = item.split_once('=').unwrap_or((item, ""));
            let ms = Duration::from_millis;
            match (name, whole(number)) {
                ("read", Some(n @ 1..)) => faults.read = Some(n),
                ("short", Some(n @ 1..)) => faults.short = Some(n),
                ("again", Some(n @ 1..)) => faults.again = Some(n),
                ("nomem", Some(n @ 1..)) => faults.nomem = Some(n),
                ("direct", Some(n @ 1..)) => faults.direct = Some(n),
                ("delay_ms", Some(n @ ..=MS_MAX)) => faults.delay = ms(n),
                ("stall_ms", Some(n @ ..=MS_MAX)) => faults.stall = ms(n),
                ("serial_ms", Some(n @ ..=MS_MAX)) => faults.serial = ms(n),
                _ => {
                    return Err(Error::setting("HOTSET_FAULT", value, format!(
                            "`{item}` is none of {}; counts begin at 1, times end at {MS_MAX}",
                            Self::VALUES
                        )));
                }
            }
        }
        Ok(faults)
    }

    /// What also concerns whoever finds out how fast a file is: the others count reads of experts.
    pub(super) fn of_trials(self) -> Self {
        Self {
            serial: self.serial,
            ..Self::default()
        }
    }
}

/// What is to go wrong with one read.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Fault {
    pub fails: bool,
    pub is_short: bool,
    pub stall: Duration,
}

/// Counts the reads and calls of one queue and picks those that suffer.
#[derive(Debug)]
pub(super) struct Injector {
    faults: Faults,
    n_reads: AtomicU64,
    n_calls: AtomicU64,
}

impl Injector {
    pub fn new(faults: Faults) -> Self {
        Self {
            faults,
            n_reads: AtomicU64::new(0),
            n_calls: AtomicU64::new(0),
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
            stall: match n {
                1 => self.faults.stall,
                _ => Duration::ZERO,
            },
        }
    }

    /// Called before a call, by whoever makes it.
    pub fn call(&self) {
        if !self.faults.serial.is_zero() {
            std::thread::sleep(self.faults.serial);
        }
    }

    /// The outcome of a call, or what is to take its place.
    pub fn outcome(&self, outcome: io::Result<usize>, is_direct: bool) -> io::Result<usize> {
        let Faults {
            again,
            nomem,
            direct,
            ..
        } = self.faults;
        if again.or(nomem).or(direct).is_none() {
            return outcome;
        }
        let n = self.n_calls.fetch_add(1, Ordering::Relaxed) + 1;
        let is_nth = |every: Option<u64>| every.is_some_and(|every| n.is_multiple_of(every));
        let errno = if is_direct && direct.is_some_and(|first| n >= first) {
            libc::EINVAL
        } else if is_nth(again) {
            libc::EAGAIN
        } else if is_nth(nomem) {
            libc::ENOMEM
        } else {
            return outcome;
        };
        Err(io::Error::from_raw_os_error(errno))
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
        let injector = Injector::new(Faults::parse("read=3,short=2,stall_ms=9").unwrap());
        let fates: Vec<_> = (0..6).map(|_| injector.next()).collect();
        let fails: Vec<_> = fates.iter().map(|fate| fate.fails).collect();
        let is_short: Vec<_> = fates.iter().map(|fate| fate.is_short).collect();
        let stalls: Vec<_> = fates.iter().map(|fate| fate.stall.as_millis()).collect();
        assert_eq!(fails, [false, false, true, false, false, false]);
        assert_eq!(is_short, [false, true, false, true, false, true]);
        assert_eq!(stalls, [9, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn calls_fail_in_their_order() {
        let injector = Injector::new(Faults::parse("again=2,nomem=3,direct=5").unwrap());
        let outcomes = [true, true, true, false, true, false, false].map(|is_direct| {
            let outcome = injector.outcome(Ok(7), is_direct);
            outcome.err().and_then(|e| e.raw_os_error())
        });
        let (again, nomem, direct) = (Some(libc::EAGAIN), Some(libc::ENOMEM), Some(libc::EINVAL));
        assert_eq!(
            outcomes,
            [None, again, nomem, again, direct, again, None],
            "the 5th is refused because it is direct"
        );
    }
}
