//! What counts as memory that this process will still need, and what does not. One test, because all of a process
//! counts together.

#![cfg(target_os = "linux")]

use hotset::memory::{committed_untouched, note_buffer};
use hotset::store::Arena;
use std::sync::Barrier;
use std::thread;

const MIB: usize = 1 << 20;
/// What the test itself may allocate beside.
const FEW: usize = 8 * MIB;

/// What is needed more than before, in whole mebibytes.
fn more_than(before: u64) -> i64 {
    (committed_untouched() as i64 - before as i64) >> 20
}

#[test]
fn only_what_will_fill_is_needed() {
    let before = committed_untouched();
    let assert_few = |what: &str| {
        let more = more_than(before);
        assert!(
            more.unsigned_abs() as usize * MIB <= FEW,
            "{what}: {more} MiB"
        );
    };
    for (n_threads, stack_bytes) in [(64, 8 * MIB), (300, 64 * MIB)] {
        let barrier = Barrier::new(n_threads + 1);
        thread::scope(|scope| {
            for _ in 0..n_threads {
                let thread = thread::Builder::new().stack_size(stack_bytes);
                let parked = thread.spawn_scoped(scope, || [barrier.wait(), barrier.wait()]);
                parked.expect("a thread costs addresses only");
            }
            barrier.wait();
            assert_few("threads that wait");
            barrier.wait();
        });
        assert_few("threads that have ended");
    }
    let heap = Vec::<u8>::with_capacity(2048 * MIB);
    assert_few("what a host allocates and does not use");
    drop(heap);
    let reserved = Arena::map(4096 * MIB).unwrap();
    assert_few("what a host reserves");

    // The same when it is known to be filled.
    note_buffer(reserved.addr(), 512 * MIB);
    assert_eq!(more_than(before), 512);
    assert!(reserved.commit(0..256 * MIB));
    // The time between two looks depends on what a look takes.
    let waits = (0..100).take_while(|_| more_than(before) != 256);
    waits.for_each(|_| thread::sleep(std::time::Duration::from_millis(20)));
    assert_eq!(more_than(before), 256);
    note_buffer(reserved.addr(), 0);
    assert_few("what is gone");
}
