//! Says whether reading ahead pays: how often guesses of each rank are right, and how long tokens take
//! with it and without.

use std::time::Duration;

/// A guess of a rank is read if at least this part of the latest ones of its rank was right. Wrong ones
/// cost little, because they are read while the disk has nothing else to do.
const PRECISION_MIN: f64 = 0.35;
/// What a rank is taken for before anything is known, worth `PRIOR_GUESSES` guesses.
const PRIOR_PRECISION: f64 = 0.6;
const PRIOR_GUESSES: f64 = 4.0;
/// Guesses after which an older one weighs half.
const HALF_LIFE: f64 = 64.0;

/// Tokens of one side of a comparison in a row.
const BLOCK: usize = 8;
/// Whether each block of a comparison reads ahead: neither side is later than the other on average.
const BLOCKS: [bool; 8] = [true, false, false, true, false, true, true, false];
/// Tokens from the end of a comparison to the next.
const PAUSE: u32 = 448;

/// Of the guesses of one rank, the later the heavier.
#[derive(Clone, Copy)]
struct Precision {
    n: f64,
    right: f64,
}

/// Decides what is read ahead.
#[derive(Default)]
pub(super) struct Governor {
    ranks: Vec<Precision>,
    /// When the token before began, if what came between was that token only.
    last: Option<Duration>,
    /// Tokens since the comparison began or, below 0, until it does.
    n_tokens: i64,
    /// Durations of the tokens of the comparison, without and with reading ahead.
    sides: [Vec<Duration>; 2],
    /// What the last comparison said.
    verdict: Option<Verdict>,
}

/// The typical time of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// Without reading ahead.
    pub off: Duration,
    /// With it.
    pub on: Duration,
}

impl Verdict {
    fn is_on(&self) -> bool {
        self.on <= self.off
    }
}

impl Governor {
    /// A guess of this rank, the surest being 0, turned out right or wrong, whether it was read or not.
    pub fn learn(&mut self, rank: usize, is_right: bool) {
        if self.ranks.len() <= rank {
            let prior = Precision {
                n: PRIOR_GUESSES,
                right: PRIOR_GUESSES * PRIOR_PRECISION,
            };
            self.ranks.resize(rank + 1, prior);
        }
        let fade = 0.5f64.powf(1.0 / HALF_LIFE);
        let precision = &mut self.ranks[rank];
        precision.n = precision.n * fade + 1.0;
        precision.right = precision.right * fade + f64::from(u8::from(is_right));
    }

    /// Whether a guess of this rank is to be read.
    pub fn allows(&self, rank: usize) -> bool {
        let precise = |p: &Precision| p.right >= PRECISION_MIN * p.n;
        self.is_on() && self.ranks.get(rank).is_none_or(precise)
    }

    /// What the last comparison said; `None` before the first has ended.
    pub fn verdict(&self) -> Option<Verdict> {
        self.verdict
    }

    /// A token of generation begins at `now`, counted from anywhere.
    pub fn token(&mut self, now: Duration) {
        if let Some(took) = self.last.replace(now).map(|last| now - last)
            && let Ok(at) = usize::try_from(self.n_tokens)
        {
            // The first token of a block still has what was read in the one before.
            if !at.is_multiple_of(BLOCK) {
                self.sides[usize::from(self.is_on())].push(took);
            }
        }
        self.n_tokens += 1;
        if self.n_tokens == (BLOCK * BLOCKS.len()) as i64 {
            let [off, on] = self.sides.each_mut().map(|side| median(side));
            self.verdict = off.zip(on).map(|(off, on)| Verdict { off, on });
            self.sides.iter_mut().for_each(Vec::clear);
            self.n_tokens = -i64::from(PAUSE);
        }
    }

    /// Something else than a token of generation was computed: the time of the token before is not known.
    pub fn interrupt(&mut self) {
        self.last = None;
    }

    /// Whether anything is read ahead now.
    fn is_on(&self) -> bool {
        match usize::try_from(self.n_tokens) {
            Ok(at) => BLOCKS[at / BLOCK],
            Err(_) => self.verdict.is_none_or(|verdict| verdict.is_on()),
        }
    }
}

fn median(durations: &mut [Duration]) -> Option<Duration> {
    let middle = durations.len() / 2;
    (!durations.is_empty()).then(|| *durations.select_nth_unstable(middle).1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lets `n` tokens pass that take `on` or `off` milliseconds; returns how many read ahead.
    fn pass(governor: &mut Governor, now: &mut Duration, n: u32, on: u64, off: u64) -> u32 {
        let mut n_on = 0;
        for _ in 0..n {
            governor.token(*now);
            let is_on = governor.allows(0);
            n_on += u32::from(is_on);
            *now += Duration::from_millis(if is_on { on } else { off });
        }
        n_on
    }

    #[test]
    fn half_of_a_comparison_reads_ahead_and_then_what_was_faster() {
        let n_compared = (BLOCK * BLOCKS.len()) as u32;
        for (on, off) in [(10, 12), (12, 10), (10, 10)] {
            let mut governor = Governor::default();
            let mut now = Duration::ZERO;
            let n_on = pass(&mut governor, &mut now, n_compared - 1, on, off);
            assert!(n_on.abs_diff(n_compared / 2) <= 1, "{n_on}");
            assert_eq!(governor.verdict(), None);
            let n_on = pass(&mut governor, &mut now, PAUSE, on, off);
            assert_eq!(n_on, if on <= off { PAUSE } else { 0 });
            // It changes its mind.
            pass(&mut governor, &mut now, n_compared, off, on);
            let n_on = pass(&mut governor, &mut now, 100, off, on);
            assert_eq!(n_on, if off <= on { 100 } else { 0 });
        }
    }

    #[test]
    fn pauses_are_not_taken_for_slow_tokens() {
        let mut governor = Governor::default();
        let mut now = Duration::ZERO;
        for n in 0..(BLOCK * BLOCKS.len()) {
            if n % 3 == 0 {
                governor.interrupt();
                now += Duration::from_secs(5);
            }
            governor.token(now);
            now += Duration::from_millis(if governor.is_on() { 10 } else { 12 });
        }
        let verdict = governor.verdict().unwrap();
        let millis = [verdict.on, verdict.off].map(|d| d.as_millis());
        assert_eq!(millis, [10, 12]);
    }

    #[test]
    fn ranks_that_are_mostly_wrong_are_not_read_until_they_are_right_again() {
        let mut governor = Governor::default();
        assert!(governor.allows(3));
        for n in 0..200 {
            governor.learn(3, n % 5 == 0);
            governor.learn(1, n % 2 == 0);
        }
        assert!(!governor.allows(3));
        assert!(governor.allows(1));
        assert!(governor.allows(0) && governor.allows(7));
        for n in 0..200 {
            governor.learn(3, n % 2 == 0);
        }
        assert!(governor.allows(3));
    }
}
