//! What the core has to tell a person. It prints nothing: whoever listens does.

use crate::numbers::bytes;
use crate::sync::Busy;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

/// Something a person should know. Its text is a line without its end.
#[derive(Debug, Clone, PartialEq)]
pub enum Notice {
    /// A prompt was computed in several batches, each of which read its experts.
    LargerBatch {
        /// Tokens of the prompt.
        n_tokens: u64,
        /// In so many batches.
        n_batches: u32,
        /// Bytes that the batches after the first have read.
        n_bytes: u64,
    },
    /// A read takes very long, or has ended after that.
    SlowRead {
        /// Bytes of the read.
        n_bytes: usize,
        /// Where in the file.
        offset: u64,
        /// The file.
        path: PathBuf,
        /// The tensor and the experts.
        what: String,
        /// Until now, or to its end.
        took: Duration,
        /// Whether it has ended.
        has_ended: bool,
    },
    /// Reads are done in another way than they were to be, and why.
    Reads(String),
    /// The workload was recognised.
    Workload {
        /// The name of the profile that it is like.
        profile: String,
        /// Whether it was like another one before.
        is_change: bool,
        /// How sure that is, 0 to 1.
        confidence: f64,
        /// Tokens that have told so.
        n_tokens: u64,
    },
    /// The routing is no longer recorded.
    Unrecorded {
        /// The trace.
        path: PathBuf,
        /// Why.
        why: String,
    },
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::LargerBatch {
                n_tokens,
                n_batches,
                n_bytes,
            } => {
                let n_batch = n_tokens.next_power_of_two();
                write!(
                    f,
                    "hotset: this prompt of {n_tokens} tokens was computed in {n_batches} batches, and those after the \
                     first read {} of experts once more; -ub {n_batch} -b {n_batch} would save that, but needs more \
                     memory",
                    bytes(*n_bytes)
                )
            }
            Self::SlowRead {
                n_bytes,
                offset,
                path,
                what,
                took,
                has_ended,
            } => {
                let does = match has_ended {
                    false => "takes",
                    true => "has ended: it took",
                };
                write!(
                    f,
                    "hotset: warning: reading {n_bytes} bytes at offset {offset} of {} ({what}) {does} {} s",
                    path.display(),
                    took.as_secs()
                )
            }
            Self::Reads(what) => write!(f, "hotset: warning: {what}"),
            Self::Workload {
                profile,
                is_change,
                confidence,
                n_tokens,
            } => {
                let is = if *is_change { "changed to" } else { "is like" };
                write!(
                    f,
                    "hotset: the workload {is} profile '{profile}': {:.0} % sure after {n_tokens} tokens",
                    100.0 * confidence
                )
            }
            Self::Unrecorded { path, why } => {
                let path = path.display();
                write!(
                    f,
                    "hotset: warning: HOTSET_TRACE: {path}: {why}; routing is no longer recorded"
                )
            }
        }
    }
}

/// Takes what is told. It is called by any thread, with any lock held, and must not wait for anybody.
pub type Listener = Box<dyn Fn(Notice) + Send>;

/// So many are kept for who comes to listen: the latest.
const UNTOLD_MAX: usize = 16;

/// What there is to tell, until somebody listens.
#[derive(Default)]
pub struct Notices(Mutex<State>);

#[derive(Default)]
struct State {
    untold: Vec<Notice>,
    listener: Option<Listener>,
}

impl Notices {
    /// Tells it, or keeps it for who comes to listen.
    pub fn tell(&self, notice: Notice) {
        let _busy = Busy::begin();
        let mut state = self.state();
        match &state.listener {
            Some(listener) => listener(notice),
            None => {
                // Nobody may ever come to listen.
                if state.untold.len() == UNTOLD_MAX {
                    state.untold.remove(0);
                }
                state.untold.push(notice);
            }
        }
    }

    /// Tells `listener` what there is, and from now on what comes.
    pub fn listen(&self, listener: Listener) {
        let _busy = Busy::begin();
        let mut state = self.state();
        state.untold.drain(..).for_each(&listener);
        state.listener = Some(listener);
    }

    /// What nobody has listened to, which is then forgotten.
    pub fn take(&self) -> Vec<Notice> {
        std::mem::take(&mut self.state().untold)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no listener panics")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    #[test]
    fn what_came_before_somebody_listens_is_told_first_and_all_of_it_once() {
        let notice = |n: u32| Notice::Reads(n.to_string());
        let notices = Notices::default();
        (0..3).for_each(|n| notices.tell(notice(n)));
        assert_eq!(notices.take(), [0, 1, 2].map(notice));
        (3..5).for_each(|n| notices.tell(notice(n)));
        let (sender, receiver) = channel();
        notices.listen(Box::new(move |notice| sender.send(notice).unwrap()));
        notices.tell(notice(5));
        let told: Vec<Notice> = receiver.try_iter().collect();
        assert_eq!(told, [3, 4, 5].map(notice));
        assert!(notices.take().is_empty());
    }
}
