//! The life of one read, whoever makes its system calls: parts that arrive, retries, the end.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::Read;
use super::fault::Fault;
use super::patience::{Patience, is_interruption, is_passing};

/// A single system call reads at most this much; the rest follows as after a short read.
const CALL_BYTES_MAX: usize = 1 << 30;

/// A read on its way, in pieces.
pub(super) struct Whole {
    pub read: Read,
    state: Mutex<Pieces>,
}

/// What became of the pieces of a read.
struct Pieces {
    n_left: usize,
    arrived: usize,
    failure: Option<io::Error>,
}

impl Whole {
    /// A read of which `n_pieces` are to come.
    pub fn new(read: Read, n_pieces: usize) -> Self {
        let state = Mutex::new(Pieces {
            n_left: n_pieces,
            arrived: 0,
            failure: None,
        });
        Self { read, state }
    }

    /// A piece has ended after `arrived` bytes: how the read has ended, and its bytes, if it was the last.
    /// The first failure of a piece is that of the read.
    pub fn leave(&self, arrived: usize, result: io::Result<()>) -> Option<(usize, io::Result<()>)> {
        let mut pieces = self.state.lock().expect("no thread panics with it");
        pieces.n_left -= 1;
        pieces.arrived += arrived;
        if let Err(cause) = result {
            pieces.failure.get_or_insert(cause);
        }
        let failure = (pieces.n_left == 0).then(|| pieces.failure.take());
        failure.map(|failure| (pieces.arrived, failure.map_or(Ok(()), Err)))
    }
}

/// A piece of a read.
pub(super) struct Job {
    pub whole: Arc<Whole>,
    read: Read,
    addr: usize,
    align: usize,
    fails: bool,
    stops_half_way: bool,
    stall: Duration,
    /// Where the next call begins, a multiple of `align`.
    at: usize,
    /// Bytes from the beginning of the read that have arrived; `at` is this, rounded down.
    arrived: usize,
    patience: Patience,
    /// Whether it begins only when nothing else is under way.
    pub waits_its_turn: bool,
    /// Whether the last call was to bypass the page cache.
    is_direct: bool,
    /// When the system was given its first call.
    since: Option<Instant>,
}

/// One system call of a job: `len` bytes from `offset` to `addr`, inside the arena.
pub(super) struct Call {
    pub offset: u64,
    pub addr: usize,
    pub len: usize,
}

/// What comes after a call.
#[derive(Debug)]
pub(super) enum Next {
    /// Nothing: the piece has ended.
    End(io::Result<()>),
    /// Another call.
    Call,
    /// Another call, but not before this has passed.
    Pause(Duration),
}

impl Job {
    /// The piece `read` of `whole`, to `addr`, which is inside the arena, from a file with alignment
    /// `align`.
    pub fn new(whole: Arc<Whole>, read: Read, addr: usize, align: usize, fault: Fault) -> Self {
        Self {
            whole,
            read,
            addr,
            align,
            fails: fault.fails,
            stops_half_way: fault.is_short,
            stall: fault.stall,
            at: 0,
            arrived: 0,
            patience: Patience::default(),
            waits_its_turn: false,
            is_direct: false,
            since: None,
        }
    }

    /// Which file it is read from.
    pub fn file(&self) -> u32 {
        self.read.file
    }

    /// Given back when the read is done.
    pub fn tag(&self) -> u64 {
        self.read.tag
    }

    /// Bytes that have arrived.
    pub fn arrived(&self) -> usize {
        self.arrived
    }

    /// The read, and when the system was given the first call of this piece of it.
    pub fn under_way(&self) -> Option<(Read, Instant)> {
        self.since.map(|since| (self.whole.read, since))
    }

    /// Whether the last call was made of a file that `is_direct`.
    pub fn was_direct(&self) -> bool {
        self.is_direct
    }

    /// The call to make next, of a file that `is_direct`; its outcome goes to [`Job::advance`].
    pub fn call(&mut self, is_direct: bool) -> Call {
        self.is_direct = is_direct;
        self.since.get_or_insert_with(Instant::now);
        let mut len = (self.read.len - self.at).min(CALL_BYTES_MAX);
        if std::mem::take(&mut self.stops_half_way) {
            let half = len / 2;
            // A read of one unit has no half.
            len = (half - half % self.align).max(self.align);
        }
        Call {
            offset: self.read.offset + self.at as u64,
            addr: self.addr + self.at,
            len,
        }
    }

    /// Takes the outcome of the last call.
    pub fn advance(&mut self, outcome: io::Result<usize>) -> Next {
        if self.fails {
            return Next::End(Err(io::Error::from_raw_os_error(libc::EIO)));
        }
        if !self.stall.is_zero() {
            return Next::Pause(std::mem::take(&mut self.stall));
        }
        let n_bytes = match outcome {
            Ok(n) => n,
            Err(cause) => return self.try_again(cause),
        };
        let arrived = self.at + n_bytes;
        let is_at_end = arrived <= self.arrived;
        self.arrived = self.arrived.max(arrived);
        if self.arrived >= self.read.need {
            return Next::End(Ok(()));
        }
        if is_at_end {
            let end = self.read.offset + self.arrived as u64;
            return Next::End(Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                format!("the file ends at offset {end}"),
            )));
        }
        self.patience = Patience::default();
        self.at = self.arrived - self.arrived % self.align;
        Next::Call
    }

    fn try_again(&mut self, cause: io::Error) -> Next {
        if !is_passing(&cause) {
            return Next::End(Err(cause));
        }
        if is_interruption(&cause) && self.patience.is_fresh() {
            self.patience.skip_first();
            return Next::Call;
        }
        match self.patience.pause(Instant::now()) {
            Some(pause) => Next::Pause(pause),
            None => Next::End(Err(cause)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::patience::PAUSE_MAX;
    use super::*;

    const FINE: Fault = Fault {
        fails: false,
        is_short: false,
        stall: Duration::ZERO,
    };

    fn job(len: usize, need: usize, align: usize, fault: Fault) -> Job {
        let read = Read {
            file: 0,
            offset: 1 << 20,
            len,
            need,
            dst: 0,
            tag: 0,
        };
        Job::new(Arc::new(Whole::new(read, 1)), read, 1 << 30, align, fault)
    }

    /// Where in the read the next call begins, and its length.
    fn call(job: &mut Job) -> (usize, usize) {
        let call = job.call(false);
        let at = call.addr - (1 << 30);
        assert_eq!(call.offset, (1 << 20) + at as u64);
        (at, call.len)
    }

    /// How the job ended.
    fn end(next: Next) -> io::Result<()> {
        match next {
            Next::End(result) => result,
            next => panic!("{next:?}"),
        }
    }

    fn assert_goes_on(next: Next) {
        assert!(matches!(next, Next::Call), "{next:?}");
    }

    #[test]
    fn a_read_ends_with_its_last_piece_and_as_its_first_failure() {
        let read = job(8192, 8192, 512, FINE).read;
        let whole = Whole::new(read, 2);
        assert!(whole.leave(4096, Ok(())).is_none());
        let (arrived, result) = whole.leave(4096, Ok(())).unwrap();
        assert!(arrived == 8192 && result.is_ok());
        let whole = Whole::new(read, 3);
        for code in [libc::EIO, libc::EINVAL] {
            let failed = Err(io::Error::from_raw_os_error(code));
            assert!(whole.leave(0, failed).is_none());
        }
        let (arrived, result) = whole.leave(100, Ok(())).unwrap();
        assert_eq!(arrived, 100);
        assert_eq!(result.unwrap_err().raw_os_error(), Some(libc::EIO));
    }

    #[test]
    fn what_is_missing_is_read_from_the_last_aligned_byte() {
        let mut job = job(8192, 8000, 512, FINE);
        assert_eq!(call(&mut job), (0, 8192));
        assert_goes_on(job.advance(Ok(1100)));
        assert_eq!(call(&mut job), (1024, 7168));
        // The same bytes and one more.
        assert_goes_on(job.advance(Ok(77)));
        assert_eq!(call(&mut job), (1024, 7168));
        assert!(end(job.advance(Ok(8000 - 1024))).is_ok());
        assert_eq!(job.arrived(), 8000);
    }

    #[test]
    fn no_byte_more_is_the_end_of_the_file() {
        let mut job = job(8192, 8000, 512, FINE);
        call(&mut job);
        assert_goes_on(job.advance(Ok(1100)));
        call(&mut job);
        let cause = end(job.advance(Ok(1100 - 1024))).unwrap_err();
        assert_eq!(cause.kind(), io::ErrorKind::UnexpectedEof);
        let end = ((1 << 20) + 1100).to_string();
        assert!(cause.to_string().contains(&end), "{cause}");
    }

    #[test]
    fn one_call_is_not_too_long() {
        let mut job = job(3 << 30, 3 << 30, 4096, FINE);
        for at in [0, 1 << 30] {
            assert_eq!(call(&mut job), (at, 1 << 30));
            assert_goes_on(job.advance(Ok(1 << 30)));
        }
        assert_eq!(call(&mut job), (2 << 30, 1 << 30));
        assert!(end(job.advance(Ok(1 << 30))).is_ok());
    }

    #[test]
    fn what_passes_is_tried_again_after_a_pause() {
        for errno in [libc::EAGAIN, libc::ENOMEM, libc::EINTR, libc::EFAULT] {
            let error = || Err(io::Error::from_raw_os_error(errno));
            let is_interruption = [libc::EINTR, libc::EFAULT].contains(&errno);
            let mut job = job(4096, 4096, 512, FINE);
            if is_interruption {
                assert_eq!(call(&mut job), (0, 4096));
                assert_goes_on(job.advance(error()));
            }
            let mut last = Duration::ZERO;
            for _ in 0..12 {
                assert_eq!(call(&mut job), (0, 4096));
                match job.advance(error()) {
                    Next::Pause(pause) => assert!(pause > last || pause == PAUSE_MAX),
                    next => panic!("{next:?}"),
                }
                last = PAUSE_MAX.min(last * 2).max(Duration::from_millis(1));
            }
            // What arrives is progress: the next failure is the first.
            assert_goes_on(job.advance(Ok(1024)));
            let is_soon = match job.advance(error()) {
                Next::Pause(pause) => pause <= Duration::from_millis(1),
                next => matches!(next, Next::Call),
            };
            assert!(is_soon);
            assert!(end(job.advance(Ok(4096 - 1024))).is_ok());
        }
        for errno in [libc::EIO, libc::EINVAL, libc::ESTALE, libc::ENODEV] {
            let mut job = job(4096, 4096, 512, FINE);
            let cause = end(job.advance(Err(io::Error::from_raw_os_error(errno)))).unwrap_err();
            assert_eq!(cause.raw_os_error(), Some(errno));
        }
    }

    #[test]
    fn a_short_read_stops_once_at_a_multiple() {
        let short = Fault {
            fails: false,
            is_short: true,
            ..FINE
        };
        for (len, align, first) in [
            (8192, 512, 4096),
            (1536, 512, 512),
            (512, 512, 512),
            (7, 1, 3),
        ] {
            let mut job = job(len, len, align, short);
            assert_eq!(call(&mut job), (0, first));
            let next = job.advance(Ok(first));
            assert_eq!(matches!(next, Next::End(_)), first == len);
            if first < len {
                assert_eq!(call(&mut job), (first, len - first));
            }
        }
    }
}
