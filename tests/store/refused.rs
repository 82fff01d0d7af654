//! What happens where the system refuses a call: a seccomp filter does, for one thread.

use std::fs::{self, File};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};
use std::thread;

use hotset::store::{Faults, ModelFile, QueueDepth, QueueKind, QueueOptions, ReadQueue, Way};

use crate::support::*;

/// Runs `test` in a thread, and in those it starts, where `call` fails with `errno`.
fn refusing(call: libc::c_long, errno: i32, test: impl FnOnce() + Send) {
    filtering(call, libc::SECCOMP_RET_ERRNO | errno as u32, test);
}

/// Runs `test` in a thread, and in those it starts, where a filter's answer to `call` is this one.
fn filtering(call: libc::c_long, verdict: u32, test: impl FnOnce() + Send) {
    thread::scope(|scope| {
        let test = scope.spawn(move || {
            filter_here(call, verdict);
            test();
        });
        test.join().unwrap();
    });
}

/// A filter's answer to `call` is `verdict` in this thread and in those it starts.
fn filter_here(call: libc::c_long, verdict: u32) {
    let filter = |code, k, skip_unless_equal| libc::sock_filter {
        code,
        jt: 0,
        jf: skip_unless_equal,
        k,
    };
    let (load, equal, answer) = (
        libc::BPF_LD | libc::BPF_W | libc::BPF_ABS,
        libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K,
        libc::BPF_RET | libc::BPF_K,
    );
    let mut program = [
        // The number of the call is the first field.
        filter(load as u16, 0, 0),
        filter(equal as u16, call as u32, 1),
        filter(answer as u16, verdict, 0),
        filter(answer as u16, libc::SECCOMP_RET_ALLOW, 0),
    ];
    let program = libc::sock_fprog {
        len: program.len() as u16,
        filter: program.as_mut_ptr(),
    };
    // SAFETY: both calls change this thread only, and read `program` while they run.
    unsafe {
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        let mode = libc::SECCOMP_SET_MODE_FILTER;
        assert_eq!(libc::syscall(libc::SYS_seccomp, mode, 0, &program), 0);
    }
}

/// Where trying io_uring ends the process, this test cannot fail without ending all of them.
#[test]
fn a_sandbox_that_kills_is_not_provoked() {
    let file = content(12);
    let dir = tempfile::tempdir().unwrap();
    let verdict = libc::SECCOMP_RET_KILL_PROCESS;
    filtering(libc::SYS_io_uring_setup, verdict, || {
        // Twice: the second time the answer is known.
        for _ in 0..2 {
            let model = model(&dir.path().join("m"), &file);
            let reads = random_reads(8, model.align(), 17);
            let (queue, arena, reports) = queue(vec![model], QueueKind::Auto, 2, "", 8 * SLOT);
            assert_eq!(queue.kind(), QueueKind::Pread);
            assert!(queue.about().contains("seccomp"), "{}", queue.about());
            queue.submit(&only_reads(&reads));
            reports.take_ok(8);
            assert_arrived(&arena, &reads, &file, queue.about());
        }
        let model = model(&dir.path().join("m"), &file);
        let options = QueueOptions {
            kind: QueueKind::Auto,
            queue_depth: QueueDepth::default(),
            faults: Faults::default(),
        };
        let way = Way::find(&model, options, SLOT, true);
        assert_eq!(way.kind, QueueKind::Pread);
    });
}

#[test]
fn without_io_uring_pread_takes_over_and_says_why() {
    let file = content(12);
    let dir = tempfile::tempdir().unwrap();
    refusing(libc::SYS_io_uring_setup, libc::EPERM, || {
        let model = || model(&dir.path().join("m"), &file);
        let reads = random_reads(8, model().align(), 17);
        let (queue, arena, reports) = queue(vec![model()], QueueKind::Auto, 2, "", 8 * SLOT);
        assert_eq!(queue.kind(), QueueKind::Pread);
        assert_eq!(
            queue.about(),
            "pread, 2 threads (io_uring refused: Operation not permitted (os error 1))"
        );
        queue.submit(&only_reads(&reads));
        reports.take_ok(8);
        assert_arrived(&arena, &reads, &file, queue.about());
        let options = QueueOptions {
            kind: QueueKind::Uring,
            queue_depth: QueueDepth {
                depth: 2,
                ..QueueDepth::default()
            },
            faults: Faults::default(),
        };
        let Err(error) = ReadQueue::new(vec![model()], arena, reports, options) else {
            panic!("io_uring is there all the same");
        };
        let error = error.to_string();
        assert!(error.starts_with("HOTSET_IO=uring: "), "{error}");
        assert!(error.contains("not permitted"), "{error}");
    });
}

/// What the kernel does not take is read by threads, like all that follows.
#[test]
fn a_ring_that_is_lost_gives_way_to_threads() {
    if !kinds().contains(&QueueKind::Uring) {
        return;
    }
    let file = content(31);
    let dir = tempfile::tempdir().unwrap();
    for (round, kind) in [QueueKind::Auto, QueueKind::Uring].into_iter().enumerate() {
        let path = dir.path().join("m");
        let (queue, arena, reports) = queue(vec![model(&path, &file)], kind, 3, "", 40 * SLOT);
        let align = queue.files()[0].align();
        let read = |seed| random_reads(40, align, seed);
        let before = read(37);
        queue.submit(&only_reads(&before));
        reports.take_ok(40);
        let after = read(38 + round as u64);
        refusing(libc::SYS_io_uring_enter, libc::EPERM, || {
            queue.submit(&only_reads(&after));
            reports.take_ok(40);
            assert_arrived(&arena, &after, &file, queue.about());
        });
        let again = read(39);
        queue.submit_ahead(&only_reads(&again));
        queue.hurry(&|tag| tag.is_multiple_of(2));
        reports.take_ok(40);
        assert_arrived(&arena, &again, &file, queue.about());
        let about = "pread, 3 threads (io_uring was lost: Operation not permitted (os error 1))";
        assert_eq!(queue.about(), about);
        let notes = reports.notes.lock().unwrap();
        assert_eq!(notes.len(), 1, "{notes:?}");
        assert!(
            notes[0].contains("pread, 3 threads from now on"),
            "{notes:?}"
        );
        assert_eq!(queue.stats().n_in_flight, 0);
    }
}

/// Where there are no threads either, every read ends, and says why.
#[test]
fn a_ring_that_is_lost_with_nothing_in_its_place_ends_its_reads() {
    if !kinds().contains(&QueueKind::Uring) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let model = model(&dir.path().join("m"), &content(35));
    let (queue, _, reports) = queue(vec![model], QueueKind::Uring, 3, "", 8 * SLOT);
    let reads = random_reads(8, queue.files()[0].align(), 43);
    refusing(libc::SYS_io_uring_enter, libc::EPERM, || {
        filter_here(
            libc::SYS_clone,
            libc::SECCOMP_RET_ERRNO | libc::EAGAIN as u32,
        );
        filter_here(
            libc::SYS_clone3,
            libc::SECCOMP_RET_ERRNO | libc::EAGAIN as u32,
        );
        for _ in 0..2 {
            queue.submit(&only_reads(&reads));
            for result in reports.take(8).into_values() {
                let cause = result.unwrap_err().cause;
                assert_eq!(cause.raw_os_error(), Some(libc::EAGAIN));
            }
        }
    });
    assert_eq!(reports.notes.lock().unwrap().len(), 1);
}

/// The kernel may be short of memory for a while: whoever submits does not wait for that, and what was
/// submitted is read when it has passed.
#[test]
fn what_the_kernel_has_no_memory_for_is_given_to_it_later() {
    if !kinds().contains(&QueueKind::Uring) {
        return;
    }
    let file = content(32);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m");
    let (queue, arena, reports) =
        queue(vec![model(&path, &file)], QueueKind::Uring, 3, "", 8 * SLOT);
    let reads = random_reads(8, queue.files()[0].align(), 41);
    for errno in [libc::EAGAIN, libc::EBUSY, libc::ENOMEM] {
        // The filter is on who submits only: the thread of the queue finds memory.
        refusing(libc::SYS_io_uring_enter, errno, || {
            queue.submit(&only_reads(&reads));
        });
        reports.take_ok(8);
        assert_arrived(&arena, &reads, &file, queue.about());
    }
    assert!(queue.about().starts_with("io_uring"), "{}", queue.about());
}

/// clone is how threads are made; newer systems try clone3 first, which they do without where it is unknown.
#[test]
fn without_any_thread_the_error_names_the_setting() {
    let file = content(33);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m");
    for kind in [QueueKind::Auto, QueueKind::Pread] {
        let model = model(&path, &file);
        let said = refused_threads(model, kind);
        let name = if kind == QueueKind::Auto {
            "auto"
        } else {
            "pread"
        };
        assert!(said.starts_with(&format!("HOTSET_IO={name}: ")), "{said}");
        assert!(said.contains("Resource temporarily unavailable"), "{said}");
    }
}

/// The error of a queue that gets no thread.
fn refused_threads(model: ModelFile, kind: QueueKind) -> String {
    let said = std::sync::Mutex::new(String::new());
    let arena = std::sync::Arc::new(hotset::store::Arena::map(SLOT).unwrap());
    refusing(libc::SYS_clone, libc::EAGAIN, || {
        filter_here(
            libc::SYS_clone3,
            libc::SECCOMP_RET_ERRNO | libc::EAGAIN as u32,
        );
        let options = QueueOptions {
            kind,
            queue_depth: QueueDepth::default(),
            faults: Faults::default(),
        };
        let reports = std::sync::Arc::new(Reports::default());
        let queue = ReadQueue::new(vec![model], arena, reports, options);
        let Err(error) = queue else {
            panic!("there are threads all the same");
        };
        *said.lock().unwrap() = error.to_string();
    });
    said.into_inner().unwrap()
}

#[test]
fn where_direct_reads_are_refused_the_file_says_why() {
    let file = content(34);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m");
    // A file system that lets a file be opened so, and then does not read it.
    if model(&path, &file).is_direct() {
        refusing(libc::SYS_pread64, libc::EINVAL, || {
            let given = File::open(&path).unwrap();
            let model = ModelFile::open(given.as_fd()).unwrap();
            assert!(!model.is_direct() && model.align() == 1);
            let why = model.why_buffered().unwrap();
            assert_eq!(why.raw_os_error(), Some(libc::EINVAL));
        });
    }
    // What could not be opened at all was not refused by the file system.
    let given = File::open(&path).unwrap();
    refusing(libc::SYS_openat, libc::EACCES, || {
        let model = ModelFile::open(given.as_fd()).unwrap();
        assert!(model.why_buffered().is_none());
    });
}

/// Whether it changed is told when it can be read again, and not before.
#[test]
fn a_file_that_cannot_be_compared_now_is_compared_later() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m");
    let tick = || thread::sleep(std::time::Duration::from_millis(50));
    let model = model(&path, &content(36));
    let write = |what: &[u8]| {
        tick();
        let file = File::options().write(true).open(&path).unwrap();
        file.write_all_at(what, 0).unwrap();
    };
    let unreadable = |test: &(dyn Fn() + Sync)| refusing(libc::SYS_pread64, libc::EIO, test);
    write(&content(36)[..1]);
    unreadable(&|| model.check_unchanged().unwrap());
    model.check_unchanged().unwrap();
    let other = !content(36)[0];
    write(&[other]);
    unreadable(&|| model.check_unchanged().unwrap());
    model.check_unchanged().unwrap_err();
    // Of what could not be read at the beginning, only writing is a change.
    unreadable(&|| {
        let given = File::open(&path).unwrap();
        let model = ModelFile::open(given.as_fd()).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        model.check_unchanged().unwrap();
        write(&[other]);
        model.check_unchanged().unwrap_err();
    });
}

#[test]
fn a_file_that_cannot_be_opened_again_is_shared() {
    let file = content(13);
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m");
    fs::write(&path, &file).unwrap();
    let buffered = File::open(&path).unwrap();
    let direct = File::options()
        .read(true)
        .custom_flags(libc::O_DIRECT)
        .open(&path);
    refusing(libc::SYS_openat, libc::EACCES, || {
        let mut given = vec![(buffered, false)];
        given.extend(direct.map(|file| (file, true)));
        for (given, is_direct) in given {
            let model = ModelFile::open(given.as_fd()).unwrap();
            drop(given);
            assert_eq!(model.is_direct(), is_direct);
            assert_eq!(model.align() == 1, !is_direct);
            assert_eq!(model.path(), path);
            let reads = random_reads(8, model.align(), 19);
            let (queue, arena, reports) =
                queue(vec![model], QueueKind::Auto, 4, "short=1", 8 * SLOT);
            queue.submit(&only_reads(&reads));
            reports.take_ok(8);
            assert_arrived(&arena, &reads, &file, queue.about());
        }
    });
}

#[test]
fn reads_bypass_the_page_cache_where_they_can() {
    for place in places() {
        let dir = tempfile::tempdir_in(place).unwrap();
        let path = dir.path().join("m");
        let model = model(&path, &content(15));
        let mut options = File::options();
        let direct = options.read(true).custom_flags(libc::O_DIRECT).open(&path);
        assert_eq!(model.is_direct(), direct.is_ok());
    }
}

#[test]
fn a_thread_may_end_before_its_reads() {
    let file = content(16);
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = dir.path().join("m");
    fs::write(&path, &file).unwrap();
    let given = File::open(&path).unwrap();
    given.sync_all().unwrap();
    // Without direct reads the kernel finishes them in the name of the thread.
    refusing(libc::SYS_openat, libc::EACCES, || {
        let model = ModelFile::open(given.as_fd()).unwrap();
        assert!(!model.is_direct());
        let (queue, arena, reports) = queue(vec![model], QueueKind::Auto, 40, "", 40 * SLOT);
        for round in 0..10 {
            let reads = random_reads(40, 1, 21 + round);
            // SAFETY: the call takes numbers only; it empties the cache of the file.
            unsafe { libc::posix_fadvise(given.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
            thread::scope(|scope| scope.spawn(|| queue.submit(&only_reads(&reads))).join())
                .unwrap();
            reports.take_ok(40);
            assert_arrived(&arena, &reads, &file, queue.about());
        }
    });
}

#[test]
fn alignment_is_tried_where_the_kernel_does_not_state_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m");
    let stated = model(&path, &content(14));
    refusing(libc::SYS_statx, libc::ENOSYS, || {
        let given = File::open(&path).unwrap();
        let tried = ModelFile::open(given.as_fd()).unwrap();
        assert_eq!(tried.is_direct(), stated.is_direct());
        if stated.is_direct() {
            assert_eq!(tried.align(), stated.align().max(512));
        }
    });
}
