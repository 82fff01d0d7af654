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

use super::fit::{Fit, median};
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
/// What pays for fewer batches than this and then does not, pays by chance: the next pauses are twice as long.
const STEADY: u32 = 512;
const N_SHORT_MAX: u32 = 8;
/// Batches until those with the cache are compared again, the first time: a few batches are soon mistaken. Four times as
/// many each time after it.
const COMPARED_FOR: u32 = 128;
const COMPARED_FOR_MAX: u32 = 1024;

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
    /// A batch of `n_tokens` begins at `now`, counted from anywhere; the last one had `n_misses`, or did not look
    /// into the cache, whether it could or not. Returns whether the cache is used, and what has changed.
    pub fn begin(
        &mut self,
        now: Duration,
        n_tokens: u32,
        n_misses: Option<u64>,
    ) -> (bool, Option<News>) {
        let last = self.last.take();
        if n_tokens == 0 || n_tokens > Event::SCAN_TOKENS {
            return (true, None);
        }
        let size = n_tokens.next_power_of_two().ilog2() as usize;
        let last = last.filter(|last| last.size == size);
        let trial = &mut self.sizes[size];
        // With or without the cache, a batch that does not look into it says nothing.
        let tells = |last: &&Last| last.is_clean && last.is_on == n_misses.is_some();
        if let Some(last) = last.as_ref().filter(tells) {
            let ms = now.saturating_sub(last.began).as_secs_f64() * 1e3;
            trial.note(last.is_on, ms, n_misses.unwrap_or(0) as f64);
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
    /// How many there were whose cost counts.
    n_with: usize,
    /// Milliseconds without it.
    without: VecDeque<f64>,
    /// Of these, since they were last asked for.
    n_without: usize,
    /// What the last decision rested on.
    ms_with: f64,
    ms_without: f64,
    /// Batches until it is compared again.
    compared_for: u32,
    /// The last pause.
    pause: u32,
    /// Batches for which it has paid, since it was last tried.
    n_paid: u32,
    /// How often in a row that was for a short time.
    n_short: u32,
    /// Whether the last decision was against the cache.
    is_against: bool,
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
                self.n_paid += 1;
                let (ms_with, _) = self.present();
                if n >= self.compared_for || ms_with > CHANGED * self.ms_with {
                    self.compare();
                }
            }
            Stage::Off(left) => {
                let now = median(self.without.iter().copied().collect());
                let has_changed = self.n_without >= N_LATEST
                    && (now > CHANGED * self.ms_without || self.ms_without > CHANGED * now);
                let mut left = left.saturating_sub(1);
                if has_changed {
                    self.ms_without = now;
                    left = left.min(self.pause_min());
                }
                self.stage = Stage::Off(left);
                if left == 0 {
                    self.forget();
                    self.stage = Stage::Judge;
                }
            }
        }
        None
    }

    fn pause_min(&self) -> u32 {
        PAUSE << self.n_short
    }

    fn forget(&mut self) {
        self.with.clear();
        self.n_with = 0;
    }

    fn compare(&mut self) {
        self.without.clear();
        self.n_without = 0;
        if self.stage != Stage::First {
            // What there was before has paid.
            self.n_with = 0;
        }
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
        if self.with.len() >= N_COMPARED && with <= SLOWER_MAX * without {
            self.stage = Stage::On(0);
            self.compared_for = (4 * self.compared_for).clamp(COMPARED_FOR, COMPARED_FOR_MAX);
            self.pause = 0;
        } else if is_hopeless || loss > loss_max * without {
            self.n_short = match std::mem::take(&mut self.n_paid) {
                0 => self.n_short,
                n if n < STEADY => N_SHORT_MAX.min(self.n_short + 1),
                _ => 0,
            };
            let least = PAUSE_PER_LOSS * loss / without.max(f64::MIN_POSITIVE);
            let pause = (2 * self.pause).max(least as u32);
            self.pause = pause.clamp(self.pause_min(), PAUSE_MAX);
            self.stage = Stage::Off(self.pause);
            self.compared_for = 0;
            // What comes from here on tells whether the time without the cache changes.
            self.n_without = 0;
        } else {
            return None;
        }
        (self.ms_with, self.ms_without) = (with, without);
        let is_against = !self.is_on();
        let was_against = std::mem::replace(&mut self.is_against, is_against);
        (is_against != was_against).then_some(News {
            is_on: !is_against,
            n_tokens: 0,
            ms_with: with,
            ms_without: without,
            pause: self.pause,
        })
    }
}
