//! When what is learnt is saved: soon after the start, now and then, and once when nothing more comes for a while.

use std::time::Duration;

/// When it is saved for the first time, and how often then.
const FIRST: Duration = Duration::from_secs(15);
const INTERVAL: Duration = Duration::from_secs(120);
/// Who has done nothing for so long is idle: it may be long until there is more, and a process may be killed meanwhile.
const IDLE: Duration = Duration::from_secs(10);
/// How often somebody looks.
const LOOK: Duration = Duration::from_secs(5);

/// Times are since its beginning. What was done is a number that grows.
#[derive(Debug)]
pub struct Pace {
    next: Duration,
    n_saved: u64,
    n_seen: u64,
    /// When that was another one.
    changed_at: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            next: FIRST,
            n_saved: 0,
            n_seen: 0,
            changed_at: Duration::ZERO,
        }
    }
}

impl Pace {
    /// How long after `now` it is to be looked at again.
    pub fn pause(&self, now: Duration) -> Duration {
        self.next.saturating_sub(now).min(LOOK)
    }

    /// Whether it is to be saved `now` that `n_done` was done. Whoever asks then does so, and nothing is lost of what is done
    /// meanwhile.
    pub fn is_due(&mut self, now: Duration, n_done: u64) -> bool {
        if n_done != self.n_seen {
            self.n_seen = n_done;
            self.changed_at = now;
        }
        let is_idle = n_done != self.n_saved && now >= self.changed_at + IDLE;
        let is_due = now >= self.next || is_idle;
        if is_due {
            self.n_saved = n_done;
            self.next = now + INTERVAL;
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// When it saves within `end`, if `n_done` says by second what was done.
    fn saves(end: u64, n_done: impl Fn(u64) -> u64) -> Vec<u64> {
        let mut pace = Pace::default();
        let mut now = Duration::ZERO;
        let mut saves = Vec::new();
        while now < s(end) {
            if pace.is_due(now, n_done(now.as_secs())) {
                saves.push(now.as_secs());
            }
            let pause = pace.pause(now);
            assert!(pause > Duration::ZERO && pause <= LOOK);
            now += pause;
        }
        saves
    }

    #[test]
    fn who_is_busy_saves_now_and_then() {
        assert_eq!(saves(400, |now| now), [15, 135, 255, 375]);
    }

    /// Once, and not again until there is more.
    #[test]
    fn who_becomes_idle_saves_once() {
        assert_eq!(saves(120, |now| now.min(2)), [15]);
        let saves = saves(300, |now| now.clamp(1, 41));
        assert_eq!(saves[0], 15);
        assert!((51..=56).contains(&saves[1]), "{saves:?}");
        // What comes then is as often as ever, for what is learnt without being done.
        assert_eq!(saves[2..], [saves[1] + 120, saves[1] + 240]);
    }

    #[test]
    fn short_pauses_are_none() {
        let saves = saves(130, |now| now / 9);
        assert_eq!(saves, [15]);
    }
}
