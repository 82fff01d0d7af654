//! Reads ahead, and reads in pieces: what waits, goes first, comes too late or is taken back.

use std::collections::HashSet;
use std::ptr;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use hotset::store::{
    Arena, ModelFile, QueueDepth, QueueKind, Read, ReadFailure, ReadQueue, Recalled, Sink,
};

use crate::support::*;

/// The smallest pieces there are, one at a time.
const ONE_BY_ONE: QueueDepth = queue_depth(1, PIECE);
const PIECE: usize = 4096;
/// The sink keeps the thread that reports this one, or one of a higher number.
const STOPS: u64 = 1000;

/// Notes the order of the reports; a thread with [`STOPS`] or more stays until that many are let go.
#[derive(Default)]
struct Gate {
    state: Mutex<(Vec<u64>, u64)>,
    changed: Condvar,
}

impl Sink for Gate {
    fn done(&self, tag: u64, result: Result<(), ReadFailure>) {
        result.unwrap();
        let mut state = self.state.lock().unwrap();
        state.0.push(tag);
        self.changed.notify_all();
        let is_shut = |state: &mut (_, u64)| tag >= STOPS + state.1;
        // A test that fails must not wait for ever for its queue to end.
        let long = Duration::from_secs(10);
        drop(
            self.changed
                .wait_timeout_while(state, long, is_shut)
                .unwrap(),
        );
    }
}

impl Gate {
    fn wait_for(&self, n: usize) -> Vec<u64> {
        let state = self.state.lock().unwrap();
        let long = Duration::from_secs(8);
        let waited = self
            .changed
            .wait_timeout_while(state, long, |state| state.0.len() < n)
            .unwrap();
        assert!(!waited.1.timed_out(), "{:?} of {n}", waited.0.0);
        waited.0.0.clone()
    }

    fn open(&self) {
        self.state.lock().unwrap().1 += 1;
        self.changed.notify_all();
    }
}

/// A read of `n` pieces into a place of its own, which is that of its tag.
fn pieces(tag: u64, n: usize) -> Read {
    Read {
        file: 0,
        offset: 16 * PIECE as u64 * (tag % STOPS),
        len: n * PIECE,
        need: n * PIECE,
        dst: 16 * PIECE * (tag % STOPS) as usize,
        tag,
    }
}

/// A queue whose only thread is stopped in its sink.
fn stopped(file: &[u8], kind: QueueKind) -> (ReadQueue, Arc<Arena>, Arc<Gate>) {
    let dir = tempfile::tempdir().unwrap();
    let model = model(&dir.path().join("m"), file);
    let arena = Arc::new(Arena::map(16 * 16 * PIECE).unwrap());
    let gate = Arc::new(Gate::default());
    let queue = queue_into(vec![model], kind, ONE_BY_ONE, "", &arena, gate.clone());
    queue.submit(&[pieces(STOPS, 1)]);
    assert_eq!(gate.wait_for(1), [STOPS]);
    assert_eq!(queue.stats().n_in_flight, 0);
    (queue, arena, gate)
}

fn assert_read(arena: &Arena, read: &Read, file: &[u8]) {
    let from = read.offset as usize;
    let is_same = bytes(arena, read.dst, read.need) == file[from..from + read.need];
    assert!(is_same, "{read:?}");
}

fn wait_until_idle(queue: &ReadQueue) {
    let begin = Instant::now();
    while queue.stats().n_in_flight > 0 {
        assert!(begin.elapsed().as_secs() < 60, "{:?}", queue.stats());
        std::thread::yield_now();
    }
}

#[test]
fn what_is_needed_goes_before_what_is_ahead() {
    let file = content(21);
    for kind in kinds() {
        for is_hurried in [false, true] {
            let (queue, arena, gate) = stopped(&file, *kind);
            let ahead = [1, 2, 3].map(|tag| pieces(tag, 4));
            let demand = [4, 5].map(|tag| pieces(tag, 3));
            queue.submit_ahead(&ahead);
            queue.submit(&demand);
            if is_hurried {
                queue.hurry(&|tag| tag == 3 || tag == 99);
            }
            gate.open();
            let order = if is_hurried {
                [STOPS, 4, 5, 3, 1, 2]
            } else {
                [STOPS, 4, 5, 1, 2, 3]
            };
            assert_eq!(gate.wait_for(6), order, "{}", queue.about());
            wait_until_idle(&queue);
            ahead.iter().for_each(|r| assert_read(&arena, r, &file));
            demand.iter().for_each(|r| assert_read(&arena, r, &file));
            let stats = queue.stats();
            let n_bytes = (1 + 3 * 4 + 2 * 3) * PIECE as u64;
            assert_eq!((stats.n_reads, stats.bytes_read), (6, n_bytes));
        }
    }
}

#[test]
fn what_is_recalled_is_dropped_or_cut() {
    let file = content(22);
    for kind in kinds() {
        let (queue, arena, gate) = stopped(&file, *kind);
        let reads = [(1, 4), (2, 4), (3, 1), (4, 5)].map(|(tag, n)| pieces(tag, n));
        queue.submit_ahead(&reads);
        queue.hurry(&|tag| tag == 4);
        // Whoever submits gives a ring its first piece; that of threads waits for one.
        let is_ring = *kind == QueueKind::Uring;
        let recalled = queue.recall(&|tag| tag != 3);
        let expected = if is_ring {
            Recalled {
                dropped: vec![(2, 0)],
                cut: vec![1],
            }
        } else {
            Recalled {
                dropped: vec![(1, 0), (2, 0)],
                cut: vec![],
            }
        };
        assert_eq!(recalled, expected);
        assert_eq!(queue.recall(&|tag| tag != 3), Recalled::default());
        let mut left = vec![STOPS, 3, 4];
        left.extend(&recalled.cut);
        left.sort_unstable();
        assert_eq!(queue.stats().n_in_flight, left.len() as u64 - 1);
        gate.open();
        gate.wait_for(left.len());
        wait_until_idle(&queue);
        let stats = queue.stats();
        drop(queue);
        let mut reported = gate.wait_for(0);
        reported.sort_unstable();
        left.sort_unstable();
        assert_eq!(reported, left);
        reads[2..]
            .iter()
            .for_each(|r| assert_read(&arena, r, &file));
        let n_pieces = 1 + 1 + 5 + u64::from(is_ring);
        assert_eq!(stats.bytes_read, n_pieces * PIECE as u64);
        // Nothing was read into what was dropped.
        assert!(
            bytes(&arena, reads[1].dst, reads[1].len)
                .iter()
                .all(|b| *b == 0)
        );
    }
}

/// Only a ring reads on while its thread reports.
#[test]
fn what_is_dropped_says_what_had_arrived() {
    let file = content(23);
    for kind in kinds().iter().filter(|kind| **kind == QueueKind::Uring) {
        let (queue, _, gate) = stopped(&file, *kind);
        // The first piece of 1 is given to the kernel, then those that are needed.
        queue.submit_ahead(&[pieces(1, 4)]);
        queue.submit(&[pieces(STOPS + 1, 1), pieces(2, 1)]);
        gate.open();
        gate.wait_for(2);
        let recalled = queue.recall(&|_| true);
        assert_eq!(recalled.dropped, [(1, PIECE)]);
        assert!(recalled.cut.is_empty());
        gate.open();
        assert_eq!(gate.wait_for(3), [STOPS, STOPS + 1, 2]);
        wait_until_idle(&queue);
        let stats = queue.stats();
        assert_eq!((stats.n_reads, stats.bytes_read), (3, 4 * PIECE as u64));
    }
}

/// Each read has a slot. Where one was dropped, another is read at once.
#[test]
fn reads_come_once_and_whole_whatever_is_hurried_and_recalled() {
    let file = content(24);
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let mut n_recalled = [0; 2];
    for kind in kinds() {
        for (i, piece_bytes) in [4 << 10, 20_000, 64 << 10, 1 << 20].into_iter().enumerate() {
            for depth in [1, 3, 9] {
                let queue_depth = queue_depth(depth, piece_bytes);
                let model = model(&dir.path().join("m"), &file);
                let seed = 31 * u64::from(depth) + i as u64;
                let recalled = churn(model, *kind, queue_depth, &file, seed);
                n_recalled[0] += recalled.dropped.len();
                n_recalled[1] += recalled.cut.len();
            }
        }
    }
    assert!(n_recalled.iter().all(|n| *n > 0), "{n_recalled:?}");
}

/// Submits, hurries and recalls at random; checks all bytes and counters; returns all that was recalled.
fn churn(
    model: ModelFile,
    kind: QueueKind,
    queue_depth: QueueDepth,
    file: &[u8],
    seed: u64,
) -> Recalled {
    const N: usize = 120;
    let reads = random_reads(N, model.align(), seed);
    // The second half replaces what is dropped of the first.
    let (first, second) = reads.split_at(N / 2);
    let arena = Arc::new(Arena::map(N / 2 * SLOT).unwrap());
    let reports = Arc::new(Reports::default());
    let queue = queue_into(
        vec![model],
        kind,
        queue_depth,
        "short=3",
        &arena,
        reports.clone(),
    );
    let mut below = Random(seed + 1);
    let mut submitted: Vec<(Read, usize, usize)> = Vec::new();
    let mut ahead = HashSet::new();
    let mut all = Recalled::default();
    for some in first.chunks(4) {
        let is_ahead = below.below(4) > 0;
        match is_ahead {
            true => queue.submit_ahead(&only_reads(some)),
            false => queue.submit(&only_reads(some)),
        }
        submitted.extend(some);
        ahead.extend(some.iter().filter(|_| is_ahead).map(|(r, ..)| r.tag));
        let chosen = (some[0].0.tag + below.below(2) as u64) % 5;
        match below.below(4) {
            0 => {
                queue.hurry(&|tag| tag % 5 == chosen);
                ahead.retain(|tag| tag % 5 != chosen);
            }
            1 | 2 => {
                let recalled = queue.recall(&|tag| tag % 5 == chosen);
                let tags = recalled.dropped.iter().map(|(tag, _)| tag);
                for tag in tags.chain(&recalled.cut) {
                    assert!(ahead.remove(tag) && tag % 5 == chosen, "{tag}");
                }
                for (tag, n_arrived) in &recalled.dropped {
                    let dst = first[*tag as usize].0.dst;
                    assert!(*n_arrived < first[*tag as usize].0.len);
                    let mut next = second[*tag as usize];
                    next.0.dst = dst;
                    queue.submit(&[next.0]);
                    submitted.push(next);
                }
                all.dropped.extend(recalled.dropped);
                all.cut.extend(recalled.cut);
            }
            _ => wait_until_idle(&queue),
        }
    }
    wait_until_idle(&queue);
    let stats = queue.stats();
    let about = format!("{} seed {seed}", queue.about());
    drop(queue);
    let dropped: HashSet<u64> = all.dropped.iter().map(|(tag, _)| *tag).collect();
    submitted.retain(|(read, ..)| !dropped.contains(&read.tag));
    let reported = reports.take(submitted.len());
    assert_eq!(reported.len(), submitted.len(), "{about}");
    assert!(submitted.iter().all(|(r, ..)| reported[&r.tag].is_ok()));
    let (cut, whole): (Vec<_>, Vec<_>) = submitted
        .iter()
        .partition(|(read, ..)| all.cut.contains(&read.tag));
    assert_eq!(cut.len(), all.cut.len(), "{about}: each is cut once");
    assert_arrived(&arena, &whole, file, &about);
    let arrived: usize = all.dropped.iter().map(|(_, n)| n).sum();
    let least: usize = whole.iter().map(|(r, ..)| r.need).sum();
    let most: usize = submitted.iter().map(|(r, ..)| r.len).sum();
    let range = (least + arrived) as u64..=(most + arrived) as u64;
    assert!(
        range.contains(&stats.bytes_read),
        "{about}: {stats:?} {range:?}"
    );
    assert_eq!(stats.n_reads, submitted.len() as u64, "{about}");
    all
}

/// Writes over what a failed read was to bring, as the next user of the memory would.
struct Reuse {
    arena: Arc<Arena>,
    reads: Vec<Read>,
    reports: Reports,
}

impl Sink for Reuse {
    fn done(&self, tag: u64, result: Result<(), ReadFailure>) {
        if result.is_err() {
            let read = self.reads[tag as usize];
            let dst = ptr::with_exposed_provenance_mut::<u8>(self.arena.addr() + read.dst);
            // SAFETY: inside the arena, and the read is over.
            unsafe { ptr::write_bytes(dst, 0xee, read.len) };
        }
        self.reports.done(tag, result);
    }
}

#[test]
fn a_read_fails_once_when_all_its_pieces_have_ended() {
    let file = content(25);
    let dir = tempfile::tempdir().unwrap();
    for kind in kinds() {
        for is_ahead in [false, true] {
            let model = model(&dir.path().join("m"), &file);
            let arena = Arc::new(Arena::map(8 * 16 * PIECE).unwrap());
            let sink = Arc::new(Reuse {
                arena: arena.clone(),
                reads: (0..8).map(|tag| pieces(tag, 16)).collect(),
                reports: Reports::default(),
            });
            let queue_depth = queue_depth(4, PIECE);
            let queue = queue_into(
                vec![model],
                *kind,
                queue_depth,
                "read=3",
                &arena,
                sink.clone(),
            );
            match is_ahead {
                true => queue.submit_ahead(&sink.reads),
                false => queue.submit(&sink.reads),
            }
            let reported = sink.reports.take(8);
            wait_until_idle(&queue);
            let stats = queue.stats();
            drop(queue);
            for (tag, result) in &reported {
                assert_eq!(result.is_err(), *tag == 2, "{tag}: {result:?}");
                let read = &sink.reads[*tag as usize];
                if result.is_ok() {
                    assert_read(&arena, read, &file);
                } else {
                    let now = bytes(&arena, read.dst, read.len);
                    assert!(now.iter().all(|b| *b == 0xee), "a piece came later");
                }
            }
            assert_eq!(stats.n_reads, 7);
            // All but the piece that failed.
            assert_eq!(stats.bytes_read, (8 * 16 - 1) * PIECE as u64);
        }
    }
}

#[test]
fn dropping_a_queue_reports_what_is_ahead() {
    let file = content(26);
    let dir = tempfile::tempdir().unwrap();
    for kind in kinds() {
        let model = model(&dir.path().join("m"), &file);
        let arena = Arc::new(Arena::map(9 * 16 * PIECE).unwrap());
        let reports = Arc::new(Reports::default());
        let queue = queue_into(
            vec![model],
            *kind,
            ONE_BY_ONE,
            "delay_ms=3",
            &arena,
            reports.clone(),
        );
        let reads: Vec<_> = (0..9).map(|tag| pieces(tag, 7)).collect();
        queue.submit_ahead(&reads);
        let recalled = queue.recall(&|tag| tag == 8);
        assert_eq!(recalled.dropped, [(8, 0)]);
        drop(queue);
        let reported = std::mem::take(&mut *reports.by_tag.lock().unwrap());
        assert_eq!(reported.len(), 8);
        let mut n_cancelled = 0;
        for (tag, result) in reported {
            match result {
                Ok(()) => assert_read(&arena, &reads[tag as usize], &file),
                Err(failure) => {
                    assert_eq!(failure.cause.raw_os_error(), Some(libc::ECANCELED));
                    n_cancelled += 1;
                }
            }
        }
        assert!(n_cancelled > 0);
        assert_eq!(Arc::strong_count(&arena), 1, "nobody keeps the memory");
    }
}
