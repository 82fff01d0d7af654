//! Locks: waited for, but not for ever, and free while somebody is told of what was found.

use crate::report;
use std::ops::{Deref, DerefMut};
use std::sync::{Mutex, MutexGuard, TryLockError};
use std::time::{Duration, Instant};

/// How long a lock is waited for: many times what anybody holds one, and short enough for the end of a process.
const WAIT_MAX: Duration = Duration::from_secs(1);
/// Between two tries. Shorter than most holds, so that a thread which takes the lock again and again cannot keep
/// it from us.
const PAUSE: Duration = Duration::from_micros(50);

/// Takes a lock that others hold for moments only. `None` if it is not to be had: if the end of the process has
/// interrupted who holds it, for example, or a thread has panicked with it.
pub fn lock_soon<T>(mutex: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
    let begin = Instant::now();
    loop {
        match mutex.try_lock() {
            Ok(guard) => return Some(guard),
            Err(TryLockError::WouldBlock) if begin.elapsed() < WAIT_MAX => {
                std::thread::sleep(PAUSE);
            }
            Err(_) => return None,
        }
    }
}

/// What is kept under a lock, and has something to say now and then.
pub trait Speaks {
    /// Lines for standard error that nobody has heard yet.
    fn take_news(&mut self) -> Vec<String>;
}

/// A lock that is held. What there is to say is said after it is free again: nobody else waits for whoever reads
/// standard error.
pub struct Held<'a, T: Speaks> {
    /// `None` once it is dropped.
    guard: Option<MutexGuard<'a, T>>,
}

impl<'a, T: Speaks> Held<'a, T> {
    /// Takes a lock of which no thread panics.
    pub fn of(mutex: &'a Mutex<T>) -> Self {
        Self {
            guard: Some(mutex.lock().expect("no thread panics with the state")),
        }
    }
}

impl<T: Speaks> Deref for Held<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.guard.as_ref().expect("it is held")
    }
}

impl<T: Speaks> DerefMut for Held<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.guard.as_mut().expect("it is held")
    }
}

impl<T: Speaks> Drop for Held<'_, T> {
    fn drop(&mut self) {
        let news = self.guard.take().map(|mut state| state.take_news());
        news.iter().flatten().for_each(|line| report::say(line));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

    /// A thread that drops the lock only to take it again keeps nobody out.
    #[test]
    fn a_busy_lock_is_had_and_a_stuck_one_is_not() {
        let mutex = Mutex::new(());
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !is_over.load(Relaxed) {
                    let _held = mutex.lock().unwrap();
                    std::thread::sleep(Duration::from_micros(300));
                }
            });
            let all_had = (0..50).all(|_| lock_soon(&mutex).is_some());
            is_over.store(true, Relaxed);
            assert!(all_had);
        });
        let _held = mutex.lock().unwrap();
        let begin = Instant::now();
        assert!(lock_soon(&mutex).is_none());
        assert!(begin.elapsed() >= WAIT_MAX);
    }
}
