//! Work that may wait for everything else.

use super::signals;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// Does `work` in a thread that gives way to all others, then `done` with what came of it and with the time that a
/// processor took for it. Where there is no such thread, or it fails, there is nothing.
pub fn apart<T: 'static>(
    work: impl FnOnce() -> T + Send + 'static,
    done: impl FnOnce(Option<T>, Duration) + Send + 'static,
) {
    let job = Arc::new(Mutex::new(Some((work, done))));
    let take = |job: &Mutex<Option<_>>| job.lock().ok().and_then(|mut job| job.take());
    let of_thread = job.clone();
    let quietly = move || {
        let Some((work, done)) = take(&of_thread) else {
            return;
        };
        signals::leave_to_others();
        #[cfg(target_os = "linux")]
        // SAFETY: plain system calls, about the calling thread.
        let before = unsafe {
            let before = libc::getpriority(libc::PRIO_PROCESS, 0);
            libc::setpriority(libc::PRIO_PROCESS, 0, 19);
            before
        };
        let begin = thread_time();
        let made = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).ok();
        let took = thread_time().saturating_sub(begin);
        // Others wait for what follows.
        #[cfg(target_os = "linux")]
        // SAFETY: as above. Where that is not allowed it takes longer.
        unsafe {
            libc::setpriority(libc::PRIO_PROCESS, 0, before);
        }
        done(made, took);
    };
    let thread = thread::Builder::new().name("hotset-look".to_string());
    if thread.spawn(quietly).is_err()
        && let Some((_, done)) = take(&job)
    {
        done(None, Duration::ZERO);
    }
}

/// What a processor has done for this thread.
fn thread_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.max(0) as u64, time.tv_nsec.max(0) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    #[test]
    fn what_fails_ends_as_well() {
        let done = |sender: std::sync::mpsc::Sender<_>| {
            move |made: Option<u32>, took: Duration| sender.send((made, took)).unwrap()
        };
        let (sender, receiver) = channel();
        apart(|| 7, done(sender));
        assert_eq!(receiver.recv().unwrap().0, Some(7));
        let (sender, receiver) = channel();
        apart(|| panic!("as a bug would"), done(sender));
        assert_eq!(receiver.recv().unwrap().0, None);
        let (sender, receiver) = channel();
        let work = || (0..5_000_000u32).fold(0u32, |sum, n| std::hint::black_box(sum ^ n));
        apart(work, done(sender));
        assert!(
            receiver.recv().unwrap().1 > Duration::ZERO,
            "a processor has worked"
        );
    }
}
