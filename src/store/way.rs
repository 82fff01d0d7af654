//! Which way of reading is the fastest for a file, and how much it is given at once: found out by trying.
//!
//! io_uring costs the least where a file system can start a read and come back. Some cannot, as FUSE without
//! asynchronous direct reads: there the one who submits waits for each read, one after the other, and threads
//! that wait at the same time are faster. So what is tried first is whether more at once brings more.

use std::time::{Duration, Instant};

use super::pread::{THREADS_MAX, THREADS_USUAL};
use super::probe::{Probe, Trial};
use super::{ModelFile, QueueDepth, QueueKind, QueueOptions, Why};
use crate::error::Result;
use crate::statistics::median;

/// How a file is best read.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Way {
    /// `Uring` or `Pread`; what was asked for, if nothing could be tried.
    pub kind: QueueKind,
    /// How much at once.
    pub queue_depth: QueueDepth,
    /// The most that reads all over the file have brought, in bytes per second; `None` if none could be tried.
    pub bytes_per_second: Option<f64>,
    /// What was found out, if the file is slow to read.
    pub slow: Option<Slow>,
}

/// How slow a file is to read.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Slow {
    /// The most that was seen.
    pub bytes_per_second: f64,
    /// What one read takes, of so many bytes.
    pub latency: Duration,
    /// See above.
    pub n_bytes: usize,
}

/// How long one trial takes, unless its reads take longer.
const TRIAL: Duration = Duration::from_millis(9);
/// Nothing more is tried after this; a depth that is only a little better is not worth more.
const DEADLINE: Duration = Duration::from_millis(150);
/// Nothing is waited for after this. Slow disks take so long, and gain the most.
const DEADLINE_SLOW: Duration = Duration::from_millis(700);
/// Reads of the first look, at most this long each: one by one, and so many at once.
const LOOK_BYTES: usize = 512 << 10;
const LOOK_DEPTH: u32 = THREADS_USUAL;
/// Where reading at once is this much faster than one by one, it is not serial, and a way that is this much
/// faster than another is worth a change.
const GAIN: f64 = 1.5;
/// Where reading at once gains this share of what it could, most of a read is waiting, and even more at once
/// is faster.
const GAIN_OF_WAITING: f64 = 0.5;
const MOSTLY_WAITING: Duration = Duration::from_millis(1);
/// What twice as many at once must bring.
const GAIN_OF_DEPTH: f64 = 1.3;
/// Pieces and how many of them are under way, by the bytes under way; large pieces first, because each
/// costs time to submit.
const PACES: [(usize, u32); 10] = [
    (512 << 10, 1),
    (512 << 10, 2),
    (256 << 10, 4),
    (1 << 20, 2),
    (512 << 10, 4),
    (1 << 20, 4),
    (512 << 10, 8),
    (1 << 20, 8),
    (512 << 10, 16),
    (1 << 20, 16),
];
/// Of a disk that delivers less one by one, the depth of the queue is not found out in all detail: that would take too long.
const SLOW_BYTES_PER_SECOND: f64 = 100e6;
/// Reads of fewer bytes do not show how fast a disk delivers.
const SLOW_BYTES_MIN: usize = 256 << 10;
/// What a disk takes longer to deliver is not tried for a depth.
const LONGEST: Duration = Duration::from_millis(30);
/// A read that takes longer is a slow one.
const SLOW_LATENCY: Duration = Duration::from_millis(5);
/// Reads that are given at once to see whether they end at once, as the parts of an expert would be.
const BURST: u32 = 3;
/// How often that is looked at.
const N_BURSTS: usize = 5;
/// They end together if the first of them comes so late in the time of all.
const TOGETHER: f64 = 0.8;
/// One alone must not take more of that time: else reading one after the other costs more than it brings.
const LONE_MAX: f64 = 0.55;
/// What is not much slower than the fastest is as good.
const GOOD_ENOUGH: f64 = 0.9;

impl Way {
    /// Finds out by reading from `file`: for less than 200 ms, or where reads take longer than that allows,
    /// for less than a second. `n_bytes` is what is read most: a part of an expert. `is_worth_it`: so much will be
    /// read that the best depth matters; else the default will do, where reads do not mostly wait.
    ///
    /// What `options` ask for is kept, except `Auto`. Where a trial fails, because the system refuses memory or
    /// threads or cannot read one of its places, nothing more is tried than what does not need that: whoever needs
    /// memory, threads or bytes will say so.
    pub fn find(
        file: &ModelFile,
        options: QueueOptions,
        n_bytes: usize,
        is_worth_it: bool,
    ) -> Self {
        let mut disk = Disk {
            file,
            options,
            begin: Instant::now(),
            last: None,
        };
        let is_worth_it = is_worth_it && file.is_direct();
        find(&mut disk, options.kind, n_bytes, is_worth_it)
    }
}

/// One thing to try: reads of `n_bytes`, `n_at_once` of the `depth of the queue.depth` that there may be.
#[derive(Debug, Clone, Copy)]
struct Try {
    kind: QueueKind,
    queue_depth: QueueDepth,
    n_bytes: usize,
    n_at_once: u32,
    /// No more reads than this.
    n_reads: u64,
}

/// What can be tried: a file, or in tests what is said of one.
trait Tries {
    /// What is tried brings, and what `Auto` is here. Nothing arrives after [`DEADLINE_SLOW`].
    fn read(&mut self, what: Try) -> Result<(QueueKind, Trial)>;
    /// How long it takes until the first and the last are there of reads that are begun at once; `None` if that is
    /// after [`DEADLINE_SLOW`].
    fn burst(&mut self, what: Try) -> Result<Option<(Duration, Duration)>>;
    /// How long all that has taken.
    fn elapsed(&self) -> Duration;
}

struct Disk<'a> {
    file: &'a ModelFile,
    options: QueueOptions,
    begin: Instant,
    /// What was tried last, with its queue, which may do for the next.
    last: Option<(Try, Probe)>,
}

impl Tries for Disk<'_> {
    fn read(&mut self, what: Try) -> Result<(QueueKind, Trial)> {
        let mut probe = self.probe(what)?;
        let stop = self.begin + DEADLINE_SLOW;
        let trial = probe.read(what.n_at_once, what.n_reads, TRIAL, Some(stop))?;
        let kind = probe.kind();
        self.last = Some((what, probe));
        Ok((kind, trial))
    }

    fn burst(&mut self, what: Try) -> Result<Option<(Duration, Duration)>> {
        let mut probe = self.probe(what)?;
        let times = probe.burst(what.n_at_once, self.begin + DEADLINE_SLOW)?;
        self.last = Some((what, probe));
        Ok(times)
    }

    fn elapsed(&self) -> Duration {
        self.begin.elapsed()
    }
}

impl Disk<'_> {
    /// A queue for what is to be tried: that of the last one, if it does.
    fn probe(&mut self, what: Try) -> Result<Probe> {
        let last = self.last.take().filter(|(last, _)| {
            (last.kind, last.queue_depth, last.n_bytes) == (what.kind, what.queue_depth, what.n_bytes)
        });
        if let Some((_, probe)) = last {
            return Ok(probe);
        }
        let options = QueueOptions {
            kind: what.kind,
            queue_depth: what.queue_depth,
            faults: self.options.faults.of_trials(),
        };
        Probe::open(self.file, options, what.n_bytes, what.queue_depth.depth)
    }
}

fn find(disk: &mut dyn Tries, asked: QueueKind, n_bytes: usize, is_worth_it: bool) -> Way {
    let n_bytes = n_bytes.min(LOOK_BYTES);
    let mut way = Way {
        kind: asked,
        queue_depth: QueueDepth::default(),
        bytes_per_second: None,
        slow: None,
    };
    let Ok((kind, trial)) = disk.read(look(asked, n_bytes, LOOK_DEPTH, 1)) else {
        return way;
    };
    way.kind = kind;
    let (latency, submitting) = trial.fastest;
    let lone = Lone {
        n_bytes,
        speed: match trial.n_bytes {
            // It is no more than that.
            0 => n_bytes as f64 / latency.as_secs_f64().max(1e-9),
            _ => trial.bytes_per_second(),
        },
        latency,
        is_blocking: submitting * 2 > latency,
    };
    let has_choice = asked == QueueKind::Auto && kind == QueueKind::Uring;
    let (mut best, n_at_once) = choose(disk, &mut way, &lone, has_choice);
    let waits = best >= GAIN_OF_WAITING * f64::from(n_at_once.max(4)) * lone.speed;
    if waits && latency > MOSTLY_WAITING {
        best = go_deeper(disk, &mut way, n_bytes, best);
    } else if is_worth_it && lone.speed >= SLOW_BYTES_PER_SECOND {
        best = best.max(set_pace(disk, &mut way, n_bytes));
    }
    way.bytes_per_second = Some(best);
    let is_slow = n_bytes >= SLOW_BYTES_MIN && best < SLOW_BYTES_PER_SECOND;
    way.slow = (is_slow || latency > SLOW_LATENCY).then_some(Slow {
        bytes_per_second: best,
        latency,
        n_bytes,
    });
    way
}

/// What reads one by one have shown.
struct Lone {
    n_bytes: usize,
    /// Bytes per second.
    speed: f64,
    latency: Duration,
    /// Whether giving them to the system was most of it.
    is_blocking: bool,
}

impl Lone {
    /// How many more the time allows: of a serial disk that means one after the other.
    fn n_in_time(&self, disk: &dyn Tries) -> u32 {
        let left = DEADLINE_SLOW.saturating_sub(disk.elapsed());
        (left.as_secs_f64() / self.latency.as_secs_f64().max(1e-9)) as u32
    }
}

/// Tries several at once, and threads if a ring with a choice gains nothing by that. Returns how many bytes per
/// second were the most, and of how many reads at once. The way stays if a trial fails.
fn choose(disk: &mut dyn Tries, way: &mut Way, lone: &Lone, has_choice: bool) -> (f64, u32) {
    let mut best = lone.speed;
    let mut n_at_once = 1;
    // Half of the time is for the threads, if need be.
    let n_in_time = lone.n_in_time(disk) / 2;
    if !(has_choice && lone.is_blocking) && n_in_time >= 2 {
        n_at_once = LOOK_DEPTH.min(n_in_time);
        let what = look(way.kind, lone.n_bytes, LOOK_DEPTH, n_at_once);
        let Ok((_, trial)) = disk.read(what) else {
            return (best, 1);
        };
        best = best.max(trial.bytes_per_second());
    }
    if !has_choice || best >= GAIN * lone.speed {
        return (best, n_at_once);
    }
    n_at_once = LOOK_DEPTH.min(lone.n_in_time(disk));
    let threads = match n_at_once {
        0..2 => 0.0,
        _ => {
            let what = look(QueueKind::Pread, lone.n_bytes, LOOK_DEPTH, n_at_once);
            // The ring does, if there are no threads to be had.
            let Ok((_, trial)) = disk.read(what) else {
                return (best, 1);
            };
            trial.bytes_per_second()
        }
    };
    // If there was no time to see, waiting at the same time is the better guess.
    let is_guess = threads == 0.0 && lone.is_blocking;
    let wins = |best: f64| is_guess || threads > GAIN * best;
    // Once more with the ring: it may have been something else that was slow for a moment.
    if wins(best) && lone.n_in_time(disk) > LOOK_DEPTH {
        let what = look(way.kind, lone.n_bytes, LOOK_DEPTH, LOOK_DEPTH);
        let Ok((_, trial)) = disk.read(what) else {
            return (best, 1);
        };
        best = best.max(trial.bytes_per_second());
    }
    if wins(best) {
        way.kind = QueueKind::Pread;
        way.queue_depth.why = Why::RingIsSerial;
        best = if is_guess { best } else { threads };
    }
    (best, n_at_once)
}

/// Few reads, `n_at_once` of `depth`.
fn look(kind: QueueKind, n_bytes: usize, depth: u32, n_at_once: u32) -> Try {
    Try {
        kind,
        queue_depth: QueueDepth {
            depth,
            piece_bytes: LOOK_BYTES,
            ..QueueDepth::default()
        },
        n_bytes,
        n_at_once,
        n_reads: 8 * u64::from(n_at_once),
    }
}

/// Gives the disk more at once as long as that brings more; returns how many bytes per second that is.
fn go_deeper(disk: &mut dyn Tries, way: &mut Way, n_bytes: usize, best: f64) -> f64 {
    let mut best = best;
    for depth in [2 * LOOK_DEPTH, THREADS_MAX] {
        let seconds = (depth as usize * n_bytes) as f64 / best;
        if disk.elapsed().as_secs_f64() + seconds > DEADLINE_SLOW.as_secs_f64() {
            break;
        }
        let Ok((_, trial)) = disk.read(look(way.kind, n_bytes, depth, depth)) else {
            break;
        };
        let speed = trial.bytes_per_second();
        if speed < GAIN_OF_DEPTH * best {
            break;
        }
        best = speed;
        way.queue_depth.depth = depth;
    }
    best
}

/// Finds the fewest bytes under way that are about as fast as any; returns how many bytes per second that is. The depth of
/// the queue stays if a trial fails.
fn set_pace(disk: &mut dyn Tries, way: &mut Way, n_bytes: usize) -> f64 {
    let mut found: Vec<(f64, QueueDepth)> = Vec::new();
    let mut best = 0.0f64;
    for (piece_bytes, depth) in PACES {
        // Short reads take more of them for as many bytes under way.
        let read_bytes = piece_bytes.min(n_bytes);
        let n_reads = depth * (piece_bytes / read_bytes) as u32;
        let depth = match way.kind {
            QueueKind::Pread => n_reads.min(THREADS_USUAL),
            _ => n_reads,
        };
        let queue_depth = QueueDepth {
            depth,
            piece_bytes,
            ..way.queue_depth
        };
        let last = found.last().map(|(_, queue_depth)| *queue_depth);
        let is_late = disk.elapsed() + TRIAL > DEADLINE;
        let takes_long = (depth as usize * read_bytes) as f64 > best * LONGEST.as_secs_f64();
        if last == Some(queue_depth) || is_late || (best > 0.0 && takes_long) {
            continue;
        }
        let what = Try {
            kind: way.kind,
            queue_depth,
            n_bytes: read_bytes,
            n_at_once: depth,
            n_reads: u64::MAX,
        };
        let Ok((_, trial)) = disk.read(what) else {
            return best;
        };
        let speed = trial.bytes_per_second();
        best = best.max(speed);
        found.push((speed, queue_depth));
    }
    if let Some((_, queue_depth)) = found.iter().find(|(speed, _)| *speed >= best * GOOD_ENOUGH)
        && found.len() > 1
    {
        way.queue_depth = *queue_depth;
        if way.kind == QueueKind::Uring {
            // The thread that starts the next one shares a core with computing.
            way.queue_depth.depth += 1;
        }
    }
    let ends_together = ends_together(disk, way, n_bytes);
    way.queue_depth.ends_together = ends_together.unwrap_or(false);
    if ends_together == Some(false) {
        way.queue_depth.ahead_depth = way.queue_depth.depth.div_ceil(2);
    }
    best
}

/// Whether reads that are begun at once end at once, so that one that is needed first comes sooner alone. `None` if
/// that could not be seen.
fn ends_together(disk: &mut dyn Tries, way: &Way, n_bytes: usize) -> Option<bool> {
    let depth = way.queue_depth.depth.max(BURST);
    let what = |n_at_once| Try {
        queue_depth: QueueDepth {
            depth,
            ..way.queue_depth
        },
        n_at_once,
        ..look(way.kind, n_bytes, depth, n_at_once)
    };
    let (mut lone, mut first, mut last) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..N_BURSTS {
        let (time, _) = disk.burst(what(1)).ok()??;
        lone.push(time.as_secs_f64());
        let times = disk.burst(what(BURST)).ok()??;
        first.push(times.0.as_secs_f64());
        last.push(times.1.as_secs_f64());
    }
    let [lone, first, last] = [lone, first, last].map(median);
    let last = last?;
    Some(first? >= TOGETHER * last && lone? <= LONE_MAX * last)
}

#[cfg(test)]
#[path = "way_tests.rs"]
mod tests;
