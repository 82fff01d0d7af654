//! The life of one read, whoever makes its system calls: parts that arrive, retries, the end.

use std::io;
use std::sync::{Arc, Mutex};

use super::Read;
use super::fault::Fault;

/// A single system call reads at most this much; the rest follows as after a short read.
const CALL_BYTES_MAX: usize = 1 << 30;

/// How often a call of one read is made again although nothing arrived.
const RETRIES_MAX: u32 = 64;

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
    /// Where the next call begins, a multiple of `align`.
    at: usize,
    /// Bytes from the beginning of the read that have arrived; `at` is this, rounded down.
    arrived: usize,
    n_retries: u32,
}

/// One system call of a job: `len` bytes from `offset` to `addr`, inside the arena.
pub(super) struct Call {
    pub offset: u64,
    pub addr: usize,
    pub len: usize,
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
            at: 0,
            arrived: 0,
            n_retries: 0,
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

    /// The call to make next; its outcome goes to [`Job::advance`].
    pub fn call(&mut self) -> Call {
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

    /// Takes the outcome of the last call: how the read ended, or None if another call is needed.
    pub fn advance(&mut self, outcome: io::Result<usize>) -> Option<io::Result<()>> {
        if self.fails {
            return Some(Err(io::Error::from_raw_os_error(libc::EIO)));
        }
        let n_bytes = match outcome {
            Ok(n) => n,
            Err(e) if is_passing(&e) && self.n_retries < RETRIES_MAX => {
                self.n_retries += 1;
                return None;
            }
            Err(e) => return Some(Err(e)),
        };
        let arrived = self.at + n_bytes;
        let is_at_end = arrived <= self.arrived;
        self.arrived = self.arrived.max(arrived);
        if self.arrived >= self.read.need {
            return Some(Ok(()));
        }
        if is_at_end {
            let end = self.read.offset + self.arrived as u64;
            return Some(Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                format!("the file ends at offset {end}"),
            )));
        }
        self.at = self.arrived - self.arrived % self.align;
        None
    }
}

/// Whether a call that failed like this may succeed when it is made again.
///
/// A ring loses the calls of a thread that ends: they are cancelled, or finish where the memory of
/// the process cannot be reached (EFAULT). The arena can be, so EFAULT means nothing else.
fn is_passing(cause: &io::Error) -> bool {
    matches!(
        cause.raw_os_error(),
        Some(libc::EINTR | libc::EAGAIN | libc::ECANCELED | libc::EFAULT)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const FINE: Fault = Fault {
        fails: false,
        is_short: false,
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
        let call = job.call();
        let at = call.addr - (1 << 30);
        assert_eq!(call.offset, (1 << 20) + at as u64);
        (at, call.len)
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
        assert!(job.advance(Ok(1100)).is_none());
        assert_eq!(call(&mut job), (1024, 7168));
        // The same bytes and one more.
        assert!(job.advance(Ok(77)).is_none());
        assert_eq!(call(&mut job), (1024, 7168));
        assert!(job.advance(Ok(8000 - 1024)).unwrap().is_ok());
        assert_eq!(job.arrived(), 8000);
    }

    #[test]
    fn no_byte_more_is_the_end_of_the_file() {
        let mut job = job(8192, 8000, 512, FINE);
        call(&mut job);
        assert!(job.advance(Ok(1100)).is_none());
        call(&mut job);
        let cause = job.advance(Ok(1100 - 1024)).unwrap().unwrap_err();
        assert_eq!(cause.kind(), io::ErrorKind::UnexpectedEof);
        let end = ((1 << 20) + 1100).to_string();
        assert!(cause.to_string().contains(&end), "{cause}");
    }

    #[test]
    fn one_call_is_not_too_long() {
        let mut job = job(3 << 30, 3 << 30, 4096, FINE);
        for at in [0, 1 << 30] {
            assert_eq!(call(&mut job), (at, 1 << 30));
            assert!(job.advance(Ok(1 << 30)).is_none());
        }
        assert_eq!(call(&mut job), (2 << 30, 1 << 30));
        assert!(job.advance(Ok(1 << 30)).unwrap().is_ok());
    }

    #[test]
    fn what_passes_is_tried_again_but_not_forever() {
        for errno in [libc::EINTR, libc::EAGAIN, libc::ECANCELED, libc::EFAULT] {
            let error = || Err(io::Error::from_raw_os_error(errno));
            let mut job = job(4096, 4096, 512, FINE);
            for _ in 0..RETRIES_MAX {
                assert_eq!(call(&mut job), (0, 4096));
                assert!(job.advance(error()).is_none());
            }
            let cause = job.advance(error()).unwrap().unwrap_err();
            assert_eq!(cause.raw_os_error(), Some(errno));
        }
        let error = io::Error::from_raw_os_error(libc::EIO);
        let mut job = job(4096, 4096, 512, FINE);
        assert!(job.advance(Err(error)).unwrap().is_err());
    }

    #[test]
    fn a_short_read_stops_once_at_a_multiple() {
        let short = Fault {
            fails: false,
            is_short: true,
        };
        for (len, align, first) in [
            (8192, 512, 4096),
            (1536, 512, 512),
            (512, 512, 512),
            (7, 1, 3),
        ] {
            let mut job = job(len, len, align, short);
            assert_eq!(call(&mut job), (0, first));
            let end = job.advance(Ok(first));
            assert_eq!(end.is_some(), first == len);
            if first < len {
                assert_eq!(call(&mut job), (first, len - first));
            }
        }
    }
}
