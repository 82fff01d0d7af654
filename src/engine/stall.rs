//! A word about reads that do not end: a disk that hangs, or a server that is gone, looks like a computation
//! that hangs.

use super::arrivals::LOOK_EVERY;
use crate::store::UnderWay;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

/// A read that takes longer is worth a line.
const LONG: Duration = Duration::from_secs(10);
/// And another one each time that this has passed.
const EVERY: Duration = Duration::from_secs(60);

/// What threads that wait have said of the read that the system has had for longest. It is one for all of them.
#[derive(Default)]
pub(super) struct Stall {
    pub told: Mutex<Option<Told>>,
    /// Whether there is one: most of who waits have nothing to ask for.
    pub is_told: AtomicBool,
}

/// A read of which it was said that it takes long.
pub(super) struct Told {
    read: UnderWay,
    /// When it was last seen under way.
    seen_at: Instant,
    again_at: Instant,
}

/// What is to be said of a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum News {
    Takes,
    HasEnded,
}

/// A thread looks at `longest`, the read that the system has had for longest; returns what is to be said, of which
/// read, and how long that has taken.
pub(super) fn look(
    told: &mut Option<Told>,
    now: Instant,
    longest: Option<UnderWay>,
) -> Vec<(News, UnderWay, Duration)> {
    let mut news = Vec::new();
    let lasts = |read: &UnderWay| now.saturating_duration_since(read.since);
    if let Some(known) = told {
        let same = |r: &UnderWay| (r.since, r.offset) == (known.read.since, known.read.offset);
        if longest.as_ref().is_some_and(same) {
            known.seen_at = now;
            if now >= known.again_at {
                known.again_at = now + EVERY;
                news.push((News::Takes, known.read.clone(), lasts(&known.read)));
            }
            return news;
        }
        // It may have ended long ago if nobody has waited since.
        let is_recent = now.saturating_duration_since(known.seen_at) <= 2 * LOOK_EVERY;
        let took = match is_recent {
            true => lasts(&known.read),
            false => known.seen_at.saturating_duration_since(known.read.since),
        };
        news.push((News::HasEnded, known.read.clone(), took));
        *told = None;
    }
    if let Some(read) = longest.filter(|read| lasts(read) >= LONG) {
        news.push((News::Takes, read.clone(), lasts(&read)));
        *told = Some(Told {
            read,
            seen_at: now,
            again_at: now + EVERY,
        });
    }
    news
}

#[cfg(test)]
mod tests {
    use super::*;
    use News::{HasEnded, Takes};

    /// What is said of which read, by its offset, in seconds.
    type Said = Vec<(News, u64, u64)>;

    /// Reads, each under way from one second to another, in the order of their beginning.
    struct Disk(&'static [(u64, u64)]);

    impl Disk {
        /// What is said if threads wait in these seconds.
        fn said(&self, waiting: impl Iterator<Item = u64>) -> Said {
            let begin = Instant::now();
            let at = |s| begin + Duration::from_secs(s);
            let mut told = None;
            let mut all = Said::new();
            for second in waiting {
                let mut under_way = (0..)
                    .zip(self.0)
                    .filter(|(_, (from, to))| (*from..*to).contains(&second));
                let longest = under_way.next().map(|(offset, (from, _))| UnderWay {
                    file: 0,
                    offset,
                    n_bytes: 1,
                    since: at(*from),
                });
                for (news, read, took) in look(&mut told, at(second), longest) {
                    all.push((news, read.offset, took.as_secs()));
                }
            }
            all
        }
    }

    #[test]
    fn a_read_that_hangs_is_told_of_once_a_minute_until_it_ends() {
        let disk = Disk(&[(0, 74)]);
        let said = [(Takes, 0, 10), (Takes, 0, 70), (HasEnded, 0, 74)];
        assert_eq!(disk.said(0..100), said);
        // Whether one thread waits all the time, or others for a moment now and then.
        let now_and_then = (0..100).filter(|second| second % 2 == 0);
        assert_eq!(disk.said(now_and_then), said);
    }

    #[test]
    fn what_hangs_after_it_is_another_read() {
        let disk = Disk(&[(0, 12), (1, 30), (29, 32)]);
        let said = [
            (Takes, 0, 10),
            (HasEnded, 0, 12),
            (Takes, 1, 11),
            (HasEnded, 1, 29),
        ];
        assert_eq!(disk.said(0..40), said);
    }

    /// Nobody saw it end: what is known is how long it took at least.
    #[test]
    fn the_time_of_a_read_is_not_that_until_somebody_waits_again() {
        let disk = Disk(&[(0, 15)]);
        let said = [(Takes, 0, 10), (HasEnded, 0, 14)];
        assert_eq!(disk.said((0..15).chain(300..310)), said);
    }
}
