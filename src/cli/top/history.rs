//! What happened when: differences of counters, kept for some minutes.

use super::answers::{Device, Stats};
use std::collections::VecDeque;
use std::time::Duration;

/// Nothing older is shown.
const KEPT: Duration = Duration::from_secs(600);

/// What was counted in some time.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Counted {
    /// The time.
    pub seconds: f64,
    /// Generated ones.
    pub tokens: f64,
    pub prompt_tokens: f64,
    /// Picks of generation that were where they should be: in memory, or on a device if nothing is streamed.
    pub hits: f64,
    pub misses: f64,
    /// Of all reads.
    pub bytes_read: f64,
    pub busy_ms: f64,
    pub stalled_ms: f64,
    /// Of generation alone.
    pub generating_ms: f64,
    /// Bytes that came to each device.
    pub device_bytes: Vec<f64>,
}

impl Counted {
    /// All that `stats` has counted.
    pub fn of(stats: &Stats) -> Self {
        let of_devices = |count: fn(&Device) -> u64| stats.devices.iter().map(count).sum::<u64>();
        let (hits, misses) = match stats.n_experts {
            0 => (
                of_devices(|d| d.generation.hits),
                of_devices(|d| d.generation.misses),
            ),
            _ => (stats.generation.hits, stats.generation.misses),
        };
        let (generation, prompt) = (&stats.generation_time, &stats.prompt_time);
        let bytes_in = |d: &Device| (d.bytes_uploaded + d.bytes_warmed) as f64;
        Self {
            seconds: stats.live.since_s,
            tokens: stats.generation.tokens as f64,
            prompt_tokens: stats.prompt.tokens as f64,
            hits: hits as f64,
            misses: misses as f64,
            bytes_read: (stats.bytes_read + stats.bytes_read_uncounted) as f64,
            busy_ms: generation.busy_ms + prompt.busy_ms,
            stalled_ms: generation.stalled_ms + prompt.stalled_ms,
            generating_ms: generation.busy_ms,
            device_bytes: stats.devices.iter().map(bytes_in).collect(),
        }
    }

    fn zip(&self, other: &Self, of: impl Fn(f64, f64) -> f64) -> Self {
        let n_devices = self.device_bytes.len().max(other.device_bytes.len());
        let of_device = |all: &[f64], at| all.get(at).copied().unwrap_or(0.0);
        let devices = (0..n_devices).map(|at| {
            of(
                of_device(&self.device_bytes, at),
                of_device(&other.device_bytes, at),
            )
        });
        Self {
            seconds: of(self.seconds, other.seconds),
            tokens: of(self.tokens, other.tokens),
            prompt_tokens: of(self.prompt_tokens, other.prompt_tokens),
            hits: of(self.hits, other.hits),
            misses: of(self.misses, other.misses),
            bytes_read: of(self.bytes_read, other.bytes_read),
            busy_ms: of(self.busy_ms, other.busy_ms),
            stalled_ms: of(self.stalled_ms, other.stalled_ms),
            generating_ms: of(self.generating_ms, other.generating_ms),
            device_bytes: devices.collect(),
        }
    }

    /// Whether none of it is below 0, as after a reset.
    fn is_growth(&self) -> bool {
        [
            self.tokens,
            self.prompt_tokens,
            self.hits,
            self.misses,
            self.bytes_read,
            self.busy_ms,
            self.stalled_ms,
        ]
        .iter()
        .all(|n| *n >= 0.0)
    }

    /// Hits as a part of 1; `None` if nothing was picked.
    pub fn hit_rate(&self) -> Option<f64> {
        let picks = self.hits + self.misses;
        (picks > 0.0).then(|| self.hits / picks)
    }

    /// The part of the computing time that waited for reads; `None` if nothing was computed.
    pub fn stalled_share(&self) -> Option<f64> {
        (self.busy_ms > 0.0).then(|| (self.stalled_ms / self.busy_ms).min(1.0))
    }

    /// `n` of it in each second; `None` of no time.
    pub fn per_second(&self, n: f64) -> Option<f64> {
        (self.seconds > 0.0).then(|| n / self.seconds)
    }
}

/// The time between two looks at the counters.
struct Span {
    from: Duration,
    to: Duration,
    counted: Counted,
}

/// The latest minutes of one model. Times are since the start of the program.
#[derive(Default)]
pub struct History {
    last: Option<(Duration, Counted)>,
    spans: VecDeque<Span>,
}

impl History {
    /// The counters stand like this at `now`. After a reset they are compared from then on.
    pub fn push(&mut self, now: Duration, total: Counted) {
        if let Some((from, last)) = self.last.take() {
            let counted = Counted {
                seconds: (now - from).as_secs_f64(),
                ..total.zip(&last, |now, before| now - before)
            };
            if counted.seconds > 0.0 && counted.is_growth() {
                let to = now;
                self.spans.push_back(Span { from, to, counted });
            }
        }
        self.last = Some((now, total));
        while self.spans.front().is_some_and(|s| s.to + KEPT < now) {
            self.spans.pop_front();
        }
    }

    /// What was counted from one time to another. A look that is partly within counts in part.
    pub fn over(&self, from: Duration, to: Duration) -> Counted {
        let mut all = Counted::default();
        for span in &self.spans {
            let within = to.min(span.to).saturating_sub(from.max(span.from));
            let share = within.as_secs_f64() / span.counted.seconds;
            if share > 0.0 {
                all = all.zip(&span.counted, |all, counted| all + share * counted);
            }
        }
        all
    }

    /// What was counted in the last `length` before `now`.
    pub fn latest(&self, now: Duration, length: Duration) -> Counted {
        self.over(now.saturating_sub(length), now)
    }

    /// The same in `n` parts, oldest first; those before the first look have no time.
    pub fn parts(&self, now: Duration, length: Duration, n: usize) -> Vec<Counted> {
        let part = length / n.max(1) as u32;
        // Time before the start of the program is none.
        let ago = |part_number: u32| now.saturating_sub(part * part_number);
        let parts = (0..n as u32).rev();
        parts.map(|at| self.over(ago(at + 1), ago(at))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn total(tokens: f64, hits: f64, misses: f64) -> Counted {
        Counted {
            tokens,
            hits,
            misses,
            busy_ms: 10.0 * tokens,
            stalled_ms: 2.0 * tokens,
            ..Counted::default()
        }
    }

    #[test]
    fn rates_are_of_differences() {
        let mut history = History::default();
        history.push(at(100), total(1000.0, 500.0, 500.0));
        assert_eq!(history.latest(at(100), at(60)).seconds, 0.0);
        history.push(at(102), total(1020.0, 530.0, 510.0));
        history.push(at(106), total(1020.0, 530.0, 510.0));
        let counted = history.latest(at(106), at(60));
        assert_eq!((counted.seconds, counted.tokens), (6.0, 20.0));
        assert_eq!(counted.hit_rate(), Some(0.75));
        assert_eq!(counted.stalled_share(), Some(0.2));
        // Half of the first look, and nothing but rest after it.
        let counted = history.over(at(101), at(103));
        assert_eq!(counted.per_second(counted.tokens), Some(5.0));
        assert_eq!(history.over(at(102), at(106)).hit_rate(), None);
    }

    #[test]
    fn parts_lie_where_their_time_is() {
        let mut history = History::default();
        history.push(at(0), total(0.0, 0.0, 0.0));
        history.push(at(2), total(8.0, 0.0, 0.0));
        // A pause.
        history.push(at(8), total(14.0, 0.0, 0.0));
        let tokens = |parts: Vec<Counted>| parts.iter().map(|c| c.tokens).collect::<Vec<_>>();
        assert_eq!(tokens(history.parts(at(8), at(8), 4)), [8.0, 2.0, 2.0, 2.0]);
        let early = history.parts(at(8), at(16), 4);
        assert_eq!(early[1].seconds, 0.0);
        assert_eq!(tokens(early), [0.0, 0.0, 10.0, 4.0]);
    }

    #[test]
    fn a_reset_is_no_difference() {
        let mut history = History::default();
        history.push(at(0), total(50.0, 9.0, 1.0));
        history.push(at(2), total(3.0, 1.0, 1.0));
        assert_eq!(history.latest(at(2), at(60)), Counted::default());
        history.push(at(4), total(5.0, 3.0, 1.0));
        assert_eq!(history.latest(at(4), at(60)).tokens, 2.0);
    }

    #[test]
    fn what_is_old_goes() {
        let mut history = History::default();
        (0..1000).for_each(|n| history.push(at(2 * n), total(n as f64, 0.0, 0.0)));
        assert_eq!(history.spans.len(), 301);
    }

    #[test]
    fn without_streaming_hits_are_those_of_devices() {
        let mut stats = super::super::sample::stats();
        assert_eq!(Counted::of(&stats).hits, 6082.0);
        stats.devices = vec![Device::default(), Device::default()];
        stats.devices[1].generation.hits = 7;
        stats.devices[1].bytes_warmed = 5;
        stats.n_experts = 0;
        let counted = Counted::of(&stats);
        assert_eq!((counted.hits, counted.misses), (7.0, 0.0));
        assert_eq!(counted.device_bytes, [0.0, 5.0]);
    }
}
