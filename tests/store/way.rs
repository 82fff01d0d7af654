//! The way of reading that is found out for a real file.

use std::time::{Duration, Instant};

use hotset::store::{Faults, ModelFile, QueueDepth, QueueKind, QueueOptions, Way, Why};

use crate::support::*;

fn find(model: &ModelFile, kind: QueueKind, faults: &str, n_bytes: usize) -> (Way, Duration) {
    let options = QueueOptions {
        kind,
        queue_depth: QueueDepth::default(),
        faults: match faults {
            "" => Faults::default(),
            faults => Faults::parse(faults).unwrap(),
        },
    };
    let begin = Instant::now();
    let way = Way::find(model, options, n_bytes, false);
    (way, begin.elapsed())
}

#[test]
fn threads_are_chosen_where_io_uring_blocks() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let model = model(&dir.path().join("m"), &content(71));
    let has_ring = kinds().contains(&QueueKind::Uring);
    for (faults, is_slow) in [("serial_ms=4", false), ("serial_ms=30", true)] {
        let (way, took) = find(&model, QueueKind::Auto, faults, 20_000);
        assert_eq!(way.kind, QueueKind::Pread, "{way:?}");
        assert_eq!(
            way.queue_depth.why == Why::RingIsSerial,
            has_ring,
            "{way:?}"
        );
        assert!(way.slow.is_some() || !is_slow, "{way:?}");
        // A tenth of that is usual; the machine may be busy.
        assert!(took < Duration::from_millis(2000), "{took:?}");
        for kind in kinds() {
            let (way, _) = find(&model, *kind, faults, 20_000);
            assert_eq!(way.kind, *kind, "what is asked for stays");
        }
    }
}

#[test]
fn faults_of_reads_are_not_those_of_trials() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let model = model(&dir.path().join("m"), &content(72));
    for n_bytes in [1, 20_000, 2_000_000] {
        let faults = "read=1,short=1,again=1,nomem=1,direct=1,stall_ms=60000";
        let (way, _) = find(&model, QueueKind::Auto, faults, n_bytes);
        assert_eq!(
            way.kind == QueueKind::Pread,
            !kinds().contains(&QueueKind::Uring) || way.queue_depth.why != Why::Usual
        );
    }
}
