//! Says whether reading ahead pays: how likely guesses are right, and how long tokens take
//! with it and without.

use super::odds::{Lead, Odds};
use std::time::Duration;

/// A guess is read if it is right with this chance at least. A wrong one takes a slot and some time of the
/// disk, a right one saves at most its own time.
const CHANCE_MIN: f32 = 0.6;

/// Tokens of one side of a comparison in a row.
const BLOCK: usize = 8;
/// Whether each block of a comparison reads ahead: neither side is later than the other on average.
const BLOCKS: [bool; 8] = [true, false, false, true, false, true, true, false];
/// Tokens of one side that a verdict looks at: those of the latest comparisons.
const VERDICT_TOKENS: usize = 4 * (BLOCK - 1) * BLOCKS.len() / 2;
/// One in so many tokens of a side is left out of its mean for being the shortest, and one for being
/// the longest.
const TRIM: usize = 10;
/// Tokens from the end of a comparison to the next.
const PAUSE: u32 = 448;

/// Decides what is read ahead.
#[derive(Default)]
pub(super) struct Governor {
    odds: Odds,
    /// Batches of generation until anything is read ahead.
    n_left: u32,
    /// When the token before began, if what came between was that token only.
    last: Option<Duration>,
    /// Tokens since the comparison began or, below 0, until it does.
    n_tokens: i64,
    /// Durations of the tokens of the latest comparisons, without and with reading ahead.
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
    /// Reads nothing ahead during the first `warm_up` batches of generation.
    pub fn new(warm_up: u32) -> Self {
        Self {
            n_left: warm_up,
            ..Self::default()
        }
    }

    /// A batch of generation begins.
    pub fn batch(&mut self) {
        self.n_left = self.n_left.saturating_sub(1);
    }

    /// A guess of `layer` turned out right or wrong, whether it was read or not.
    pub fn learn(&mut self, layer: usize, lead: Lead, is_right: bool) {
        self.odds.learn(layer, lead, is_right);
    }

    /// Whether such a guess is to be read.
    pub fn allows(&self, layer: usize, lead: Lead) -> bool {
        self.is_on() && self.odds.chance(layer, lead) >= CHANCE_MIN
    }

    /// What the last comparison said; `None` before the first has ended.
    pub fn verdict(&self) -> Option<Verdict> {
        self.verdict
    }

    /// A token of generation, a batch of its own, begins at `now`, counted from anywhere.
    pub fn token(&mut self, now: Duration) {
        if self.n_left > 0 {
            return;
        }
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
            for side in &mut self.sides {
                side.drain(..side.len().saturating_sub(VERDICT_TOKENS));
            }
            let [off, on] = self.sides.each_ref().map(|side| typical(side));
            self.verdict = off.zip(on).map(|(off, on)| Verdict { off, on });
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
            _ if self.n_left > 0 => false,
            Ok(at) => BLOCKS[at / BLOCK],
            Err(_) => self.verdict.is_none_or(|verdict| verdict.is_on()),
        }
    }
}

/// The mean without the extremes: tokens that wait for many experts count, a pause of the system does not.
fn typical(durations: &[Duration]) -> Option<Duration> {
    let mut sorted = durations.to_vec();
    sorted.sort_unstable();
    let n_left_out = sorted.len() / TRIM;
    let middle = &sorted[n_left_out..sorted.len() - n_left_out];
    let n = u32::try_from(middle.len()).ok().filter(|n| *n > 0)?;
    Some(middle.iter().sum::<Duration>() / n)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Lets `n` tokens pass that take `on` or `off` milliseconds; returns how many read ahead.
    fn pass(governor: &mut Governor, now: &mut Duration, n: u32, on: u64, off: u64) -> u32 {
        let mut n_on = 0;
        for _ in 0..n {
            governor.token(*now);
            let is_on = governor.allows(0, 9.0);
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
            // It changes its mind when two comparisons have said so.
            pass(&mut governor, &mut now, 2 * n_compared + PAUSE, off, on);
            let n_on = pass(&mut governor, &mut now, 100, off, on);
            assert_eq!(n_on, if off <= on { 100 } else { 0 });
        }
    }

    #[test]
    fn nothing_is_read_or_compared_while_it_warms_up() {
        let mut governor = Governor::new(3);
        for n in 0..3 {
            assert!(!governor.allows(0, 9.0), "{n}");
            governor.token(Duration::from_secs(n));
            governor.batch();
        }
        assert_eq!((governor.n_tokens, governor.last), (0, None));
        assert!(governor.allows(0, 9.0));
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
    fn guesses_that_are_mostly_wrong_are_not_read_until_they_are_right_again() {
        let mut governor = Governor::default();
        let (layer, lead) = (3, 2.0);
        assert!(governor.allows(layer, lead));
        for is_right in [false, true] {
            (0..200).for_each(|_| governor.learn(layer, lead, is_right));
            assert_eq!(governor.allows(layer, lead), is_right);
            assert!(governor.allows(layer + 1, lead));
        }
    }
}
