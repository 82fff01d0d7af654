//! What reads after the kernel has stopped taking reads: a filter for system calls may come late.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use super::Read;
use super::backlog::Backlog;
use super::core::{Backend, Core};
use super::job::Job;
use super::pread::{ReadThreads, THREADS_USUAL};

/// What there is instead of a ring: threads, or the error that there are none.
pub(super) enum Lost {
    Threads(ReadThreads),
    Nothing(i32),
}

impl Lost {
    /// Up to `n_threads` instead of the ring that was lost by `cause`, and what to say of that.
    pub fn start(core: &Arc<Core>, n_threads: u32, cause: &io::Error) -> (Self, String) {
        let (lost, instead) = match ReadThreads::start(core, n_threads.min(THREADS_USUAL)) {
            Ok((pool, _)) => {
                let instead = format!("pread, {} threads", pool.n_threads());
                (Self::Threads(pool), instead)
            }
            Err(cause) => {
                let errno = cause.raw_os_error().unwrap_or(libc::EAGAIN);
                (Self::Nothing(errno), format!("nothing ({cause})"))
            }
        };
        let _ = core
            .lost
            .set(format!("{instead} (io_uring was lost: {cause})"));
        let note = format!(
            "io_uring does not take reads any more ({cause}): experts are read by {instead} from now on"
        );
        (lost, note)
    }

    /// Takes all that waits in `line`; what nothing will read goes to `stranded`.
    pub fn take_over(&self, line: &mut Backlog, stranded: &mut Vec<(Job, io::Error)>) {
        match self {
            Self::Threads(pool) => pool.change(&mut |theirs| theirs.append(line)),
            Self::Nothing(errno) => {
                while let Some(job) = line.pop() {
                    stranded.push((job, io::Error::from_raw_os_error(*errno)));
                }
            }
        }
    }

    /// As [`Backend::longest_under_way`].
    pub fn longest_under_way(&self) -> Option<Option<(Read, Instant)>> {
        match self {
            Self::Threads(pool) => pool.longest_under_way(),
            Self::Nothing(_) => Some(None),
        }
    }
}
