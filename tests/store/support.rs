//! Files, queues into arenas, and who hears of their reads.

use std::collections::HashMap;
use std::fs::{self, File};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, OnceLock};
use std::time::Duration;

use hotset::store::{
    Arena, Faults, ModelFile, QueueDepth, QueueKind, QueueOptions, Read, ReadFailure, ReadQueue,
    Sink, Why, span,
};

/// Collects what a queue reports.
#[derive(Default)]
pub struct Reports {
    pub by_tag: Mutex<HashMap<u64, Result<(), ReadFailure>>>,
    pub notes: Mutex<Vec<String>>,
    changed: Condvar,
}

impl Sink for Reports {
    fn done(&self, tag: u64, result: Result<(), ReadFailure>) {
        let before = self.by_tag.lock().unwrap().insert(tag, result);
        assert!(before.is_none(), "read {tag} is reported twice");
        self.changed.notify_all();
    }

    fn note(&self, note: &str) {
        self.notes.lock().unwrap().push(note.to_string());
    }
}

impl Reports {
    /// Waits until `n` reads are reported, and takes the reports.
    pub fn take(&self, n: usize) -> HashMap<u64, Result<(), ReadFailure>> {
        let by_tag = self.by_tag.lock().unwrap();
        let (mut by_tag, time) = self
            .changed
            .wait_timeout_while(by_tag, Duration::from_secs(60), |r| r.len() < n)
            .unwrap();
        assert!(!time.timed_out(), "{} of {n} reads reported", by_tag.len());
        std::mem::take(&mut by_tag)
    }

    pub fn take_ok(&self, n: usize) {
        for (tag, result) in self.take(n) {
            result.unwrap_or_else(|e| panic!("read {tag}: {e:?}"));
        }
    }
}

/// xorshift64
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % n as u64) as usize
    }
}

/// A length that is a multiple of nothing.
pub const FILE_LEN: usize = 3_000_001;

pub fn content(seed: u64) -> Vec<u8> {
    let mut random = Random(seed);
    (0..FILE_LEN).map(|_| random.below(256) as u8).collect()
}

/// Writes a file and opens it as a model; what wrote it is closed.
pub fn model(path: &Path, bytes: &[u8]) -> ModelFile {
    fs::write(path, bytes).unwrap();
    ModelFile::open(File::open(path).unwrap().as_fd()).unwrap()
}

/// A disk, and a memory file system where there is one.
pub fn places() -> Vec<PathBuf> {
    let mut places = vec![PathBuf::from(env!("CARGO_TARGET_TMPDIR"))];
    if Path::new("/dev/shm").is_dir() {
        places.push("/dev/shm".into());
    }
    places
}

/// The ways of reading this system has: those that `Auto` would use or fall back to.
pub fn kinds() -> &'static [QueueKind] {
    static KINDS: OnceLock<Vec<QueueKind>> = OnceLock::new();
    KINDS.get_or_init(|| {
        let (queue, ..) = queue(vec![], QueueKind::Auto, 1, "", 1);
        match queue.kind() {
            QueueKind::Uring => vec![QueueKind::Uring, QueueKind::Pread],
            kind => vec![kind],
        }
    })
}

/// So much at once.
pub const fn queue_depth(depth: u32, piece_bytes: usize) -> QueueDepth {
    QueueDepth {
        ends_together: false,
        ahead_depth: 1,
        depth,
        piece_bytes,
        why: Why::Usual,
    }
}

/// A queue of `depth`, suffering `faults`, into an arena of `len` bytes.
pub fn queue(
    files: Vec<ModelFile>,
    kind: QueueKind,
    depth: u32,
    faults: &str,
    len: usize,
) -> (ReadQueue, Arc<Arena>, Arc<Reports>) {
    let queue_depth = QueueDepth {
        depth,
        ..QueueDepth::default()
    };
    let arena = Arc::new(Arena::map(len).unwrap());
    let reports = Arc::new(Reports::default());
    let queue = queue_into(files, kind, queue_depth, faults, &arena, reports.clone());
    (queue, arena, reports)
}

/// A queue with this queue_depth that reports to `sink`.
pub fn queue_into(
    files: Vec<ModelFile>,
    kind: QueueKind,
    queue_depth: QueueDepth,
    faults: &str,
    arena: &Arc<Arena>,
    sink: Arc<dyn Sink>,
) -> ReadQueue {
    let options = QueueOptions {
        kind,
        queue_depth,
        faults: match faults {
            "" => Faults::default(),
            faults => Faults::parse(faults).unwrap(),
        },
    };
    ReadQueue::new(files, arena.clone(), sink, options).unwrap()
}

pub fn bytes(arena: &Arena, at: usize, len: usize) -> Vec<u8> {
    assert!(at + len <= arena.len());
    // SAFETY: the range is inside the arena, and no read into it is in flight.
    unsafe { std::slice::from_raw_parts((arena.addr() + at) as *const u8, len) }.to_vec()
}

pub const SLOT: usize = 256 << 10;

/// `n` reads of random slices into slots of their own, and which slice each of them covers.
pub fn random_reads(n: usize, align: usize, seed: u64) -> Vec<(Read, usize, usize)> {
    let mut random = Random(seed);
    let read = |i: usize| {
        let len = 1 + random.below(SLOT - 2 * 4096);
        // Every fourth slice ends where the file ends.
        let last = FILE_LEN - len;
        let offset = if i.is_multiple_of(4) {
            last
        } else {
            random.below(last)
        };
        let span = span(offset as u64, len, align);
        let read = Read {
            file: 0,
            offset: span.offset,
            len: span.len,
            need: span.skip + len,
            dst: i * SLOT,
            tag: i as u64,
        };
        (read, offset, len)
    };
    (0..n).map(read).collect()
}

/// Slot `i` holds what `file` has at the slice of read `i`.
pub fn assert_arrived(arena: &Arena, reads: &[(Read, usize, usize)], file: &[u8], about: &str) {
    for (read, offset, len) in reads {
        let at = read.dst + read.need - len;
        let is_same = bytes(arena, at, *len) == file[*offset..offset + len];
        assert!(is_same, "{about}: {len} bytes at {offset}");
    }
}

pub fn only_reads(reads: &[(Read, usize, usize)]) -> Vec<Read> {
    reads.iter().map(|(read, ..)| *read).collect()
}
