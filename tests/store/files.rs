//! Model files and what may happen to them; arenas; the names of faults.

use std::fs::{self, File, FileTimes, Permissions};
use std::io::{ErrorKind, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hotset::error::Error;
use hotset::store::{Arena, Faults, ModelFile, Read, span};

use crate::support::*;

#[test]
fn spans_are_the_smallest_that_cover() {
    for align in [1, 512, 4096] {
        for offset in [0, 1, 511, 512, 513, 4095, 4096, 1 << 40] {
            for len in [1, 511, 512, 513, 4096, 5000] {
                let s = span(offset, len, align);
                let (begin, end) = (s.offset, s.offset + s.len as u64);
                let unit = align as u64;
                assert!(begin % unit == 0 && end % unit == 0);
                assert_eq!(begin + s.skip as u64, offset);
                assert!(offset - begin < unit && end >= offset + len as u64);
                assert!(end - (offset + len as u64) < unit);
            }
        }
    }
}

#[test]
fn a_truncated_file_is_noticed() {
    let file = content(4);
    for place in places() {
        let dir = tempfile::tempdir_in(place).unwrap();
        for kind in kinds() {
            let path = dir.path().join("m");
            let model = model(&path, &file);
            model.check_unchanged().unwrap();
            let read = |offset, tag| Read {
                file: 0,
                offset,
                len: 64 << 10,
                need: (64 << 10) - 1,
                dst: tag as usize * SLOT,
                tag,
            };
            let (queue, arena, reports) = queue(vec![model], *kind, 2, "", 4 * SLOT);
            // Ends in the first half of the second read, at a multiple of no alignment.
            let end = (1 << 20) + 10_001;
            File::options()
                .write(true)
                .open(&path)
                .and_then(|f| f.set_len(end))
                .unwrap();
            queue.submit(&[read(0, 0), read(1 << 20, 1), read(2 << 20, 2)]);
            let reported = reports.take(3);
            assert!(reported[&0].is_ok());
            for tag in [1, 2] {
                let cause = &reported[&tag].as_ref().unwrap_err().cause;
                assert_eq!(cause.kind(), ErrorKind::UnexpectedEof, "{cause}");
            }
            let cause = &reported[&1].as_ref().unwrap_err().cause;
            assert!(cause.to_string().contains(&end.to_string()), "{cause}");
            assert!(bytes(&arena, 0, 1000) == file[..1000]);
            let error = queue.files()[0].check_unchanged().unwrap_err().to_string();
            assert!(error.contains(path.to_str().unwrap()), "{error}");
            assert!(error.contains(&end.to_string()), "{error}");
        }
    }
}

/// The clock that stamps files ticks every few milliseconds.
fn tick() {
    thread::sleep(Duration::from_millis(50));
}

#[test]
fn a_file_overwritten_in_place_is_noticed_for_good() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m");
    let model = model(&path, &content(5));
    model.check_unchanged().unwrap();
    tick();
    let mut file = File::options().write(true).open(&path).unwrap();
    file.write_all(b"x").unwrap();
    for _ in 0..2 {
        let error = model.check_unchanged().unwrap_err();
        assert!(
            matches!(&error, Error::File { path: p, .. } if *p == path),
            "{error}"
        );
    }
    // What was read meanwhile stays wrong.
    fs::write(&path, content(5)).unwrap();
    model.check_unchanged().unwrap_err();
}

/// A small file, of which every byte is looked at, and one that is too large for that: a hole mostly.
fn small_and_large(dir: &Path) -> Vec<PathBuf> {
    let paths = ["small", "large"].map(|name| dir.join(name));
    for (path, n_bytes) in paths.iter().zip([3 << 20, 100 << 20]) {
        File::create(path).unwrap().set_len(n_bytes).unwrap();
    }
    paths.into()
}

/// Whether the system tells who writes.
fn is_told() -> bool {
    Path::new("/proc/sys/fs/inotify").exists()
}

/// Sets the time of writing alone, to the present.
fn touch_m(path: &Path) {
    let touched = Command::new("touch").arg("-m").arg(path).status().unwrap();
    assert!(touched.success());
}

#[test]
fn what_leaves_the_content_alone_is_no_change() {
    let dir = tempfile::tempdir().unwrap();
    for (i, path) in small_and_large(dir.path()).iter().enumerate() {
        let link = dir.path().join("l");
        let model = ModelFile::open(File::open(path).unwrap().as_fd()).unwrap();
        tick();
        let file = File::options().write(true).open(path).unwrap();
        // As `touch` does: both times are the present.
        let now = SystemTime::now();
        let times = FileTimes::new().set_accessed(now).set_modified(now);
        file.set_times(times).unwrap();
        model.check_unchanged().unwrap();
        for time in [SystemTime::now() + Duration::from_secs(5), UNIX_EPOCH] {
            file.set_modified(time).unwrap();
            model.check_unchanged().unwrap();
        }
        // Of a large file that looks like writing.
        if i == 0 {
            touch_m(path);
            model.check_unchanged().unwrap();
        }
        fs::set_permissions(path, Permissions::from_mode(0o600)).unwrap();
        fs::hard_link(path, &link).unwrap();
        fs::remove_file(path).unwrap();
        model.check_unchanged().unwrap();
        // A few bytes are still a change, wherever they are.
        tick();
        let file = File::options().write(true).open(&link).unwrap();
        file.write_all_at(b"x", 100_000).unwrap();
        assert!(model.check_unchanged().is_err() || i > 0 && !is_told());
        fs::remove_file(&link).unwrap();
    }
}

/// Whatever is done to the times and the mode after the writing, before anybody looks.
#[test]
fn a_change_is_not_hidden_by_other_times() {
    let dir = tempfile::tempdir().unwrap();
    let hide: [fn(&Path, SystemTime); 4] = [
        |path, _| fs::set_permissions(path, Permissions::from_mode(0o600)).unwrap(),
        |path, _| touch_m(path),
        |path, time| set_times(path, time),
        |path, _| set_times(path, UNIX_EPOCH),
    ];
    for path in small_and_large(dir.path()) {
        for hide in hide {
            let model = ModelFile::open(File::open(&path).unwrap().as_fd()).unwrap();
            let before = path.metadata().unwrap().modified().unwrap();
            tick();
            let file = File::options().write(true).open(&path).unwrap();
            let mut old = [0];
            File::open(&path)
                .unwrap()
                .read_exact_at(&mut old, 70_000)
                .unwrap();
            file.write_all_at(&[old[0] + 1], 70_000).unwrap();
            tick();
            hide(&path, before);
            assert!(model.check_unchanged().is_err() || !is_told(), "{path:?}");
        }
    }
}

/// As `touch -d` and `touch -r` do.
fn set_times(path: &Path, time: SystemTime) {
    let times = FileTimes::new().set_accessed(time).set_modified(time);
    let file = File::options().write(true).open(path).unwrap();
    file.set_times(times).unwrap();
}

#[test]
fn a_file_renamed_over_stays_readable() {
    let (old, new) = (content(6), content(7));
    let dir = tempfile::tempdir().unwrap();
    for kind in kinds() {
        let path = dir.path().join("m");
        let model = model(&path, &old);
        fs::write(dir.path().join("n"), &new).unwrap();
        fs::rename(dir.path().join("n"), &path).unwrap();
        model.check_unchanged().unwrap();
        let reads = random_reads(4, model.align(), 9);
        let (queue, arena, reports) = queue(vec![model], *kind, 4, "", 4 * SLOT);
        queue.submit(&only_reads(&reads));
        reports.take_ok(4);
        assert_arrived(&arena, &reads, &old, queue.about());
    }
}

#[test]
fn a_link_given_by_descriptor_opens_the_same_file_after_a_rename() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m");
    fs::write(&path, b"old").unwrap();
    let given = File::open(&path).unwrap();
    fs::write(dir.path().join("n"), b"newer").unwrap();
    fs::rename(dir.path().join("n"), &path).unwrap();
    let model = ModelFile::open(given.as_fd()).unwrap();
    assert_eq!(model.len(), 3);
    // Opened once more, not shared.
    let other = self::model(&dir.path().join("o"), b"other");
    assert_eq!(model.is_direct(), other.is_direct());
}

#[test]
fn arenas_are_aligned_zeroed_and_may_exceed_memory() {
    let small = Arena::map(1).unwrap();
    assert!(small.len() >= 4096 && small.addr().is_multiple_of(4096));
    let large = Arena::map((5 << 20) + 1).unwrap();
    assert_eq!(large.addr() % (2 << 20), 0);
    assert!(large.len() > 5 << 20 && large.len() < 6 << 20);
    assert!(bytes(&large, 0, large.len()).iter().all(|b| *b == 0));
    // The first and the last byte can be written.
    for at in [0, large.len() - 1] {
        // SAFETY: inside the arena, which nobody else uses.
        unsafe { *((large.addr() + at) as *mut u8) = 1 };
    }
    // Together these are larger than what a process can address.
    for _ in 0..16 {
        let huge = Arena::map(1 << 44).unwrap();
        assert_eq!(bytes(&huge, (1 << 44) - 1, 1), [0]);
    }
    for n_bytes in [0, usize::MAX >> 1, usize::MAX] {
        let error = Arena::map(n_bytes).unwrap_err().to_string();
        assert!(
            error.starts_with(&format!("HOTSET_RAM={n_bytes}: ")),
            "{error}"
        );
    }
}

#[test]
fn faults_are_parsed_or_named() {
    let faults = Faults::parse("read=17,short=5,delay_ms=3").unwrap();
    assert_eq!((faults.read, faults.short), (Some(17), Some(5)));
    assert_eq!(faults.delay, Duration::from_millis(3));
    assert_eq!(Faults::parse("short=5").unwrap().read, None);
    let faults = Faults::parse("again=2,nomem=3,direct=1,stall_ms=4,serial_ms=5").unwrap();
    let counts = (faults.again, faults.nomem, faults.direct);
    assert_eq!(counts, (Some(2), Some(3), Some(1)));
    let times = [faults.stall, faults.serial].map(|time| time.as_millis());
    assert_eq!(times, [4, 5]);
    for bad in [
        "",
        "read",
        "read=",
        "read=0",
        "short=0",
        "short=-1",
        "read=1,",
        "reed=1",
        "again=0",
        "nomem=-1",
        "direct=0",
        "stall_ms=",
        "serial_ms=1s",
    ] {
        let error = Faults::parse(bad).unwrap_err().to_string();
        assert!(
            error.starts_with(&format!("HOTSET_FAULT={bad}: ")),
            "{error}"
        );
    }
}

#[test]
fn only_regular_files_are_models() {
    let directory = File::open("/").unwrap();
    assert!(ModelFile::open(directory.as_fd()).is_err());
}
