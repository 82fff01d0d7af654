//! All orders in which threads can see how far a part is (`src/engine/progress.rs`), with loom: nobody computes with a chunk
//! that is not done, and each is rewritten once.

#![allow(unsafe_code)]

mod words {
    pub use loom::hint::spin_loop;
    pub use loom::sync::atomic::{AtomicU32, Ordering};
    pub use loom::thread::yield_now;
}

#[path = "../src/engine/progress.rs"]
#[allow(dead_code)]
mod progress;

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicU32, Ordering};
use loom::thread;
use progress::Progress;

/// What is read, rewritten and computed: each chunk a cell, which loom lets nobody read while it is written.
struct Part<const N: usize> {
    chunks: [UnsafeCell<u32>; N],
    progress: Progress,
    /// Whether it has arrived.
    has_come: AtomicU32,
}

impl<const N: usize> Part<N> {
    fn new() -> Self {
        Self {
            chunks: std::array::from_fn(|_| UnsafeCell::new(0)),
            progress: Progress::default(),
            has_come: AtomicU32::new(0),
        }
    }

    /// It has been read, with this in each chunk.
    fn arrive(&self, value: u32) {
        // SAFETY: nobody uses it yet; loom would say so.
        self.chunks
            .iter()
            .for_each(|chunk| chunk.with_mut(|chunk| unsafe { *chunk = value }));
        self.progress.begin(0);
        self.has_come.store(1, Ordering::Release);
    }

    /// Makes it ready, as whoever computes does, and looks at all of it.
    fn compute(&self, expected: u32) {
        // SAFETY: a chunk is given to one thread, which loom checks.
        let double =
            |chunk: u32| self.chunks[chunk as usize].with_mut(|chunk| unsafe { *chunk *= 2 });
        self.progress.work(N as u32, double);
        for chunk in &self.chunks {
            // SAFETY: nobody writes it any more, which loom checks.
            assert_eq!(chunk.with(|chunk| unsafe { *chunk }), expected);
        }
    }
}

/// Two threads make a part of `N` chunks ready.
fn share<const N: usize>() {
    loom::model(|| {
        let part = Arc::new(Part::<N>::new());
        part.arrive(7);
        let other = {
            let part = part.clone();
            thread::spawn(move || part.compute(14))
        };
        part.compute(14);
        other.join().unwrap();
        assert!(part.progress.is_done(N as u32));
    });
}

#[test]
fn two_threads_share_a_part() {
    share::<1>();
    share::<2>();
    share::<3>();
}

/// One reads while another one waits for it; then the place is read into again.
#[test]
fn what_arrives_is_seen_as_a_whole() {
    loom::model(|| {
        let part = Arc::new(Part::<2>::new());
        let reader = {
            let part = part.clone();
            thread::spawn(move || part.arrive(3))
        };
        while part.has_come.load(Ordering::Acquire) == 0 {
            thread::yield_now();
        }
        part.compute(6);
        reader.join().unwrap();
        part.arrive(5);
        part.compute(10);
    });
}
