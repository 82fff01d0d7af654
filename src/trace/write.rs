//! Writes traces while a model computes.
//!
//! Threads that compute copy ids into a buffer and no more; one thread for each recording formats,
//! compresses and writes them. Nothing is touched before there is something to write. Every few seconds
//! what there is becomes a gzip file of its own, after those before it, so that a process that is killed
//! and a disk that is full leave a whole trace of what was written.

use super::text::{Head, Text};
use super::{Header, Picks};
use crate::expert::Spot;
use crate::notice::{Notice, Notices};
use crate::output::Growing;
use crate::sync::{Busy, lock_soon};
use flate2::Compression;
use flate2::write::GzEncoder;
#[cfg(not(miri))]
use nix::sys::signal::{SigSet, Signal};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::{self, ThreadId};
use std::time::Duration;

/// How much of a run may be lost when its process is killed.
const FLUSH_INTERVAL: Duration = Duration::from_secs(2);
/// The writer is woken when so many values wait.
const ENOUGH_VALUES: usize = 1 << 16;
/// Recording waits for the writer when so many values wait.
const VALUES_MAX: usize = 1 << 18;
/// How long a thread that computes waits for the writer. A disk that does not answer, or a pipe that nobody reads, costs
/// the recording and not the run.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long the end of a recording waits for the disk.
const FINISH_MAX: Duration = Duration::from_secs(10);
/// Threads whose passes are told apart.
const LANES_MAX: usize = 64;
/// Tokens of a recording, at most: readers know no higher numbers.
const N_TOKENS_MAX: u32 = u32::MAX - 1;

/// The pass over the layers that a thread is in.
struct Lane {
    thread: ThreadId,
    /// The layer it recorded last.
    layer: u32,
    first_token: u32,
    n_tokens: u32,
}

/// What has been recorded and not yet been written.
struct Buffer {
    /// Events, see [`Text::add`].
    values: Vec<u32>,
    lanes: Vec<Lane>,
    /// Tokens numbered so far.
    n_tokens: u32,
    /// Nothing more is taken: the recording was ended, or cannot be written.
    is_closed: bool,
    /// What is recorded is to be written now.
    is_urgent: bool,
    /// It was ended because there are no numbers for more tokens.
    is_full: bool,
    /// The writer has gone, or is waited for no more.
    is_done: bool,
    /// Whether the writer has written all that it took.
    is_written: bool,
}

impl Buffer {
    /// The number of the first token of an event of the calling thread.
    fn first_token(&mut self, layer: u32, n_tokens: u32) -> u32 {
        let thread = std::thread::current().id();
        let at = self.lanes.iter().position(|lane| lane.thread == thread);
        // Layers ascend within a pass. The last one may leave out tokens of which nobody asked for the
        // output, which is asked for at the end.
        let goes_on = |lane: &Lane| layer > lane.layer && n_tokens <= lane.n_tokens;
        if let Some(lane) = at.map(|at| &mut self.lanes[at])
            && goes_on(lane)
        {
            lane.layer = layer;
            return lane.first_token + (lane.n_tokens - n_tokens);
        }
        let first_token = self.n_tokens;
        self.n_tokens += n_tokens;
        if at.is_some() || self.lanes.len() == LANES_MAX {
            self.lanes.remove(at.unwrap_or(0));
        }
        self.lanes.push(Lane {
            thread,
            layer,
            first_token,
            n_tokens,
        });
        first_token
    }
}

struct Shared {
    buffer: Mutex<Buffer>,
    /// The writer has something to do, or has done something.
    changed: Condvar,
}

impl Shared {
    fn buffer(&self) -> MutexGuard<'_, Buffer> {
        self.buffer.lock().expect("no thread panics with it")
    }

    /// Takes nothing more. Returns whether that is because there are no numbers left.
    fn close(&self) -> bool {
        let mut buffer = self.buffer();
        buffer.values = Vec::new();
        buffer.is_closed = true;
        self.changed.notify_all();
        buffer.is_full
    }

    /// Waits for enough, or for some time, or for the end; swaps what there is for `values`, which is
    /// empty. Returns true at the end.
    fn take(&self, values: &mut Vec<u32>) -> bool {
        let has_time =
            |b: &mut Buffer| b.values.len() < ENOUGH_VALUES && !b.is_closed && !b.is_urgent;
        let waited = self
            .changed
            .wait_timeout_while(self.buffer(), FLUSH_INTERVAL, has_time);
        let (mut buffer, _) = waited.expect("no thread panics with it");
        std::mem::swap(&mut buffer.values, values);
        buffer.is_urgent = false;
        buffer.is_written = values.is_empty();
        self.changed.notify_all();
        buffer.is_closed
    }
}

/// A trace that is being written.
pub struct Recorder {
    shared: Arc<Shared>,
    path: PathBuf,
    patience: Duration,
    notices: Arc<Notices>,
}

impl Recorder {
    /// Will write to `path`, which is replaced when the first event is recorded.
    ///
    /// If it cannot be written, `notices` say so and the rest is not recorded.
    pub fn new(path: PathBuf, header: Header, notices: Arc<Notices>) -> Self {
        let shared = Arc::new(Shared {
            buffer: Mutex::new(Buffer {
                values: Vec::new(),
                lanes: Vec::new(),
                n_tokens: 0,
                is_closed: false,
                is_urgent: false,
                is_full: false,
                is_done: false,
                is_written: true,
            }),
            changed: Condvar::new(),
        });
        let writer = shared.clone();
        let at = path.clone();
        let told = notices.clone();
        let run = move || {
            // Whoever reads a pipe may go, and a file may be limited: errors of this file, and no end of the program.
            #[cfg(not(miri))] // which has no signals
            SigSet::from_iter([Signal::SIGPIPE, Signal::SIGXFSZ])
                .thread_block()
                .expect("these can be blocked");
            let written = write(&writer, &path, &header);
            let is_full = writer.close();
            let why = match written {
                Err(cause) => Some(cause.to_string()),
                Ok(()) if is_full => Some(format!("it has {N_TOKENS_MAX} tokens")),
                Ok(()) => None,
            };
            // Who has given it up has said so.
            if let Some(why) = why.filter(|_| !writer.buffer().is_done) {
                told.tell(unrecorded(&path, why));
            }
            writer.buffer().is_done = true;
            writer.changed.notify_all();
        };
        let thread = thread::Builder::new().name("hotset-trace".into());
        if let Err(cause) = thread.spawn(run) {
            let mut buffer = shared.buffer();
            buffer.is_closed = true;
            buffer.is_done = true;
            notices.tell(unrecorded(&at, format!("no thread: {cause}")));
        }
        Self {
            shared,
            path: at,
            patience: PATIENCE,
            notices,
        }
    }

    /// Records an event of `layer`, where its tokens are if that is known, and whether the cache of its device was left
    /// aside. The calling thread's
    /// events of ascending layers are of the same tokens. Waits for some seconds if the writer is far behind, and gives
    /// the recording up, with a line, if that does not help.
    pub fn record(&self, layer: u32, picks: Picks, spots: &[Spot], is_aside: bool) {
        let _busy = Busy::begin();
        let is_full = |b: &mut Buffer| b.values.len() >= VALUES_MAX && !b.is_closed;
        let waited =
            self.shared
                .changed
                .wait_timeout_while(self.shared.buffer(), self.patience, is_full);
        let (mut buffer, _) = waited.expect("no thread panics with it");
        if buffer.is_closed {
            return;
        }
        if is_full(&mut buffer) {
            buffer.values = Vec::new();
            buffer.is_closed = true;
            buffer.is_done = true;
            self.shared.changed.notify_all();
            drop(buffer);
            let why = "writing takes too long";
            self.notices.tell(unrecorded(&self.path, why));
            return;
        }
        let n_tokens = picks.n_tokens();
        if n_tokens > N_TOKENS_MAX - buffer.n_tokens {
            buffer.is_full = true;
            buffer.is_closed = true;
            self.shared.changed.notify_all();
            return;
        }
        let first_token = buffer.first_token(layer, n_tokens);
        // One token mostly is of the first sequence.
        let has_sequences = spots.len() > 1 || spots.iter().any(|spot| spot.seq != 0);
        let head = Head {
            layer,
            first_token,
            n_tokens,
            top_k: picks.top_k() as u32,
            is_aside,
            has_sequences,
        };
        buffer.values.extend(head.values());
        for row in picks.rows() {
            buffer.values.extend(row.iter().map(|&id| id as u32));
        }
        if has_sequences {
            buffer.values.extend(spots.iter().map(|spot| spot.seq));
        }
        if buffer.values.len() >= ENOUGH_VALUES {
            self.shared.changed.notify_all();
        }
    }

    /// Waits until what is recorded is written; what comes later is of other passes over the layers.
    pub fn pause(&self) {
        let Some(mut buffer) = lock_soon(&self.shared.buffer) else {
            return;
        };
        buffer.lanes.clear();
        buffer.is_urgent = true;
        self.shared.changed.notify_all();
        let is_under_way = |b: &mut Buffer| !b.is_done && (b.is_urgent || !b.is_written);
        let waited = self
            .shared
            .changed
            .wait_timeout_while(buffer, FINISH_MAX, is_under_way);
        drop(waited);
    }

    /// Ends the recording and waits until it is written. What comes later is left out.
    ///
    /// May be called where the end of the process has interrupted a thread that records.
    pub fn finish(&self) {
        let Some(mut buffer) = lock_soon(&self.shared.buffer) else {
            return;
        };
        buffer.is_closed = true;
        self.shared.changed.notify_all();
        let waited = self
            .shared
            .changed
            .wait_timeout_while(buffer, FINISH_MAX, |b| !b.is_done);
        drop(waited);
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.finish();
    }
}

fn unrecorded(path: &Path, why: impl ToString) -> Notice {
    Notice::Unrecorded {
        path: path.to_path_buf(),
        why: why.to_string(),
    }
}

/// The writer: until the end, or until the file cannot be written.
fn write(shared: &Shared, path: &Path, header: &Header) -> io::Result<()> {
    let mut values = Vec::new();
    let mut text = Text::default();
    let mut file: Option<Growing> = None;
    loop {
        let is_closed = shared.take(&mut values);
        if !values.is_empty() {
            if file.is_none() {
                text.out = serde_json::to_vec(header)?;
                text.out.push(b'\n');
            }
            text.add(&values);
            values.clear();
            let part = compressed(&text.out)?;
            text.out.clear();
            match &mut file {
                Some(file) => file.add(&part)?,
                none => *none = Some(Growing::begin(path, &part)?),
            }
            shared.buffer().is_written = true;
            shared.changed.notify_all();
        }
        if is_closed {
            return Ok(());
        }
    }
}

fn compressed(text: &[u8]) -> io::Result<Vec<u8>> {
    let mut out = GzEncoder::new(Vec::new(), Compression::fast());
    out.write_all(text)?;
    out.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::read::MultiGzDecoder;
    use std::fs::File;
    use std::io::Read;
    use std::time::Instant;

    fn header(n_layers: u32) -> Header {
        Header {
            n_layers,
            n_experts: 8,
            top_k: 2,
            batched: true,
            ..Header::default()
        }
    }

    /// What `record` leaves in a file, without the header.
    fn lines(n_layers: u32, record: impl Fn(&Recorder)) -> String {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.trace.gz");
        let recorder = Recorder::new(path.clone(), header(n_layers), Arc::default());
        record(&recorder);
        recorder.finish();
        recorder.record(0, Picks::new(&[7, 7], 2, 2), &[], false);
        let mut text = String::new();
        let mut file = MultiGzDecoder::new(File::open(path).unwrap());
        file.read_to_string(&mut text).unwrap();
        let (first, lines) = text.split_once('\n').unwrap();
        assert_eq!(
            serde_json::from_str::<Header>(first).unwrap(),
            header(n_layers)
        );
        lines.to_string()
    }

    /// A pipe that somebody has opened and does not read.
    #[test]
    fn a_writer_that_hangs_is_given_up() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.trace.gz");
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        let _reader = File::options().read(true).write(true).open(&path).unwrap();
        let mut recorder = Recorder::new(path, header(1), Arc::default());
        recorder.patience = Duration::from_millis(50);
        let begin = Instant::now();
        // What no pipe holds, also compressed.
        let mut noise = 1u32;
        for _ in 0..VALUES_MAX {
            noise = noise.wrapping_mul(1664525).wrapping_add(1013904223);
            let ids = [(noise >> 16) as i32 & 7, (noise >> 24) as i32 & 7];
            recorder.record(0, Picks::new(&ids, 2, 2), &[], false);
        }
        assert!(recorder.shared.buffer().is_closed, "the pipe took it all");
        drop(recorder);
        assert!(begin.elapsed() < FINISH_MAX, "{:?}", begin.elapsed());
    }

    #[test]
    fn events_are_told_apart() {
        let text = lines(2, |recorder| {
            // Rows of 2 ids, 3 ids apart.
            recorder.record(0, Picks::new(&[5, 1, 9, 0, 7], 2, 3), &[], false);
            recorder.record(1, Picks::new(&[3, 2], 2, 2), &[], false);
            recorder.record(1, Picks::new(&[4, 6], 2, 2), &[], false);
            recorder.record(1, Picks::new(&[6, 4], 2, 2), &[], true);
            recorder.record(0, Picks::new(&[0, 1], 2, 2), &[], false);
        });
        // The second layer left the first token out.
        let expected = "0 0 5,1\n1 0 0,7\n1 1 3,2\n\n2 1 4,6\n\n3 1 6,4 aside\n4 0 0,1\n";
        assert_eq!(text, expected);
    }

    /// But that of one token that is of the first.
    #[test]
    fn sequences_are_told() {
        let spot = |seq| Spot { seq, pos: 9 };
        let text = lines(1, |recorder| {
            let two = [spot(3), spot(0)];
            recorder.record(0, Picks::new(&[5, 1, 0, 7], 2, 2), &two, false);
            recorder.record(0, Picks::new(&[2, 3], 2, 2), &two[..1], true);
            recorder.record(0, Picks::new(&[2, 3], 2, 2), &two[1..], false);
        });
        let expected = "0 0 5,1 @3\n1 0 0,7 @0\n\n2 0 2,3 @3 aside\n\n3 0 2,3\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn lanes_have_tokens_of_their_own() {
        let pick = |recorder: &Recorder, layer| {
            recorder.record(layer, Picks::new(&[1, 0], 2, 2), &[], false)
        };
        let text = lines(3, |recorder| {
            pick(recorder, 0);
            std::thread::scope(|scope| {
                let other = || [0, 1, 2].map(|layer| pick(recorder, layer));
                scope.spawn(other).join().unwrap();
            });
            pick(recorder, 1);
        });
        assert_eq!(text, "0 0 1,0\n\n1 0 1,0\n1 1 1,0\n1 2 1,0\n0 1 1,0\n");
    }

    /// More than the buffer holds, so that recording waits for the writer.
    #[test]
    fn nothing_is_lost_however_fast() {
        let n_events = 20 * VALUES_MAX / 6;
        let text = lines(1, |recorder| {
            for i in 0..n_events as i32 {
                recorder.record(0, Picks::new(&[i % 8, (i + 1) % 8], 2, 2), &[], false);
            }
        });
        let mut lines = text.lines().filter(|l| !l.is_empty());
        for i in 0..n_events {
            let expected = format!("{i} 0 {},{}", i % 8, (i + 1) % 8);
            assert_eq!(lines.next(), Some(expected.as_str()));
        }
        assert_eq!(lines.next(), None);
    }

    /// The last number is that of the last token: no reader takes a higher one.
    #[test]
    fn a_recording_ends_before_its_numbers_do() {
        let text = lines(1, |recorder| {
            recorder.record(0, Picks::new(&[1, 0], 2, 2), &[], false);
            recorder.shared.buffer().n_tokens = u32::MAX - 2;
            recorder.record(0, Picks::new(&[2, 3, 4, 5], 2, 2), &[], false);
            recorder.record(0, Picks::new(&[1, 2], 2, 2), &[], false);
        });
        assert_eq!(text, "0 0 1,0\n");
        let text = lines(1, |recorder| {
            recorder.shared.buffer().n_tokens = u32::MAX - 2;
            (0..3).for_each(|id| recorder.record(0, Picks::new(&[id, 7], 2, 2), &[], false));
        });
        assert_eq!(text, "4294967293 0 0,7\n");
    }

    #[test]
    fn without_events_no_file_is_touched() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.trace.gz");
        std::fs::write(&path, "old").unwrap();
        drop(Recorder::new(path.clone(), header(1), Arc::default()));
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
    }

    /// A file that cannot be written stops the recording, not who is recorded.
    #[test]
    fn a_file_that_cannot_be_written() {
        let dir = tempfile::tempdir().unwrap();
        let recorder = Recorder::new(dir.path().to_path_buf(), header(1), Arc::default());
        for _ in 0..VALUES_MAX {
            recorder.record(0, Picks::new(&[1, 0], 2, 2), &[], false);
        }
        recorder.finish();
        recorder.record(0, Picks::new(&[1, 0], 2, 2), &[], false);
        assert!(recorder.shared.buffer().values.is_empty(), "it piles up");
    }
}
