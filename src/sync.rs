//! Locks that are waited for, but not for ever.

use std::cell::Cell;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, TryLockError};
use std::time::{Duration, Instant};

/// How long a lock is waited for: many times what anybody holds one, and short enough for the end of a process.
const WAIT_MAX: Duration = Duration::from_secs(1);
/// Between two tries.
const PAUSE: Duration = Duration::from_micros(50);
/// How often whoever can wait lets others have the lock first, for as long as two tries take each time.
const N_PAUSES: u32 = 10;

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

/// A lock that can be had soon even if a thread takes it again and again.
pub struct Lock<T> {
    mutex: Mutex<T>,
    /// Threads in [`Self::soon`] or [`Self::first`].
    n_waiting: AtomicU32,
}

impl<T> Lock<T> {
    /// A lock of `value`.
    pub fn new(value: T) -> Self {
        Self {
            mutex: Mutex::new(value),
            n_waiting: AtomicU32::new(0),
        }
    }

    /// As [`lock_soon`]. Who takes the lock with [`Self::lock`] lets us have it first.
    pub fn soon(&self) -> Option<MutexGuard<'_, T>> {
        self.n_waiting.fetch_add(1, Relaxed);
        let guard = lock_soon(&self.mutex);
        self.n_waiting.fetch_sub(1, Relaxed);
        guard
    }

    /// Takes the lock, however long that takes, before others take it again with [`Self::lock`].
    pub fn first(&self) -> MutexGuard<'_, T> {
        self.n_waiting.fetch_add(1, Relaxed);
        let guard = self.mutex.lock();
        self.n_waiting.fetch_sub(1, Relaxed);
        guard.expect(NOBODY_PANICS)
    }

    /// Takes the lock, however long that takes. No thread panics with it.
    pub fn lock(&self) -> MutexGuard<'_, T> {
        // A few pauses at most: who waits may be slow, and there are few that do.
        for _ in 0..N_PAUSES {
            if self.n_waiting.load(Relaxed) == 0 {
                break;
            }
            std::thread::sleep(2 * PAUSE);
        }
        self.mutex.lock().expect(NOBODY_PANICS)
    }

    /// What is locked, which nobody else can have now.
    pub fn get_mut(&mut self) -> &mut T {
        self.mutex.get_mut().expect(NOBODY_PANICS)
    }
}

thread_local! {
    /// Locks of ours that this thread holds, or is about to take.
    static N_HELD: Cell<u32> = const { Cell::new(0) };
}

/// While it lives, this thread holds what the end of the process needs: a signal that would end it here waits.
#[derive(Debug)]
pub struct Busy(PhantomData<*const ()>);

impl Busy {
    /// Begins it for the calling thread.
    #[inline]
    pub fn begin() -> Self {
        N_HELD.set(N_HELD.get() + 1);
        Self(PhantomData)
    }

    /// Whether this thread is. A handler of signals may ask.
    #[inline]
    pub fn is_here() -> bool {
        N_HELD.get() != 0
    }
}

impl Drop for Busy {
    #[inline]
    fn drop(&mut self) {
        N_HELD.set(N_HELD.get() - 1);
    }
}

const NOBODY_PANICS: &str = "no thread panics with the state";

/// A lock that is held: a signal that would end this thread waits until it is free.
pub struct Held<'a, T> {
    // Dropped in this order.
    guard: MutexGuard<'a, T>,
    _busy: Busy,
}

impl<'a, T> Held<'a, T> {
    /// Takes `lock`, as [`Lock::lock`].
    pub fn of(lock: &'a Lock<T>) -> Self {
        let busy = Busy::begin();
        Self {
            guard: lock.lock(),
            _busy: busy,
        }
    }
}

impl<T> Deref for Held<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.guard
    }
}

impl<T> DerefMut for Held<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        &mut self.guard
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicBool;

    /// A thread that drops the lock only to take it again keeps nobody out.
    #[test]
    fn a_busy_lock_is_had_and_a_stuck_one_is_not() {
        let lock = Lock::new(());
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !is_over.load(Relaxed) {
                    let _held = lock.lock();
                    std::thread::sleep(Duration::from_micros(300));
                }
            });
            let n_had = (0..50).filter(|_| lock.soon().is_some()).count();
            is_over.store(true, Relaxed);
            assert_eq!(n_had, 50);
        });
        let _held = lock.lock();
        let begin = Instant::now();
        assert!(lock.soon().is_none());
        assert!(begin.elapsed() >= WAIT_MAX);
    }

    /// Also if it is held nearly all the time, and for long each time.
    #[test]
    fn who_is_to_be_first_is() {
        let lock = Lock::new(0);
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut n_turns = 0;
                // Not for ever, if nobody else gets it.
                while !is_over.load(Relaxed) && n_turns < 2000 {
                    n_turns += 1;
                    let mut held = lock.lock();
                    *held = n_turns;
                    std::thread::sleep(Duration::from_millis(5));
                }
            });
            for _ in 0..20 {
                let before = *lock.first();
                std::thread::sleep(Duration::from_millis(1));
                assert!(*lock.first() - before < 20);
            }
            is_over.store(true, Relaxed);
        });
    }
}
