//! Which failures pass, and how long to try again.

use std::io;
use std::time::{Duration, Instant};

/// How long calls are made again although nothing arrives.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);
/// The longest pause before a call is made again.
pub(super) const PAUSE_MAX: Duration = Duration::from_millis(512);

/// How long it is worth trying again. Pauses double from a millisecond on, so that memory can be found
/// meanwhile, and nobody waits much longer than it takes.
#[derive(Debug, Default)]
pub(super) struct Patience {
    since: Option<Instant>,
    n_failures: u32,
}

impl Patience {
    /// It has failed once more, at `now`: what to wait before the next try, or `None` to give up.
    pub fn pause(&mut self, now: Instant) -> Option<Duration> {
        let since = *self.since.get_or_insert(now);
        let pause = Duration::from_millis(1 << self.n_failures.min(9)).min(PAUSE_MAX);
        self.n_failures += 1;
        (now.duration_since(since) < PATIENCE).then_some(pause)
    }

    /// It has failed, and is tried at once.
    pub fn skip_first(&mut self) {
        self.n_failures = 1;
    }

    /// Whether it has not failed lately.
    pub fn is_fresh(&self) -> bool {
        self.n_failures == 0
    }
}

/// Makes `call` again, with pauses, as long as what it fails with passes and there is patience.
pub(super) fn patiently<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    let mut patience = Patience::default();
    loop {
        let cause = match call() {
            Err(cause) if is_passing(&cause) => cause,
            result => return result,
        };
        let Some(pause) = patience.pause(Instant::now()) else {
            return Err(cause);
        };
        std::thread::sleep(pause);
    }
}

/// Whether a call that failed like this may succeed when it is made again, by the same descriptor and to the
/// same place.
///
/// Memory is found again, queues drain, servers come back. What a disk could not read (EIO) it was asked for
/// several times already, and a file that is gone from its server (ESTALE) does not return.
pub(super) fn is_passing(cause: &io::Error) -> bool {
    let passes = matches!(
        cause.raw_os_error(),
        Some(
            libc::EAGAIN
                | libc::EBUSY
                | libc::ENOMEM
                | libc::ENOBUFS
                | libc::ETIMEDOUT
                | libc::EHOSTDOWN
        )
    );
    passes || is_interruption(cause)
}

/// Whether a call failed because of who made it.
///
/// A ring loses the calls of a thread that ends: they are cancelled, or finish where the memory of
/// the process cannot be reached (EFAULT). The arena can be, unless the system finds no memory for it.
pub(super) fn is_interruption(cause: &io::Error) -> bool {
    matches!(
        cause.raw_os_error(),
        Some(libc::EINTR | libc::ECANCELED | libc::EFAULT)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_ends_after_its_time_however_often_it_was_tried() {
        let begin = Instant::now();
        let (mut now, mut n_tries) = (begin, 0);
        let mut patience = Patience::default();
        while let Some(pause) = patience.pause(now) {
            assert!(pause >= Duration::from_millis(1));
            (now, n_tries) = (now + pause, n_tries + 1);
        }
        assert!(now - begin < PATIENCE + PAUSE_MAX, "{:?}", now - begin);
        assert!((50..100).contains(&n_tries), "{n_tries}");
        let mut patience = Patience::default();
        assert!(patience.pause(begin).is_some());
        assert!(patience.pause(begin + PATIENCE).is_none());
    }

    #[test]
    fn what_passes_is_waited_for_and_nothing_else() {
        let causes = [libc::EINTR, libc::EAGAIN, libc::ENOMEM, libc::ETIMEDOUT];
        let call = |causes: &[i32]| {
            let mut left = causes.iter();
            patiently(|| match left.next() {
                Some(&errno) => Err(io::Error::from_raw_os_error(errno)),
                None => Ok(7),
            })
        };
        assert_eq!(call(&causes).unwrap(), 7);
        let error = call(&[libc::EAGAIN, libc::EIO]).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EIO));
    }
}
