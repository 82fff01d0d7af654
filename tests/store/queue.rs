//! What a queue promises, for every way of reading.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use hotset::store::{
    Arena, Faults, QueueDepth, QueueOptions, QueueStats, Read, ReadFailure, ReadQueue, Sink, span,
};

use crate::support::*;

#[test]
fn random_slices_arrive_everywhere() {
    let file = content(1);
    for place in places() {
        let dir = tempfile::tempdir_in(&place).unwrap();
        for kind in kinds() {
            for faults in ["", "short=1", "short=3,delay_ms=1"] {
                let model = model(&dir.path().join("m"), &file);
                assert_eq!(model.len(), FILE_LEN as u64);
                let reads = random_reads(40, model.align(), 7);
                let (queue, arena, reports) = queue(vec![model], *kind, 4, faults, 40 * SLOT);
                let about = format!(
                    "{}, align {}, faults `{faults}`, {}",
                    queue.about(),
                    queue.files()[0].align(),
                    place.display(),
                );
                assert_eq!(queue.kind(), *kind);
                queue.submit(&only_reads(&reads));
                reports.take_ok(reads.len());
                assert_arrived(&arena, &reads, &file, &about);
                let stats = queue.stats();
                let need: usize = reads.iter().map(|(read, ..)| read.need).sum();
                let len: usize = reads.iter().map(|(read, ..)| read.len).sum();
                assert_eq!((stats.n_reads, stats.n_in_flight), (40, 0), "{about}");
                let range = need as u64..=len as u64;
                assert!(range.contains(&stats.bytes_read), "{about}: {stats:?}");
            }
        }
    }
}

/// While somebody looks nobody else need be woken; when the last one has gone, what was read meanwhile and what is read then
/// is reported as ever.
#[test]
fn who_has_looked_leaves_nothing_behind() {
    let file = content(5);
    let dir = tempfile::tempdir().unwrap();
    for kind in kinds() {
        let model = model(&dir.path().join("m"), &file);
        let reads = random_reads(60, model.align(), 3);
        let (queue, arena, reports) = queue(vec![model], *kind, 4, "short=3", 60 * SLOT);
        let begin = Instant::now();
        for (number, some) in only_reads(&reads).chunks(6).enumerate() {
            let first = queue.look();
            let second = (number % 2 == 0).then(|| queue.look());
            queue.submit(&some[..3]);
            drop(first);
            queue.submit(&some[3..5]);
            if number % 3 == 0 {
                // As long as nobody calls `help` the rest may wait.
                thread::sleep(Duration::from_millis(5));
            }
            drop(second);
            queue.submit(&some[5..]);
        }
        reports.take_ok(reads.len());
        assert!(
            begin.elapsed() < Duration::from_secs(20),
            "{kind:?}: {:?}",
            begin.elapsed()
        );
        assert_arrived(&arena, &reads, &file, queue.about());
        // Nothing is read on behind anybody's back, or is left.
        let looker = queue.look();
        let again = only_reads(&reads)[0];
        queue.submit(&[Read { tag: 1000, ..again }]);
        while reports.by_tag.lock().unwrap().is_empty() {
            assert!(begin.elapsed() < Duration::from_secs(40), "{kind:?}");
            queue.help();
            thread::yield_now();
        }
        drop(looker);
        reports.take_ok(1);
    }
}

#[test]
fn a_whole_file_arrives_in_one_read() {
    let file = content(2);
    let dir = tempfile::tempdir().unwrap();
    for kind in kinds() {
        let model = model(&dir.path().join("m"), &file);
        let len = span(0, FILE_LEN, 4096).len;
        let (queue, arena, reports) = queue(vec![model], *kind, 1, "", len);
        queue.submit(&[Read {
            file: 0,
            offset: 0,
            len,
            need: FILE_LEN,
            dst: 0,
            tag: 0,
        }]);
        reports.take_ok(1);
        assert!(bytes(&arena, 0, FILE_LEN) == file);
    }
}

#[test]
fn the_chosen_read_fails_and_no_other() {
    let file = content(3);
    let dir = tempfile::tempdir().unwrap();
    for kind in kinds() {
        let model = model(&dir.path().join("m"), &file);
        let path = model.path().to_owned();
        let reads = random_reads(30, model.align(), 5);
        let (queue, _, reports) = queue(vec![model], *kind, 3, "read=17,short=4", 30 * SLOT);
        queue.submit(&only_reads(&reads));
        for (tag, result) in reports.take(30) {
            let Err(failure) = result else {
                assert_ne!(tag, 16, "the 17th read fails");
                continue;
            };
            assert_eq!(tag, 16, "{failure:?}");
            let read = reads[16].0;
            assert_eq!(failure.cause.raw_os_error(), Some(libc::EIO));
            assert_eq!((&failure.path, failure.offset), (&path, read.offset));
            let error = failure.into_error("expert 3".into()).to_string();
            assert!(error.contains(path.to_str().unwrap()), "{error}");
            assert!(error.contains(&format!("{} bytes", read.need)), "{error}");
        }
        let stats = queue.stats();
        assert_eq!((stats.n_reads, stats.n_in_flight), (29, 0));
    }
}

#[test]
fn dropping_a_queue_reports_every_read_once() {
    let file = content(8);
    let dir = tempfile::tempdir().unwrap();
    for kind in kinds() {
        for depth in [1, 2, 16] {
            let model = model(&dir.path().join("m"), &file);
            let reads = random_reads(60, model.align(), 11);
            let (queue, arena, reports) = queue(vec![model], *kind, depth, "delay_ms=3", 60 * SLOT);
            queue.submit(&only_reads(&reads));
            drop(queue);
            // Nobody waits here: drop has.
            let reported = std::mem::take(&mut *reports.by_tag.lock().unwrap());
            assert_eq!(reported.len(), 60);
            let (arrived, cancelled): (Vec<_>, Vec<_>) =
                reads.into_iter().partition(|r| reported[&r.0.tag].is_ok());
            assert_arrived(&arena, &arrived, &file, "arrived before the drop");
            assert!(depth > 1 || !cancelled.is_empty(), "drop waits for all");
            for (read, ..) in cancelled {
                let cause = &reported[&read.tag].as_ref().unwrap_err().cause;
                assert_eq!(cause.raw_os_error(), Some(libc::ECANCELED));
            }
            assert_eq!(Arc::strong_count(&arena), 1, "nobody keeps the memory");
        }
    }
}

#[test]
fn queues_and_threads_do_not_disturb_each_other() {
    let file = content(9);
    let dir = tempfile::tempdir().unwrap();
    let model = |name: &str| model(&dir.path().join(name), &file);
    let queues: Vec<_> = kinds()
        .iter()
        .cycle()
        .take(4)
        .enumerate()
        .map(|(i, kind)| queue(vec![model(&i.to_string())], *kind, 3, "short=5", 40 * SLOT))
        .collect();
    for round in 0..3 {
        let reads = random_reads(40, queues[0].0.files()[0].align(), 13 + round);
        thread::scope(|scope| {
            for (queue, ..) in &queues {
                for part in reads.chunks(10) {
                    scope.spawn(move || only_reads(part).iter().for_each(|r| queue.submit(&[*r])));
                }
            }
        });
        // The threads have ended while their reads were in flight: those arrive all the same.
        for (queue, arena, reports) in &queues {
            reports.take_ok(40);
            assert_arrived(arena, &reads, &file, queue.about());
        }
    }
}

/// Submits the next read when one is done, and may be the queue's last owner.
struct Chain {
    queue: Mutex<Option<Arc<ReadQueue>>>,
    reads: Vec<Read>,
    reports: Reports,
}

impl Sink for Chain {
    fn done(&self, tag: u64, result: Result<(), ReadFailure>) {
        let next = tag as usize + 1;
        let mut queue = self.queue.lock().unwrap();
        if next < self.reads.len() {
            queue.as_ref().unwrap().submit(&self.reads[next..next + 1]);
        } else {
            drop(queue.take());
        }
        self.reports.done(tag, result);
    }
}

#[test]
fn a_sink_may_submit_and_may_drop_the_queue() {
    let file = content(10);
    let dir = tempfile::tempdir().unwrap();
    for kind in kinds() {
        let model = model(&dir.path().join("m"), &file);
        let reads = random_reads(20, model.align(), 15);
        let chain = Arc::new(Chain {
            queue: Mutex::new(None),
            reads: only_reads(&reads),
            reports: Reports::default(),
        });
        let arena = Arc::new(Arena::map(20 * SLOT).unwrap());
        let options = QueueOptions {
            kind: *kind,
            queue_depth: QueueDepth {
                depth: 2,
                ..QueueDepth::default()
            },
            faults: Faults::default(),
        };
        let queue = ReadQueue::new(vec![model], arena.clone(), chain.clone(), options).unwrap();
        let queue = Arc::new(queue);
        *chain.queue.lock().unwrap() = Some(queue.clone());
        queue.submit(&chain.reads[..1]);
        drop(queue);
        chain.reports.take_ok(20);
        assert_arrived(&arena, &reads, &file, "read by a chain");
    }
}

#[test]
fn bad_reads_are_refused_before_any_is_started() {
    let dir = tempfile::tempdir().unwrap();
    for kind in kinds() {
        let model = model(&dir.path().join("m"), &content(11));
        let is_direct = model.is_direct();
        let (queue, arena, _) = queue(vec![model], *kind, 2, "", SLOT);
        let good = Read {
            file: 0,
            offset: 0,
            len: 4096,
            need: 4096,
            dst: 0,
            tag: 0,
        };
        let outside = arena.len();
        #[rustfmt::skip]
        let mut bad = vec![
            Read { file: 1, ..good },
            Read { dst: outside, ..good },
            Read { dst: outside - 4096, len: 8192, ..good },
            Read { dst: usize::MAX - 4095, ..good },
            Read { len: usize::MAX - 4095, ..good },
            Read { need: 0, ..good },
            Read { need: 4097, ..good },
        ];
        if is_direct {
            #[rustfmt::skip]
            bad.extend([
                Read { offset: 100, ..good },
                Read { len: 100, need: 100, ..good },
                Read { dst: 100, ..good },
            ]);
        }
        for bad in bad {
            let call = AssertUnwindSafe(|| queue.submit(&[good, bad]));
            assert!(catch_unwind(call).is_err(), "{bad:?}");
        }
        assert_eq!(queue.stats(), QueueStats::default());
    }
}
