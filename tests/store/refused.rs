//! What happens where the system refuses a call: a seccomp filter does, for one thread.

use std::fs::{self, File};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::thread;

use hotset::store::{Faults, ModelFile, Pace, QueueKind, QueueOptions, ReadQueue};

use crate::support::*;

/// Runs `test` in a thread, and in those it starts, where `call` fails with `errno`.
fn refusing(call: libc::c_long, errno: i32, test: impl FnOnce() + Send) {
    filtering(call, libc::SECCOMP_RET_ERRNO | errno as u32, test);
}

/// Runs `test` in a thread, and in those it starts, where a filter's answer to `call` is this one.
fn filtering(call: libc::c_long, verdict: u32, test: impl FnOnce() + Send) {
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
    let mut install = move || {
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
    };
    thread::scope(|scope| {
        let test = scope.spawn(move || {
            install();
            test();
        });
        test.join().unwrap();
    });
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
        let pace = Pace::measure(&model, QueueKind::Auto, SLOT);
        assert!(pace.is_ok(), "{pace:?}");
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
            pace: Pace {
                depth: 2,
                ..Pace::default()
            },
            faults: Faults::default(),
        };
        let Err(error) = ReadQueue::new(vec![model()], arena, reports, options) else {
            panic!("io_uring is there all the same");
        };
        assert!(error.to_string().contains("not permitted"), "{error}");
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
