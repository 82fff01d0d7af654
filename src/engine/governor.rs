//! Says whether reading ahead pays: how long tokens take with it and without.

use crate::trial::{Latest, Side, Stopwatch, Turn, Verdict};
use std::time::Duration;

/// Tokens of one side of a comparison in a row.
const BLOCK: usize = 8;
/// Whether each block of a comparison reads ahead: neither side is later than the other on average.
const BLOCKS: [bool; 8] = [true, false, false, true, false, true, true, false];
/// Tokens of a comparison, and of the first one, which says how it is until there is a better one.
const N_COMPARED: usize = BLOCK * BLOCKS.len();
const N_COMPARED_FIRST: usize = N_COMPARED / 2;
/// Tokens of one side that a verdict looks at: those of the latest four comparisons, or a few more.
const VERDICT_TOKENS: usize = 4 * N_COMPARED / 2;
/// Tokens from the end of a comparison to the next, and from that of the first one: guesses become better at first.
const PAUSE: u32 = 448;
const PAUSE_FIRST: u32 = 128;
/// When so many tokens take longer or less long than the last comparison said, by this factor, it has said nothing of
/// what is computed now.
const N_CHANGED: usize = 32;
const CHANGED: f64 = 1.25;

/// When what is guessed is read.
#[derive(Debug)]
pub enum When {
    /// Always.
    Always,
    /// While it pays. That is compared in turns with other trials, for the first time after so many batches of generation:
    /// until then the disk is busy with what is needed and not there yet, and which guesses are right is not known.
    WhileItPays {
        /// Batches before the first comparison.
        warm_up: u32,
        /// That of the comparisons.
        turn: Turn,
    },
}

/// Where a comparison stands, at the token that is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// There is none.
    Always,
    /// So many tokens are left until the next one begins, if it is our turn then.
    Pause(u32),
    /// So many of its tokens came before.
    Compare(usize),
}

/// Decides what is read ahead.
pub(super) struct Governor {
    /// Batches of generation until anything is read ahead.
    n_left: u32,
    step_now: Step,
    watch: Stopwatch,
    turn: Turn,
    /// Whether the first comparison has not ended.
    is_first: bool,
    /// Milliseconds of the tokens of the latest comparisons.
    without: Latest<f64, VERDICT_TOKENS>,
    with: Latest<f64, VERDICT_TOKENS>,
    /// The same of the tokens since.
    since: Latest<f64, N_CHANGED>,
    /// What the last comparison said.
    verdict: Option<Verdict>,
}

impl Governor {
    /// Reads ahead then.
    pub fn new(when: When) -> Self {
        let (n_left, step_now, turn) = match when {
            When::Always => (0, Step::Always, Turn::default()),
            When::WhileItPays { warm_up, turn } => (warm_up, Step::Pause(0), turn),
        };
        Self {
            n_left,
            step_now,
            watch: Stopwatch::default(),
            turn,
            is_first: true,
            without: Latest::default(),
            with: Latest::default(),
            since: Latest::default(),
            verdict: None,
        }
    }

    /// A batch of generation begins.
    pub fn batch(&mut self) {
        self.n_left = self.n_left.saturating_sub(1);
    }

    /// What the last comparison said; `None` before the first has ended.
    pub fn verdict(&self) -> Option<Verdict> {
        self.verdict
    }

    /// A batch of generation of this `kind` begins at `now`, counted from anywhere.
    pub fn token(&mut self, now: Duration, kind: usize) {
        if self.n_left > 0 || self.step_now == Step::Always {
            return;
        }
        let took = self.watch.stop(now, kind);
        let is_comparing = matches!(self.step_now, Step::Compare(_));
        let counts = self.turn.next_batch(is_comparing && took.is_some());
        if let Some((side, ms)) = took.filter(|_| counts && is_comparing) {
            match side {
                Side::Without => self.without.push(ms),
                Side::With => self.with.push(ms),
            }
        }
        if let (Step::Pause(_), Some((side, ms)), true) = (self.step_now, took, counts) {
            self.notice_change(side, ms);
        }
        self.step_now = match self.step_now {
            Step::Always => Step::Always,
            Step::Compare(n) if n + 1 == N_COMPARED => self.judge(PAUSE),
            Step::Compare(n) if self.is_first && n + 1 == N_COMPARED_FIRST => {
                let pause = self.judge(PAUSE_FIRST);
                // That was while little was known.
                self.is_first = false;
                self.with.clear();
                self.without.clear();
                pause
            }
            Step::Compare(n) => Step::Compare(n + 1),
            Step::Pause(0) if self.turn.take() => Step::Compare(0),
            Step::Pause(n) => Step::Pause(n.saturating_sub(1)),
        };
        self.watch.start(now, kind, Side::of(self.is_on()));
    }

    /// Something else than a token of generation is computed: when the token before has ended is not known.
    pub fn interrupt(&mut self) {
        self.watch.interrupt();
    }

    /// A token took `ms` between two comparisons. If they have become others, the last comparison is forgotten.
    fn notice_change(&mut self, side: Side, ms: f64) {
        let Some(verdict) = self.verdict else { return };
        let before = match side {
            Side::With => verdict.ms_with,
            Side::Without => verdict.ms_without,
        };
        self.since.push(ms);
        if self.since.n_new() < N_CHANGED {
            return;
        }
        let ratio = self.since.typical().map_or(1.0, |now| now / before);
        self.since.clear();
        if !(1.0 / CHANGED..=CHANGED).contains(&ratio) {
            self.with.clear();
            self.without.clear();
            self.step_now = Step::Pause(0);
        }
    }

    /// A comparison is over; the next one is due after `pause` batches.
    fn judge(&mut self, pause: u32) -> Step {
        let sides = self.with.typical().zip(self.without.typical());
        self.verdict = sides.map(|(ms_with, ms_without)| Verdict {
            ms_with,
            ms_without,
        });
        self.since.clear();
        self.turn.give_back();
        Step::Pause(pause - 1)
    }

    /// Whether guesses are made now: that takes time too, and where reading ahead does not pay, it need not be taken.
    pub fn is_guessing(&self) -> bool {
        let is_undecided = matches!(self.step_now, Step::Pause(_)) && self.verdict.is_none();
        self.n_left > 0 || is_undecided || self.is_on()
    }

    /// Whether anything is read ahead now.
    pub fn is_on(&self) -> bool {
        match self.step_now {
            Step::Always => true,
            _ if self.n_left > 0 => false,
            Step::Compare(n) => BLOCKS[n / BLOCK],
            Step::Pause(_) => self.verdict.is_some_and(|verdict| verdict.pays(1.0)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trial::Turns;
    use std::sync::Arc;

    fn governor_of(warm_up: u32, turn: Turn) -> Governor {
        Governor::new(When::WhileItPays { warm_up, turn })
    }

    fn governor() -> Governor {
        let mut governor = governor_of(0, Turn::default());
        governor.is_first = false;
        governor
    }

    /// Lets `n` tokens pass that take `on` or `off` milliseconds; returns how many read ahead.
    fn pass(governor: &mut Governor, now: &mut Duration, n: u32, on: u64, off: u64) -> u32 {
        let mut n_on = 0;
        for _ in 0..n {
            governor.token(*now, 0);
            let is_on = governor.is_on();
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
        let mut governor = governor_of(3, Turn::default());
        for n in 0..3 {
            assert!(!governor.is_on(), "{n}");
            governor.token(Duration::from_secs(n), 0);
            governor.batch();
        }
        assert!(governor.is_guessing(), "it learns");
        assert_eq!(governor.step_now, Step::Pause(0));
        assert_eq!(governor.watch.stop(Duration::from_secs(9), 0), None);
        governor.token(Duration::from_secs(9), 0);
        assert!(governor.is_on());
    }

    /// The first comparison is short, the second one comes soon after it, and the third one late; where reading ahead
    /// costs, nothing is guessed in between.
    #[test]
    fn the_first_comparisons_come_early() {
        let mut governor = governor_of(0, Turn::default());
        let mut now = Duration::ZERO;
        let [first, second] = [N_COMPARED_FIRST as u32, N_COMPARED as u32];
        assert_eq!(pass(&mut governor, &mut now, first, 12, 10), first / 2);
        assert_eq!(pass(&mut governor, &mut now, PAUSE_FIRST, 12, 10), 0);
        assert!(!governor.is_guessing());
        // What was said then counts no more: guesses have become better.
        assert_eq!(pass(&mut governor, &mut now, second, 9, 10), second / 2);
        assert_eq!(pass(&mut governor, &mut now, PAUSE, 9, 10), PAUSE);
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

    /// What was computed becomes half as long, and reading ahead does not pay any more.
    #[test]
    fn another_workload_is_compared_soon() {
        let mut governor = governor();
        let mut now = Duration::ZERO;
        pass(&mut governor, &mut now, N_COMPARED as u32 + 8, 20, 30);
        assert!(governor.is_on());
        let n = N_CHANGED as u32 + N_COMPARED as u32 + 8;
        let n_on = pass(&mut governor, &mut now, n, 12, 10);
        assert!(!governor.is_on() && n_on < n, "{n_on} of {n}");
    }

    /// Reading ahead saves a sixth. While a device computes for another trial, tokens take what they take there.
    #[test]
    fn tokens_of_another_trial_say_nothing() {
        let turns = Arc::new(Turns::default());
        let mut governor = governor_of(0, Turn::of(&turns));
        let mut other = Turn::of(&turns);
        let mut now = Duration::ZERO;
        assert!(other.take());
        // The other one compares: nothing begins, and guesses are learnt from.
        assert_eq!(pass(&mut governor, &mut now, 20, 500, 5), 0);
        assert_eq!(governor.step_now, Step::Pause(0));
        assert!(governor.is_guessing());
        other.give_back();
        pass(&mut governor, &mut now, N_COMPARED_FIRST as u32 / 2, 10, 12);
        // It computes on, but waits with its own comparison.
        assert!(!other.take());
        pass(&mut governor, &mut now, N_COMPARED_FIRST as u32 / 2 + 1, 10, 12);
        let verdict = governor.verdict().unwrap();
        assert_eq!((verdict.ms_with, verdict.ms_without), (10.0, 12.0));
        assert!(other.take());
    }
}
