//! Says whether the cache pays: how long a batch takes with it and without.
//!
//! Uploads cost time, and where the link is slow the cache costs more than it saves. A batch with the cache takes
//! `a + b * misses`, which is fitted to the latest ones; without it, it takes what is typical of a few. The
//! cache goes out of use if a batch without a single miss would be slower than one without the cache, or if it has
//! cost too much already. It is tried again after a while, and when batches without it take another time than they
//! did. Batches of 1, 2, up to 4, ... tokens are compared with their own: each size has a state of its own.
//!
//! `with` is the typical time of a batch with the cache that misses as many experts as the latest `N_PRESENT` did,
//! by the fit if these differ enough to make one; `without` that of those without it. The loss of a trial is what its
//! batches with the cache have cost more than without.
//!
//! ```text
//! state     cache  goes to   when
//! First     on     Compare   N_FIRST batches are timed, and it is our turn
//! Compare   off    Judge     N_COMPARED batches are timed: it judges at once
//! Judge     on     On(0)     N_COMPARED batches are timed, and with <= SLOWER_MAX * without
//!                  Off(p)    N_FIRST are timed, and a > without, or the loss is above LOSS_MAX batches without the
//!                            cache (LOSS_MAX_HOPEFUL if SLOWER_MAX * a < without)
//! On(n)     on     On(n + 1) a batch begins
//!                  Compare   n has reached the wait, or with > CHANGED * what it was, and it is our turn
//! Off(n)    off    Off(n-1)  a batch begins
//!                  Off(m)    of N_LATEST batches the typical time is another by the factor CHANGED: m is n or
//!                            PAUSE << n_short, whichever is less
//!                  Judge     n is 0, and it is our turn: what was known of batches with the cache is forgotten
//! ```
//!
//! The wait of `On` is COMPARED_FOR at first, 4 times as much each time, COMPARED_FOR_MAX at most. The pause `p` of
//! `Off` is PAUSE << n_short at first, twice as much each time, PAUSE_PER_LOSS batches at least for each batch that
//! the trial has cost, and PAUSE_MAX at most. `n_short` is how often in a row it was `On` for less than STEADY
//! batches, N_SHORT_MAX at most. The turn (see [`crate::trial`]) is ours from the way out of `First`, `On` or `Off`
//! until the next `On` or `Off`.
//!
//! There is no clock here. A batch that took very long is one after which nobody asked for the next: what is typical
//! leaves it out, and so does the fit.

use super::fit::Fit;
use crate::expert::Event;
use crate::statistics::typical;
use crate::trial::{Latest, Side, Stopwatch, Turn, Verdict, Wait};
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
    watch: Stopwatch,
    turn: Turn,
}

const N_SIZES: usize = Event::DECODE_TOKENS_MAX.ilog2() as usize + 1;

impl Guard {
    /// A guard whose trials take turns with others.
    pub fn new(turn: Turn) -> Self {
        Self {
            turn,
            ..Self::default()
        }
    }

    /// Whether the cache is left aside for batches of one token, because it does not pay.
    pub fn is_aside(&self) -> bool {
        matches!(self.sizes[0].step_now, Step::Off(_))
    }

    /// A batch of `n_tokens` begins at `now`, counted from anywhere; the last one had `n_misses`, or did not look
    /// into the cache, whether it could or not. Returns whether the cache is used, and what has changed.
    pub fn begin(
        &mut self,
        now: Duration,
        n_tokens: u32,
        n_misses: Option<u64>,
    ) -> (bool, Option<News>) {
        if n_tokens == 0 || n_tokens > Event::DECODE_TOKENS_MAX {
            self.watch.interrupt();
            return (true, None);
        }
        let size = n_tokens.next_power_of_two().ilog2() as usize;
        let trial = &mut self.sizes[size];
        // With or without the cache, a batch that does not look into it says nothing.
        let tells = |(side, _): &(Side, f64)| *side == Side::of(n_misses.is_some());
        let took = self.watch.stop(now, size).filter(tells);
        let counts = self.turn.next_batch(trial.is_comparing() && took.is_some());
        if let Some((side, ms)) = took.filter(|_| counts) {
            trial.note(side, ms, n_misses.unwrap_or(0) as f64);
        }
        let news = trial.step(&mut self.turn).map(|news| News {
            n_tokens: 1 << size,
            ..news
        });
        let is_on = trial.is_on();
        self.watch.start(now, size, Side::of(is_on));
        (is_on, news)
    }
}

/// Where a comparison stands.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
enum Step {
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
    step_now: Step,
    /// With the cache, since it was last tried: misses and milliseconds. The new ones are those whose cost counts.
    with: Latest<(f64, f64), N_LATEST>,
    /// Milliseconds without it. The new ones are those since they were last asked for.
    without: Latest<f64, N_LATEST>,
    /// What the last decision rested on.
    verdict: Verdict,
    /// Batches until it is compared again.
    compared_for: Wait,
    /// Batches until it is tried again.
    pause: Wait,
    /// Batches for which it has paid, since it was last tried.
    n_paid: u32,
    /// How often in a row that was for a short time.
    n_short: u32,
    /// Whether the last decision was against the cache.
    is_against: bool,
}

impl Trial {
    fn is_on(&self) -> bool {
        !matches!(self.step_now, Step::Compare | Step::Off(_))
    }

    /// Whether it is on another side than it was, or may be again.
    fn is_comparing(&self) -> bool {
        matches!(self.step_now, Step::Compare | Step::Judge)
    }

    /// A batch took `ms`.
    fn note(&mut self, side: Side, ms: f64, misses: f64) {
        match side {
            Side::With => self.with.push((misses, ms)),
            Side::Without => self.without.push(ms),
        }
    }

    /// A batch begins: decides what it does.
    fn step(&mut self, turn: &mut Turn) -> Option<News> {
        match self.step_now {
            Step::First => {
                if self.with.n_new() >= N_FIRST && turn.take() {
                    self.compare();
                }
            }
            Step::Compare if self.without.n_new() >= N_COMPARED => {
                self.step_now = Step::Judge;
                return self.judge(turn);
            }
            Step::Compare => {}
            Step::Judge => return self.judge(turn),
            Step::On(n) => {
                self.step_now = Step::On(n.saturating_add(1));
                self.n_paid = self.n_paid.saturating_add(1);
                let is_due =
                    n >= self.compared_for.last() || self.with() > CHANGED * self.verdict.ms_with;
                if is_due && turn.take() {
                    self.compare();
                }
            }
            Step::Off(left) => {
                let left = self.look_aside(left.saturating_sub(1));
                self.step_now = Step::Off(left);
                if left == 0 && turn.take() {
                    self.with.clear();
                    self.step_now = Step::Judge;
                }
            }
        }
        None
    }

    /// It is tried again after `left` batches: fewer, if batches without it take another time than they did.
    fn look_aside(&mut self, left: u32) -> u32 {
        let (now, then) = (self.without(), self.verdict.ms_without);
        let has_changed = now > CHANGED * then || then > CHANGED * now;
        if self.without.n_new() < N_LATEST || !has_changed {
            return left;
        }
        self.verdict.ms_without = now;
        left.min(self.pause_min())
    }

    fn pause_min(&self) -> u32 {
        PAUSE << self.n_short
    }

    fn compare(&mut self) {
        self.without.clear();
        if self.step_now != Step::First {
            // What there was before has paid.
            self.with.count_anew();
        }
        self.step_now = Step::Compare;
    }

    /// Milliseconds of a batch without the cache.
    fn without(&self) -> f64 {
        self.without.typical().unwrap_or(0.0)
    }

    /// Milliseconds of a batch with the cache that misses as many experts as the latest ones did.
    fn with(&self) -> f64 {
        self.with_by(Fit::of(self.with.iter()))
    }

    /// The same by a fit, if there is one.
    fn with_by(&self, fit: Option<Fit>) -> f64 {
        let (misses, times): (Vec<_>, Vec<_>) = self.with.iter().take(N_PRESENT).unzip();
        let present = |values| typical(values).unwrap_or(0.0);
        fit.map_or_else(|| present(times), |fit| fit.at(present(misses)))
    }

    fn judge(&mut self, turn: &mut Turn) -> Option<News> {
        if self.with.len() < N_FIRST {
            return None;
        }
        let fit = Fit::of(self.with.iter());
        let verdict = Verdict {
            ms_with: self.with_by(fit),
            ms_without: self.without(),
        };
        let usual = typical(self.with.iter().map(|(_, ms)| ms)).unwrap_or(0.0);
        // The first one was not measured.
        let loss = (self.with.n_new() + 1) as f64 * (usual - verdict.ms_without);
        if self.with.len() >= N_COMPARED && verdict.pays(SLOWER_MAX) {
            self.step_now = Step::On(0);
            self.compared_for.next(4, COMPARED_FOR..=COMPARED_FOR_MAX);
            self.pause.reset();
        } else if is_lost(fit, loss, verdict.ms_without) {
            self.give_up(loss / verdict.ms_without.max(f64::MIN_POSITIVE));
        } else {
            return None;
        }
        turn.give_back();
        self.verdict = verdict;
        let is_against = !self.is_on();
        let was_against = std::mem::replace(&mut self.is_against, is_against);
        (is_against != was_against).then_some(News {
            is_on: !is_against,
            n_tokens: 0,
            ms_with: verdict.ms_with,
            ms_without: verdict.ms_without,
            pause: self.pause.last(),
        })
    }

    /// The cache is left aside after a trial that has cost `n_lost` batches.
    fn give_up(&mut self, n_lost: f64) {
        self.n_short = match std::mem::take(&mut self.n_paid) {
            0 => self.n_short,
            n if n < STEADY => N_SHORT_MAX.min(self.n_short + 1),
            _ => 0,
        };
        let least = self.pause_min().max((PAUSE_PER_LOSS * n_lost) as u32);
        let pause = self.pause.next(2, least.min(PAUSE_MAX)..=PAUSE_MAX);
        self.step_now = Step::Off(pause);
        self.compared_for.reset();
        // What comes from here on tells whether the time without the cache changes.
        self.without.count_anew();
    }
}

/// Whether a cache with this fit will not pay, or has cost too much until now.
fn is_lost(fit: Option<Fit>, loss: f64, ms_without: f64) -> bool {
    let at_best = fit.map(|fit| fit.at(0.0));
    let is_hopeful = at_best.is_some_and(|ms| ms * SLOWER_MAX < ms_without);
    let is_hopeless = at_best.is_some_and(|ms| ms > ms_without);
    let loss_max = if is_hopeful {
        LOSS_MAX_HOPEFUL
    } else {
        LOSS_MAX
    };
    is_hopeless || loss > loss_max * ms_without
}
