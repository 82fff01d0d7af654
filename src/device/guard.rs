//! Says whether the cache pays: how long a batch takes with it and without.
//!
//! Uploads cost time, and where the link is slow the cache costs more than it saves. A batch with the cache takes
//! `a + b * misses`, which is fitted to the latest ones; without it, it takes what the median of a few takes. The
//! cache goes out of use if a batch without a single miss would be slower than one without the cache, or if it has
//! cost too much already. It is tried again after a while, and when batches without it take another time than they
//! did.
//!
//! There is no clock here. A batch that took very long is one after which nobody asked for the next: medians do not
//! see it, and the fit leaves it out.

use crate::expert::Event;
use std::collections::VecDeque;
use std::time::Duration;

/// Batches with the cache before the first ones without.
const N_FIRST: usize = 2;
/// Batches without the cache that it is compared with.
const N_COMPARED: usize = 4;
/// Batches that are looked back at.
const N_LATEST: usize = 32;
/// Batches whose misses are those of the present.
const N_PRESENT: usize = 8;
/// Batches that a fit needs.
const N_FITTED: usize = 5;
/// The cache may be slower by this factor.
const SLOWER_MAX: f64 = 1.03;
/// The time of a batch has changed if it is another by this factor.
const CHANGED: f64 = 1.25;
/// What a trial may cost, in batches without the cache: while nothing is known, and while the fit says that the
/// cache would pay if more of it hit.
const LOSS_MAX: f64 = 8.0;
const LOSS_MAX_HOPEFUL: f64 = 32.0;
/// Batches until the cache is tried again, the first time; twice as many each time after it, and so many for each
/// batch without the cache that the trial has cost.
const PAUSE: u32 = 64;
const PAUSE_PER_LOSS: f64 = 24.0;
const PAUSE_MAX: u32 = 1 << 14;
/// Batches until those with the cache are compared again.
const COMPARED_FOR: u32 = 1024;

/// What the guard has decided.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct News {
    /// Whether the cache is used from now on.
    pub is_on: bool,
    /// The largest batch that this is about.
    pub n_tokens: u32,
    /// Milliseconds of a batch with the cache, as many experts missing as did of late.
    pub ms_with: f64,
    /// Milliseconds without it.
    pub ms_without: f64,
    /// Batches until it is tried again, if it is not used.
    pub pause: u32,
}

/// Decides for each batch whether the cache is used.
#[derive(Default)]
pub struct Guard {
    /// By number of tokens: 1, 2, 3 to 4, 5 to 8, and so on.
    sizes: [Trial; N_SIZES],
    /// When the last batch began: of which size it was, whether it used the cache, and whether one of the
    /// same kind came before it.
    last: Option<Last>,
}

const N_SIZES: usize = Event::SCAN_TOKENS.ilog2() as usize + 1;

struct Last {
    began: Duration,
    size: usize,
    is_on: bool,
    is_clean: bool,
}

impl Guard {
    /// A batch of `n_tokens` begins at `now`, counted from anywhere; the last one had `n_misses`. Returns whether
    /// the cache is used, and what has changed.
    pub fn begin(&mut self, now: Duration, n_tokens: u32, n_misses: u64) -> (bool, Option<News>) {
        let last = self.last.take();
        if n_tokens == 0 || n_tokens > Event::SCAN_TOKENS {
            return (true, None);
        }
        let size = n_tokens.next_power_of_two().ilog2() as usize;
        let last = last.filter(|last| last.size == size);
        let trial = &mut self.sizes[size];
        if let Some(last) = last.as_ref().filter(|last| last.is_clean) {
            let ms = (now.saturating_sub(last.began)).as_secs_f64() * 1e3;
            trial.note(last.is_on, ms, n_misses as f64);
        }
        let news = trial.step().map(|news| News {
            n_tokens: 1 << size,
            ..news
        });
        let is_on = trial.is_on();
        self.last = Some(Last {
            began: now,
            size,
            is_on,
            // The first batch of a kind is slower: its graph is new.
            is_clean: last.is_some_and(|last| last.is_on == is_on),
        });
        (is_on, news)
    }
}

/// Where a comparison stands.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
enum Stage {
    /// With the cache, of which nothing is known.
    #[default]
    First,
    /// Without it, to compare.
    Compare,
    /// With it, until it is known whether it pays.
    Judge,
    /// With it, and it pays. So many batches ago it was compared.
    On(u32),
    /// Without it. After so many batches it is tried again.
    Off(u32),
}

/// Batches of one size.
#[derive(Default)]
struct Trial {
    stage: Stage,
    /// With the cache, since it was last tried: misses and milliseconds.
    with: VecDeque<(f64, f64)>,
    /// How many there were.
    n_with: usize,
    /// Milliseconds without it.
    without: VecDeque<f64>,
    /// Of these, since they were last asked for.
    n_without: usize,
    /// What the last decision rested on.
    ms_with: f64,
    ms_without: f64,
    /// The last pause.
    pause: u32,
}

impl Trial {
    fn is_on(&self) -> bool {
        !matches!(self.stage, Stage::Compare | Stage::Off(_))
    }

    /// A batch took `ms`.
    fn note(&mut self, was_on: bool, ms: f64, misses: f64) {
        if was_on {
            self.with.push_back((misses, ms));
            self.n_with += 1;
            if self.with.len() > N_LATEST {
                self.with.pop_front();
            }
        } else {
            self.without.push_back(ms);
            self.n_without += 1;
            if self.without.len() > N_LATEST {
                self.without.pop_front();
            }
        }
    }

    /// A batch begins: decides what it does.
    fn step(&mut self) -> Option<News> {
        match self.stage {
            Stage::First if self.n_with >= N_FIRST => self.compare(),
            Stage::First => {}
            Stage::Compare if self.n_without >= N_COMPARED => {
                self.stage = Stage::Judge;
                return self.judge();
            }
            Stage::Compare => {}
            Stage::Judge => return self.judge(),
            Stage::On(n) => {
                self.stage = Stage::On(n + 1);
                let (ms_with, _) = self.present();
                if n >= COMPARED_FOR || ms_with > CHANGED * self.ms_with {
                    self.compare();
                }
            }
            Stage::Off(left) => {
                self.stage = Stage::Off(left.saturating_sub(1));
                let now = median(self.without.iter().copied().collect());
                let has_changed = self.n_without >= N_LATEST
                    && (now > CHANGED * self.ms_without || self.ms_without > CHANGED * now);
                if has_changed {
                    self.pause = 0;
                }
                if left == 0 || has_changed {
                    self.forget();
                    self.stage = Stage::Judge;
                }
            }
        }
        None
    }

    fn forget(&mut self) {
        self.with.clear();
        self.n_with = 0;
    }

    fn compare(&mut self) {
        self.without.clear();
        self.n_without = 0;
        self.stage = Stage::Compare;
    }

    /// Milliseconds of a batch with the cache that misses as many experts as the latest ones did, and the fit, if
    /// these differ enough to make one.
    fn present(&self) -> (f64, Option<Fit>) {
        let latest = self.with.iter().rev().take(N_PRESENT);
        let (misses, times): (Vec<_>, Vec<_>) = latest.copied().unzip();
        let fit = Fit::of(&self.with);
        let typical = median(times);
        (fit.map_or(typical, |fit| fit.at(median(misses))), fit)
    }

    fn judge(&mut self) -> Option<News> {
        if self.with.len() < N_FIRST {
            return None;
        }
        let without = median(self.without.iter().copied().collect());
        let (with, fit) = self.present();
        let is_hopeful = fit.is_some_and(|fit| fit.at(0.0) * SLOWER_MAX < without);
        let is_hopeless = fit.is_some_and(|fit| fit.at(0.0) > without);
        let typical = median(self.with.iter().map(|(_, ms)| *ms).collect());
        // The first one was not measured.
        let loss = (self.n_with + 1) as f64 * (typical - without);
        let loss_max = if is_hopeful {
            LOSS_MAX_HOPEFUL
        } else {
            LOSS_MAX
        };
        let was_off = self.pause > 0;
        if self.with.len() >= N_COMPARED && with <= SLOWER_MAX * without {
            self.stage = Stage::On(0);
            self.pause = 0;
        } else if is_hopeless || loss > loss_max * without {
            let least = PAUSE_PER_LOSS * loss / without.max(f64::MIN_POSITIVE);
            self.pause = (2 * self.pause).max(least as u32).clamp(PAUSE, PAUSE_MAX);
            self.stage = Stage::Off(self.pause);
            // What comes from here on tells whether the time without the cache changes.
            self.n_without = 0;
        } else {
            return None;
        }
        (self.ms_with, self.ms_without) = (with, without);
        let is_on = self.is_on();
        (is_on == was_off).then_some(News {
            is_on,
            n_tokens: 0,
            ms_with: with,
            ms_without: without,
            pause: self.pause,
        })
    }
}

/// Milliseconds of a batch by its misses: a line.
#[derive(Debug, Clone, Copy)]
struct Fit {
    a: f64,
    b: f64,
}

impl Fit {
    /// By least squares, without what is far off the line; `None` if the misses hardly differ.
    fn of(points: &VecDeque<(f64, f64)>) -> Option<Self> {
        let mut points: Vec<_> = points.iter().copied().collect();
        let typical = median(points.iter().map(|(_, ms)| *ms).collect());
        points.retain(|(_, ms)| *ms < 4.0 * typical);
        let first = Self::through(&points)?;
        let error = |point: &(f64, f64)| (point.1 - first.at(point.0)).abs();
        let usual = median(points.iter().map(error).collect());
        points.retain(|point| error(point) <= 3.0 * usual);
        Self::through(&points)
    }

    fn through(points: &[(f64, f64)]) -> Option<Self> {
        let n = points.len() as f64;
        if points.len() < N_FITTED {
            return None;
        }
        let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / n;
        let (x, y) = (mean(|p| p.0), mean(|p| p.1));
        let sxx: f64 = points.iter().map(|p| (p.0 - x).powi(2)).sum();
        let sxy: f64 = points.iter().map(|p| (p.0 - x) * (p.1 - y)).sum();
        // A deviation of a tenth of the mean is the least that a slope is taken from.
        if (sxx / n).sqrt() < 0.1 * x || sxx == 0.0 {
            return None;
        }
        // A miss costs time; that it saves some is noise.
        let b = (sxy / sxx).max(0.0);
        Some(Self { a: y - b * x, b })
    }

    fn at(&self, misses: f64) -> f64 {
        self.a + self.b * misses
    }
}

/// The lower one of the two in the middle; 0 of nothing.
fn median(mut values: Vec<f64>) -> f64 {
    if values.is_empty() {
        return 0.0;
    }
    let middle = (values.len() - 1) / 2;
    *values.select_nth_unstable_by(middle, f64::total_cmp).1
}

#[cfg(test)]
mod tests {
    use super::*;

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
        last_misses: u64,
    }

    impl Run {
        fn new() -> Self {
            Self {
                guard: Guard::default(),
                now: 0.0,
                n_on: 0,
                n_batches: 0,
                warmth: 0.0,
                state: 1,
                news: Vec::new(),
                last_misses: 0,
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
                    self.last_misses = misses as u64;
                    link.a + link.b * misses
                } else {
                    self.last_misses = 0;
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

    /// The processor is busy with something else.
    #[test]
    fn it_tries_again_when_batches_without_it_take_longer() {
        let mut run = Run::new();
        run.pass(SLOW, 700, 1);
        let busy = Link {
            without: 2000.0,
            ..SLOW
        };
        // The next trial is not due for 400 batches.
        let n_on = run.pass(busy, 150, 1);
        assert!(n_on > 80, "{n_on} {:?}", run.news);
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
        assert!(run.n_on > 730, "{} of 750", run.n_on);
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
}
