//! The way that is chosen for disks of many kinds, which are only said to be.

use super::*;
use crate::error::Error;

/// A disk as it is said to be. Its clock runs as far as it reads.
struct Said {
    latency: Duration,
    bytes_per_second: f64,
    /// Whether a ring works on one read after the other, and whether who submits one waits for it.
    is_serial: bool,
    is_blocking: bool,
    /// Most reads that it works on at once.
    n_at_once_max: u32,
    has_ring: bool,
    /// Whether it tells of a read only when it has done all that it was given.
    ends_together: bool,
    now: Duration,
    tried: Vec<Try>,
}

impl Default for Said {
    fn default() -> Self {
        Self {
            latency: Duration::from_micros(100),
            bytes_per_second: 2e9,
            is_serial: false,
            is_blocking: false,
            n_at_once_max: 32,
            has_ring: true,
            ends_together: false,
            now: Duration::ZERO,
            tried: Vec::new(),
        }
    }
}

impl Tries for Said {
    fn read(&mut self, what: Try) -> Result<(QueueKind, Trial)> {
        self.tried.push(what);
        let kind = match what.kind {
            QueueKind::Pread => QueueKind::Pread,
            _ if self.has_ring => QueueKind::Uring,
            _ => QueueKind::Pread,
        };
        let is_one_by_one = self.is_serial && kind == QueueKind::Uring;
        let n_at_once = match is_one_by_one {
            true => 1,
            false => what.n_at_once.min(self.n_at_once_max),
        };
        let round_bytes = n_at_once as usize * what.n_bytes;
        let transfer = Duration::from_secs_f64(round_bytes as f64 / self.bytes_per_second);
        let round = self.latency.max(transfer);
        let n_min = what.n_at_once.max(2).div_ceil(n_at_once);
        let n_max = what.n_reads.div_ceil(u64::from(n_at_once)) as u32;
        let in_time = (TRIAL.as_secs_f64() / round.as_secs_f64()).ceil() as u32;
        let n_rounds = in_time.clamp(n_min, n_max.max(n_min));
        let begin = self.now;
        // Whoever waits in a call of the system cannot stop waiting.
        let most = DEADLINE_SLOW.saturating_sub(begin);
        let all = round * n_rounds;
        let is_cut = all > most && !(is_one_by_one && self.is_blocking);
        let took = if is_cut { most } else { all };
        self.now += took;
        let share = took.as_secs_f64() / all.as_secs_f64();
        let n_bytes = (f64::from(n_rounds) * share) as u64 * round_bytes as u64;
        let submitting = match is_one_by_one && self.is_blocking {
            true => round,
            false => Duration::from_micros(5),
        };
        let trial = Trial {
            n_bytes,
            took,
            // What nothing arrived of was waited for, and no longer.
            fastest: match n_bytes {
                0 => (took, submitting.min(took)),
                _ => (round, submitting),
            },
        };
        Ok((kind, trial))
    }

    fn burst(&mut self, what: Try) -> Result<Option<(Duration, Duration)>> {
        let all = self.latency.as_secs_f64() + (what.n_at_once as usize * what.n_bytes) as f64 / self.bytes_per_second;
        let all = Duration::from_secs_f64(all);
        self.now += all;
        let first = match self.ends_together {
            true => all,
            false => all / what.n_at_once,
        };
        Ok(Some((first, all)))
    }

    fn elapsed(&self) -> Duration {
        self.now
    }
}

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

#[test]
fn an_ordinary_disk_is_read_by_a_ring_and_soon_looked_at() {
    for n_bytes in [13_056, 600_000, 5 << 20] {
        let mut disk = Said::default();
        let way = find(&mut disk, QueueKind::Auto, n_bytes, false);
        let usual = (QueueKind::Uring, QueueDepth::default(), None);
        assert_eq!((way.kind, way.queue_depth, way.slow), usual);
        assert!(disk.now < ms(60), "{:?}", disk.now);
        let mut disk = Said::default();
        let way = find(&mut disk, QueueKind::Auto, n_bytes, true);
        assert_eq!((way.kind, way.queue_depth.why), (QueueKind::Uring, Why::Usual));
        assert!(disk.tried.len() > 5, "its queue_depth was looked for");
        assert!(disk.now < ms(200), "{:?}", disk.now);
    }
}

#[test]
fn parts_are_read_one_after_the_other_where_they_would_end_together_and_that_is_no_slower() {
    let micros = Duration::from_micros;
    for (ends_together, latency, expected) in
        [(true, micros(90), true), (false, micros(90), false), (true, micros(900), false)]
    {
        let mut disk = Said {
            ends_together,
            latency,
            ..Said::default()
        };
        let way = find(&mut disk, QueueKind::Auto, 512 << 10, true);
        assert_eq!(way.queue_depth.ends_together, expected, "{ends_together} {latency:?}");
        assert!(disk.now < ms(220), "{:?}", disk.now);
    }
}

#[test]
fn a_ring_that_is_serial_gives_way_to_threads() {
    for is_blocking in [false, true] {
        for latency in [Duration::from_micros(300), ms(5), ms(30), ms(80)] {
            for (n_bytes, is_worth_it) in [(13_056, false), (600_000, false), (600_000, true)] {
                let mut disk = Said {
                    latency,
                    bytes_per_second: 20e9,
                    is_serial: true,
                    is_blocking,
                    ..Said::default()
                };
                let way = find(&mut disk, QueueKind::Auto, n_bytes, is_worth_it);
                let said = format!("{latency:?} {is_blocking} {n_bytes}: {way:?}");
                assert_eq!(way.kind, QueueKind::Pread, "{said}");
                assert_eq!(way.queue_depth.why, Why::RingIsSerial, "{said}");
                assert!(disk.now <= ms(1000), "{said}: {:?}", disk.now);
                assert_eq!(way.slow.is_some(), latency > ms(5), "{said}");
                // What was asked for is not changed.
                for kind in [QueueKind::Uring, QueueKind::Pread] {
                    let way = find(&mut disk, kind, n_bytes, is_worth_it);
                    assert_eq!((way.kind, way.queue_depth.why), (kind, Why::Usual));
                }
            }
        }
    }
}

#[test]
fn where_a_read_mostly_waits_more_are_given() {
    for has_ring in [true, false] {
        let mut disk = Said {
            latency: ms(20),
            has_ring,
            ..Said::default()
        };
        let way = find(&mut disk, QueueKind::Auto, 100_000, false);
        assert_eq!(way.queue_depth.depth, 32, "{way:?}");
        assert!(disk.now < ms(300), "{:?}", disk.now);
        let slow = way.slow.unwrap();
        assert_eq!(slow.latency, ms(20));
        assert!(slow.bytes_per_second > 32.0 * 4.5e6, "{slow:?}");
    }
    // A disk with one arm gains nothing, by whatever it is read.
    let mut disk = Said {
        latency: ms(8),
        n_at_once_max: 1,
        ..Said::default()
    };
    let way = find(&mut disk, QueueKind::Auto, 100_000, true);
    assert_eq!((way.kind, way.queue_depth), (QueueKind::Uring, QueueDepth::default()));
    assert!(way.slow.is_some());
}

#[test]
fn however_slow_a_disk_is_the_start_is_not() {
    for is_blocking in [false, true] {
        for latency in [ms(100), ms(300)] {
            for bytes_per_second in [1e6, 1e9] {
                let mut disk = Said {
                    latency,
                    bytes_per_second,
                    is_serial: is_blocking,
                    is_blocking,
                    ..Said::default()
                };
                let way = find(&mut disk, QueueKind::Auto, 300_000, true);
                assert!(disk.now <= ms(1000), "{latency:?}: {:?}, {way:?}", disk.now);
                assert!(way.slow.is_some());
                let is_pread = way.kind == QueueKind::Pread;
                assert!(
                    !is_blocking || is_pread || bytes_per_second < 1e9,
                    "{way:?}"
                );
            }
        }
    }
}

#[test]
fn a_disk_that_never_answers_is_not_waited_for() {
    let mut disk = Said {
        latency: ms(1_000_000),
        ..Said::default()
    };
    let way = find(&mut disk, QueueKind::Auto, 100_000, true);
    assert!(disk.now <= DEADLINE_SLOW);
    assert_eq!(way.kind, QueueKind::Uring);
    assert_eq!(way.slow.unwrap().latency, DEADLINE_SLOW);
}

/// A machine that is busy may be at the end of the time when it has opened the file: what is known then is how
/// long it took to give a read to the system.
#[test]
fn a_ring_that_blocks_gives_way_also_if_there_was_no_time_to_try_another_way() {
    let mut disk = Late(Said {
        latency: ms(30),
        is_serial: true,
        is_blocking: true,
        ..Said::default()
    });
    let way = find(&mut disk, QueueKind::Auto, 100_000, true);
    assert_eq!(way.kind, QueueKind::Pread, "{way:?}");
    let slow = way.slow.unwrap();
    assert_eq!(slow.latency, ms(30));
    assert!(slow.bytes_per_second > 1e6, "{slow:?}");
}

/// One bad place, or memory that is short for a moment, is no reason not to load a model.
#[test]
fn a_trial_that_fails_leaves_what_was_found() {
    let disks = [Duration::from_micros(100), ms(20)].map(|latency| {
        let said = |is_serial| Said {
            latency,
            is_serial,
            is_blocking: is_serial,
            ..Said::default()
        };
        [said(false), said(true)]
    });
    for said in disks.into_iter().flatten() {
        for (asked, n_good) in [QueueKind::Auto, QueueKind::Uring, QueueKind::Pread]
            .into_iter()
            .flat_map(|asked| (0..12).map(move |n_good| (asked, n_good)))
        {
            let mut disk = Bad {
                said: Said {
                    tried: Vec::new(),
                    ..said
                },
                n_good,
            };
            let way = find(&mut disk, asked, 600_000, true);
            if n_good == 0 {
                assert_eq!((way.kind, way.queue_depth), (asked, QueueDepth::default()));
            }
            let is_asked = asked == QueueKind::Auto || way.kind == asked;
            assert!(is_asked, "{asked:?} {n_good}: {way:?}");
        }
    }
}

/// A disk of which only so many trials succeed.
struct Bad {
    said: Said,
    n_good: usize,
}

impl Tries for Bad {
    fn read(&mut self, what: Try) -> Result<(QueueKind, Trial)> {
        if self.said.tried.len() == self.n_good {
            return Err(Error::Null("a trial"));
        }
        self.said.read(what)
    }

    fn burst(&mut self, what: Try) -> Result<Option<(Duration, Duration)>> {
        match self.said.tried.len() == self.n_good {
            true => Err(Error::Null("a trial")),
            false => self.said.burst(what),
        }
    }

    fn elapsed(&self) -> Duration {
        self.said.elapsed()
    }
}

/// Reads that only open a file would take the time of those that are to be tried.
#[test]
fn a_file_is_opened_again_without_a_read() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("models/polyglot-moe.gguf");
    let given = std::fs::File::open(path).unwrap();
    let file = ModelFile::open(std::os::fd::AsFd::as_fd(&given)).unwrap();
    let counts = [n_reads_of_this_thread(), n_reads_of_this_thread()];
    let again = file.again().unwrap();
    if let ([Some(first), Some(second)], Some(last)) = (counts, n_reads_of_this_thread()) {
        assert_eq!(
            last - second,
            second - first,
            "counting reads is all that reads"
        );
    }
    assert_eq!((again.align(), again.len()), (file.align(), file.len()));
    assert_eq!(again.is_direct(), file.is_direct());
    again.check_unchanged().unwrap();
}

/// Calls that read, made by this thread so far; `None` where the system does not count them.
fn n_reads_of_this_thread() -> Option<u64> {
    crate::proc::field("/proc/thread-self/io".as_ref(), "syscr:")
}

/// A disk of which the first read is still to be reported when the time is over.
struct Late(Said);

impl Tries for Late {
    fn read(&mut self, what: Try) -> Result<(QueueKind, Trial)> {
        let (kind, mut trial) = self.0.read(what)?;
        self.0.now = DEADLINE_SLOW;
        trial.n_bytes = 0;
        trial.took = trial.fastest.0;
        Ok((kind, trial))
    }

    fn burst(&mut self, _: Try) -> Result<Option<(Duration, Duration)>> {
        Ok(None)
    }

    fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}
