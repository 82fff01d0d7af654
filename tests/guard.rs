//! Whether a device cache pays, over links of many kinds.

use hotset::device::guard::{Guard, News};
use hotset::trial::{Turn, Turns};
use std::sync::Arc;
use std::time::Duration;

/// What batches take, and how many experts miss.
#[derive(Clone, Copy, Debug)]
struct Link {
    /// Milliseconds without the cache.
    without: f64,
    /// With it, if nothing misses.
    a: f64,
    /// For each miss.
    b: f64,
    /// Misses of the first batch, and of those after many.
    misses: (f64, f64),
}

struct Run {
    guard: Guard,
    now: f64,
    n_on: u32,
    n_batches: u32,
    warmth: f64,
    state: u64,
    news: Vec<News>,
    last_misses: Option<u64>,
}

impl Run {
    fn new() -> Self {
        Self::of(Guard::default())
    }

    fn of(guard: Guard) -> Self {
        Self {
            guard,
            now: 0.0,
            n_on: 0,
            n_batches: 0,
            warmth: 0.0,
            state: 1,
            news: Vec::new(),
            last_misses: None,
        }
    }

    fn noise(&mut self) -> f64 {
        self.state = self
            .state
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (self.state >> 33) as f64 / (1u64 << 31) as f64
    }

    /// Computes `n` batches of `n_tokens`; returns how many used the cache.
    fn pass(&mut self, link: Link, n: u32, n_tokens: u32) -> u32 {
        let n_on = self.n_on;
        for _ in 0..n {
            let now = Duration::from_secs_f64(self.now / 1e3);
            let (is_on, news) = self.guard.begin(now, n_tokens, self.last_misses);
            self.news.extend(news);
            let (cold, warm) = link.misses;
            let misses = (warm + (cold - warm) * (-self.warmth / 10.0).exp()).max(0.0);
            let misses = (misses * (0.7 + 0.6 * self.noise())).round();
            let ms = if is_on {
                self.warmth += 1.0;
                self.n_on += 1;
                self.last_misses = Some(misses as u64);
                link.a + link.b * misses
            } else {
                self.last_misses = None;
                link.without
            };
            self.now += ms * (0.98 + 0.04 * self.noise());
            self.n_batches += 1;
        }
        self.n_on - n_on
    }
}

const FAST: Link = Link {
    without: 100.0,
    a: 30.0,
    b: 0.2,
    misses: (384.0, 100.0),
};
/// The link costs nothing, but every layer waits for it.
const WAITS: Link = Link {
    without: 4.0,
    a: 9.0,
    b: 0.01,
    misses: (40.0, 20.0),
};
const SLOW: Link = Link {
    without: 100.0,
    a: 30.0,
    b: 8.0,
    misses: (384.0, 100.0),
};
/// Slower at first, while it is cold.
const WARMS: Link = Link {
    without: 100.0,
    a: 30.0,
    b: 0.5,
    misses: (384.0, 60.0),
};

#[test]
fn what_pays_stays_on() {
    for link in [FAST, WARMS] {
        let mut run = Run::new();
        let n_on = run.pass(link, 1000, 1);
        assert!(n_on >= 985, "{link:?}: {n_on}");
        assert!(run.news.is_empty(), "{:?}", run.news);
    }
}

#[test]
fn what_loses_is_off_soon_and_tried_rarely() {
    for link in [WAITS, SLOW] {
        let mut run = Run::new();
        run.pass(link, 300, 1);
        let news = run.news[0];
        assert!(!news.is_on && news.ms_with > news.ms_without, "{news:?}");
        assert!((news.ms_without - link.without).abs() < 0.05 * link.without);
        assert_eq!(run.news.len(), 1, "{:?}", run.news);
        // Ever more batches lie between the trials.
        let n_on = run.pass(link, 1000, 1);
        assert!(n_on < 40, "{link:?}: {n_on}");
    }
}

/// However slow the link is, a run ends at hardly more than its time without the cache.
#[test]
fn the_loss_is_bounded() {
    for without in [2.0, 20.0, 200.0] {
        for a in [0.2, 0.9, 1.0, 1.5, 3.0, 30.0] {
            for b in [0.0, 0.001, 0.01, 0.1] {
                let link = Link {
                    without,
                    a: a * without,
                    b: b * without,
                    misses: (64.0, 20.0),
                };
                let mut run = Run::new();
                run.pass(link, 2000, 1);
                let warm = link.a + link.b * 20.0;
                let best = 2000.0 * without.min(warm);
                // Three batches before anything is known, then what a trial may cost.
                let first = 5.0 * (link.a + link.b * 64.0) + 80.0 * without;
                let limit = best * 1.04 + first;
                assert!(run.now < limit, "{link:?}: {} of {limit}", run.now);
            }
        }
    }
}

#[test]
fn it_comes_back_when_the_link_is_better() {
    let mut run = Run::new();
    run.pass(SLOW, 100, 1);
    assert_eq!(run.news.len(), 1);
    let n_on = run.pass(FAST, 4000, 1);
    assert!(n_on > 1000, "{n_on}");
    assert!(run.news[1].is_on, "{:?}", run.news);
    assert!(run.news[1].ms_with < run.news[1].ms_without);
}

/// What pays and does not in turn, for reasons that nobody knows, is followed ever less.
#[test]
fn it_does_not_follow_what_comes_and_goes() {
    let worse = Link {
        a: 110.0,
        b: 0.01,
        ..FAST
    };
    let mut run = Run::new();
    for _ in 0..30 {
        run.pass(worse, 100, 1);
        run.pass(FAST, 100, 1);
    }
    let n_news = run.news.len();
    assert!((6..=20).contains(&n_news), "{n_news}: {:?}", run.news);
    // What has paid for long is followed again.
    run.pass(FAST, 20_000, 1);
    run.pass(worse, 100, 1);
    let n_on = run.pass(FAST, 1000, 1);
    assert!(n_on > 900, "{n_on}: {:?}", run.news);
}

/// The processor is busy with something else.
#[test]
fn it_tries_again_when_batches_without_it_take_longer() {
    let mut run = Run::new();
    run.pass(SLOW, 700, 1);
    let busy = Link {
        without: 2000.0,
        ..SLOW
    };
    // The next trial would not be due for a thousand batches.
    let n_on = run.pass(busy, 250, 1);
    assert!(n_on > 120, "{n_on} {:?}", run.news);
}

/// The few batches that it is compared with at first were slow ones.
#[test]
fn what_looked_good_is_compared_again_soon() {
    let worse = Link { a: 110.0, ..WAITS };
    let busy = Link {
        without: 120.0,
        ..worse
    };
    let idle = Link {
        without: 100.0,
        ..worse
    };
    let mut run = Run::new();
    assert!(run.pass(busy, 20, 1) > 10);
    let n_on = run.pass(idle, 1000, 1);
    assert!(n_on < 300, "{n_on} {:?}", run.news);
}

#[test]
fn it_goes_when_the_link_gets_worse() {
    let mut run = Run::new();
    run.pass(FAST, 200, 1);
    run.pass(SLOW, 100, 1);
    assert_eq!(run.news.len(), 1, "{:?}", run.news);
    assert!(!run.news[0].is_on);
    assert!(run.pass(SLOW, 100, 1) < 20);
}

#[test]
fn pauses_between_requests_are_not_slow_batches() {
    let mut run = Run::new();
    for n in 0..100 {
        run.pass(FAST, 7, 1);
        run.now += 60_000.0;
        if n % 2 == 0 {
            // A prompt.
            run.pass(FAST, 1, 100);
        }
    }
    assert!(run.news.is_empty(), "{:?}", run.news);
    // Compared three times: one batch that is not measured and four that are, and two more if a pause is among them.
    assert!(run.n_on >= 750 - 3 * 7, "{} of 750", run.n_on);
}

/// Reading ahead, for example: while it is tried, batches take what they take on its sides.
#[test]
fn what_another_trial_does_to_batches_says_nothing() {
    let turns = Arc::new(Turns::default());
    let mut other = Turn::of(&turns);
    let mut run = Run::of(Guard::new(Turn::of(&turns)));
    let beside = |run: &mut Run, other: &mut Turn, n| {
        let n_on = (0..n).map(|_| {
            other.next_batch(true);
            run.pass(SLOW, 1, 1)
        });
        n_on.sum::<u32>()
    };
    // It waits with its own.
    assert!(other.take());
    assert_eq!(beside(&mut run, &mut other, 100), 100);
    other.give_back();
    assert!(run.pass(FAST, 50, 1) >= 40);
    // What pays is not compared with what it was before.
    assert!(other.take());
    assert_eq!(beside(&mut run, &mut other, 60), 60);
    other.give_back();
    assert_eq!(run.pass(FAST, 10, 1), 10);
    assert!(run.news.is_empty(), "{:?}", run.news);
    // While it compares, the other one waits.
    let n_on = (0..100).take_while(|_| run.pass(SLOW, 1, 1) == 1).count();
    assert!(n_on < 100 && !other.take(), "{n_on}");
    run.pass(SLOW, 100, 1);
    assert!(other.take());
}

#[test]
fn batches_that_do_not_look_into_the_cache_say_nothing() {
    let mut guard = Guard::default();
    for n in 0..200u64 {
        let ms = if n < 100 { 10 * n } else { 40 * n };
        let now = Duration::from_millis(ms);
        assert_eq!(guard.begin(now, 2, None), (true, None));
    }
}

#[test]
fn sizes_are_compared_with_their_own() {
    let mut run = Run::new();
    run.pass(SLOW, 100, 1);
    assert_eq!(run.news.len(), 1);
    let n_on = run.pass(FAST, 100, 4);
    assert!(n_on > 90, "{n_on}");
    assert_eq!(run.news.len(), 1);
    assert_eq!(run.news[0].n_tokens, 1);
    assert_eq!(run.pass(FAST, 10, 33), 10, "prompts do not come here");
}
