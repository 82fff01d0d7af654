//! What passes is tried again; what does not end can be told.

use hotset::store::{Arena, QueueKind, Read, ReadQueue};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::support::*;

type Prepared = (
    ReadQueue,
    Arc<Arena>,
    Arc<Reports>,
    Vec<(Read, usize, usize)>,
);

/// A queue that suffers `faults`, and `n` reads for it of `file`, which lies in `dir`.
fn prepare(dir: &Path, file: &[u8], kind: QueueKind, faults: &str, n: usize) -> Prepared {
    let model = model(&dir.join("m"), file);
    let reads = random_reads(n, model.align(), 53);
    let (queue, arena, reports) = queue(vec![model], kind, 4, faults, n * SLOT);
    (queue, arena, reports, reads)
}

/// Waits until `n` reads are reported, for less than what the late one takes.
fn wait_for(reports: &Reports, n: usize) {
    let begin = Instant::now();
    while reports.by_tag.lock().unwrap().len() < n {
        assert!(begin.elapsed() < Duration::from_millis(2900), "not {n}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn calls_that_fail_for_a_while_are_made_again() {
    let file = content(51);
    let dir = tempfile::tempdir().unwrap();
    for kind in kinds() {
        for (faults, said) in [
            ("again=3", "Resource temporarily unavailable"),
            ("nomem=2", "Cannot allocate memory"),
            ("nomem=2,short=2,delay_ms=1", "Cannot allocate memory"),
        ] {
            let (queue, arena, reports, reads) = prepare(dir.path(), &file, *kind, faults, 40);
            let path = queue.files()[0].path().display().to_string();
            queue.submit(&only_reads(&reads));
            reports.take_ok(40);
            assert_arrived(&arena, &reads, &file, queue.about());
            let stats = queue.stats();
            assert!((10..=80).contains(&stats.n_retries), "{faults}: {stats:?}");
            assert_eq!((stats.n_reads, stats.n_in_flight), (40, 0));
            let notes = reports.notes.lock().unwrap();
            assert_eq!(notes.len(), 1, "{notes:?}");
            for part in [said, "offset", path.as_str(), "tried again"] {
                assert!(notes[0].contains(part), "{notes:?}");
            }
        }
    }
}

/// A read that is paused keeps none from arriving, and can be told from the others.
#[test]
fn a_read_that_stalls_holds_up_no_other() {
    let file = content(52);
    let dir = tempfile::tempdir().unwrap();
    for kind in kinds() {
        let late = "stall_ms=3000";
        let (queue, arena, reports, reads) = prepare(dir.path(), &file, *kind, late, 40);
        assert!(queue.longest_under_way().flatten().is_none());
        let begin = Instant::now();
        queue.submit(&only_reads(&reads));
        wait_for(&reports, 39);
        let read = queue.longest_under_way().flatten().unwrap();
        let first = reads[0].0;
        let (offset, need) = (first.offset, first.need);
        assert_eq!((read.file, read.offset, read.n_bytes), (0, offset, need));
        assert!(read.since >= begin);
        assert_eq!(queue.stats().n_in_flight, 1);
        reports.take_ok(40);
        assert!(begin.elapsed() >= Duration::from_millis(3000));
        assert_arrived(&arena, &reads, &file, queue.about());
        assert!(queue.longest_under_way().flatten().is_none());
    }
}

/// Reads that are paused are cancelled with the others.
#[test]
fn a_queue_ends_while_a_read_is_paused() {
    let file = content(54);
    let dir = tempfile::tempdir().unwrap();
    for kind in kinds() {
        let late = "stall_ms=60000";
        let (queue, _arena, reports, reads) = prepare(dir.path(), &file, *kind, late, 10);
        queue.submit(&only_reads(&reads));
        wait_for(&reports, 9);
        drop(queue);
        let cause = &reports.take(10)[&0];
        let cause = &cause.as_ref().unwrap_err().cause;
        assert_eq!(cause.raw_os_error(), Some(libc::ECANCELED));
    }
}

/// A file system may stop reading past the page cache: the same descriptor is read through it.
#[test]
fn direct_reads_that_are_refused_later_go_through_the_page_cache() {
    let file = content(56);
    for place in places() {
        let dir = tempfile::tempdir_in(&place).unwrap();
        for kind in kinds() {
            let path = dir.path().join("m");
            let model = model(&path, &file);
            if !model.is_direct() {
                continue;
            }
            let align = model.align();
            let reads = random_reads(40, align, 61);
            let (queue, arena, reports) = queue(vec![model], *kind, 4, "direct=5", 40 * SLOT);
            // Another file by this name is none of ours.
            std::fs::remove_file(&path).unwrap();
            std::fs::write(&path, b"another").unwrap();
            queue.submit(&only_reads(&reads));
            reports.take_ok(40);
            assert_arrived(&arena, &reads, &file, queue.about());
            let model = &queue.files()[0];
            assert!(!model.is_direct());
            assert_eq!(model.align(), align, "places in the arena stay");
            let notes = reports.notes.lock().unwrap();
            assert_eq!(notes.len(), 1, "{notes:?}");
            assert!(notes[0].contains("page cache"), "{notes:?}");
        }
    }
}
