//! Says whether reading ahead pays: how likely guesses are right, and how long tokens take
//! with it and without.

use super::odds::{Lead, Odds};
use crate::trial::{Latest, Side, Stopwatch, Turn, Verdict};
use std::time::Duration;

/// A guess is read if it is right with this chance at least. A wrong one takes a slot and some time of the
/// disk, a right one saves at most its own time.
const CHANCE_MIN: f32 = 0.6;

/// Tokens of one side of a comparison in a row.
const BLOCK: usize = 8;
/// Whether each block of a comparison reads ahead: neither side is later than the other on average.
const BLOCKS: [bool; 8] = [true, false, false, true, false, true, true, false];
/// Tokens of a comparison.
const N_COMPARED: usize = BLOCK * BLOCKS.len();
/// Tokens of one side that a verdict looks at: those of the latest four comparisons, or a few more.
const VERDICT_TOKENS: usize = 4 * N_COMPARED / 2;
/// Tokens from the end of a comparison to the next.
const PAUSE: u32 = 448;

/// Where a comparison stands, at the token that is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// So many tokens are left until the next one begins, if it is our turn then.
    Pause(u32),
    /// So many of its tokens came before.
    Compare(usize),
}

/// Decides what is read ahead.
pub(super) struct Governor {
    odds: Odds,
    /// Batches of generation until anything is read ahead.
    n_left: u32,
    step_now: Step,
    watch: Stopwatch,
    turn: Turn,
    /// Milliseconds of the tokens of the latest comparisons.
    without: Latest<f64, VERDICT_TOKENS>,
    with: Latest<f64, VERDICT_TOKENS>,
    /// What the last comparison said.
    verdict: Option<Verdict>,
}

impl Governor {
    /// Reads nothing ahead during the first `warm_up` batches of generation.
    pub fn new(warm_up: u32, turn: Turn) -> Self {
        Self {
            odds: Odds::default(),
            n_left: warm_up,
            step_now: Step::Pause(0),
            watch: Stopwatch::default(),
            turn,
            without: Latest::default(),
            with: Latest::default(),
            verdict: None,
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

    /// A token of generation, a batch of its own, begins in `lane` at `now`, counted from anywhere.
    pub fn token(&mut self, now: Duration, lane: usize) {
        if self.n_left > 0 {
            return;
        }
        let took = self.watch.stop(now, lane);
        let is_comparing = matches!(self.step_now, Step::Compare(_));
        let counts = self.turn.next_batch(is_comparing && took.is_some());
        if let Some((side, ms)) = took.filter(|_| counts && is_comparing) {
            match side {
                Side::Without => self.without.push(ms),
                Side::With => self.with.push(ms),
            }
        }
        self.step_now = match self.step_now {
            Step::Compare(n) if n + 1 == N_COMPARED => {
                self.judge();
                Step::Pause(PAUSE - 1)
            }
            Step::Compare(n) => Step::Compare(n + 1),
            Step::Pause(0) if self.turn.take() => Step::Compare(0),
            Step::Pause(n) => Step::Pause(n.saturating_sub(1)),
        };
        self.watch.start(now, lane, Side::of(self.is_on()));
    }

    /// Something else than a token of generation is computed: when the token before has ended is not known.
    pub fn interrupt(&mut self) {
        self.watch.interrupt();
    }

    /// A comparison is over.
    fn judge(&mut self) {
        let sides = self.with.typical().zip(self.without.typical());
        self.verdict = sides.map(|(ms_with, ms_without)| Verdict {
            ms_with,
            ms_without,
        });
        self.turn.give_back();
    }

    /// Whether anything is read ahead now.
    fn is_on(&self) -> bool {
        match self.step_now {
            _ if self.n_left > 0 => false,
            Step::Compare(n) => BLOCKS[n / BLOCK],
            Step::Pause(_) => self.verdict.is_none_or(|verdict| verdict.pays(1.0)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trial::Turns;
    use std::sync::Arc;

    fn governor() -> Governor {
        Governor::new(0, Turn::default())
    }

    /// Lets `n` tokens pass that take `on` or `off` milliseconds; returns how many read ahead.
    fn pass(governor: &mut Governor, now: &mut Duration, n: u32, on: u64, off: u64) -> u32 {
        let mut n_on = 0;
        for _ in 0..n {
            governor.token(*now, 0);
            let is_on = governor.allows(0, 9.0);
            n_on += u32::from(is_on);
            *now += Duration::from_millis(if is_on { on } else { off });
        }
        n_on
    }

    #[test]
    fn half_of_a_comparison_reads_ahead_and_then_what_was_faster() {
        let n_compared = N_COMPARED as u32;
        for (on, off) in [(10, 12), (12, 10), (10, 10)] {
            let mut governor = governor();
            let mut now = Duration::ZERO;
            let n_on = pass(&mut governor, &mut now, n_compared, on, off);
            assert_eq!(n_on, n_compared / 2);
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
        let mut governor = Governor::new(3, Turn::default());
        for n in 0..3 {
            assert!(!governor.allows(0, 9.0), "{n}");
            governor.token(Duration::from_secs(n), 0);
            governor.batch();
        }
        assert_eq!(governor.step_now, Step::Pause(0));
        assert_eq!(governor.watch.stop(Duration::from_secs(9), 0), None);
        assert!(governor.allows(0, 9.0));
    }

    #[test]
    fn pauses_are_not_taken_for_slow_tokens() {
        let mut governor = governor();
        let mut now = Duration::ZERO;
        for n in 0..=N_COMPARED {
            if n % 3 == 0 {
                governor.interrupt();
                now += Duration::from_secs(5);
            }
            governor.token(now, 0);
            now += Duration::from_millis(if governor.is_on() { 10 } else { 12 });
        }
        let verdict = governor.verdict().unwrap();
        assert_eq!((verdict.ms_with, verdict.ms_without), (10.0, 12.0));
    }

    #[test]
    fn guesses_that_are_mostly_wrong_are_not_read_until_they_are_right_again() {
        let mut governor = governor();
        let (layer, lead) = (3, 2.0);
        assert!(governor.allows(layer, lead));
        for is_right in [false, true] {
            (0..200).for_each(|_| governor.learn(layer, lead, is_right));
            assert_eq!(governor.allows(layer, lead), is_right);
            assert!(governor.allows(layer + 1, lead));
        }
    }

    /// Reading ahead saves a sixth. While a device computes for another trial, tokens take what they take there.
    #[test]
    fn tokens_of_another_trial_say_nothing() {
        let turns = Arc::new(Turns::default());
        let mut governor = Governor::new(0, Turn::of(&turns));
        let mut other = Turn::of(&turns);
        let mut now = Duration::ZERO;
        assert!(other.take());
        // The other one compares: nothing begins, and reading ahead goes on.
        assert_eq!(pass(&mut governor, &mut now, 20, 500, 5), 20);
        assert_eq!(governor.step_now, Step::Pause(0));
        other.give_back();
        pass(&mut governor, &mut now, N_COMPARED as u32 / 2, 10, 12);
        // It computes on, but waits with its own comparison.
        assert!(!other.take());
        pass(&mut governor, &mut now, N_COMPARED as u32 / 2 + 1, 10, 12);
        let verdict = governor.verdict().unwrap();
        assert_eq!((verdict.ms_with, verdict.ms_without), (10.0, 12.0));
        assert!(other.take());
    }
}
