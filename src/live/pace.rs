//! When something that takes long is worth doing again.

use std::time::{Duration, Instant};

/// The least time from the end of one to the begin of the next.
const REST_MIN: Duration = Duration::from_secs(30);
/// What it took, so many times: of one core it then takes half a percent.
const REST_FACTOR: u32 = 200;

/// Says when it is time.
#[derive(Debug, Clone, Copy, Default)]
pub struct Pace {
    /// When the last one has ended, and what it took.
    last: Option<(Instant, Duration)>,
    is_running: bool,
}

impl Pace {
    /// Whether it is to be done now; then it has begun, and [`Self::end`] is to follow.
    pub fn begin(&mut self, now: Instant) -> bool {
        let is_due = self.last.is_none_or(|(at, took)| {
            let rest = REST_MIN.max(took * REST_FACTOR);
            now.saturating_duration_since(at) >= rest
        });
        let begins = is_due && !self.is_running;
        self.is_running |= begins;
        begins
    }

    /// Whether it has begun and not ended.
    pub fn is_running(&self) -> bool {
        self.is_running
    }

    /// It has ended, and took so long.
    pub fn end(&mut self, now: Instant, took: Duration) {
        *self = Self {
            last: Some((now, took)),
            is_running: false,
        };
    }

    /// How old the last one is.
    pub fn age(&self, now: Instant) -> Option<Duration> {
        self.last.map(|(at, _)| now.saturating_duration_since(at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_takes_longer_rests_longer() {
        let begin = Instant::now();
        let at = |s: u64| begin + Duration::from_secs(s);
        let mut pace = Pace::default();
        assert!(pace.begin(at(0)) && !pace.begin(at(0)), "one at a time");
        pace.end(at(1), Duration::from_millis(10));
        assert!(!pace.begin(at(30)));
        assert!(pace.begin(at(31)));
        pace.end(at(40), Duration::from_secs(1));
        assert!(!pace.begin(at(239)));
        assert!(pace.begin(at(240)));
        assert_eq!(pace.age(at(50)), Some(Duration::from_secs(10)));
    }
}
