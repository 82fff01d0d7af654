//! How long batches take, on two sides.

use crate::statistics::typical;
use std::collections::VecDeque;
use std::time::Duration;

/// What a batch is computed with, or without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Without what is tried.
    Without,
    /// With it.
    With,
}

impl Side {
    /// The side of a batch that has it or has not.
    pub fn of(is_on: bool) -> Self {
        if is_on { Self::With } else { Self::Without }
    }
}

/// Times from the beginning of a batch to that of the next one of its kind.
#[derive(Debug, Default)]
pub struct Stopwatch {
    /// The batch that is computed.
    last: Option<Timed>,
}

#[derive(Debug, Clone, Copy)]
struct Timed {
    kind: usize,
    side: Side,
    began: Duration,
    /// Whether the one before was of the same kind and side.
    is_clean: bool,
}

impl Stopwatch {
    /// A batch of `kind` begins at `now`, counted from anywhere: the side and the milliseconds of the one before.
    ///
    /// `None` if that was of another kind, or was the first of its kind and side: that one has what the change
    /// costs, as a new graph or what was read for the other side.
    pub fn stop(&self, now: Duration, kind: usize) -> Option<(Side, f64)> {
        let last = self
            .last
            .filter(|last| last.kind == kind && last.is_clean)?;
        let took = now.saturating_sub(last.began);
        Some((last.side, took.as_secs_f64() * 1e3))
    }

    /// It begins on `side`.
    pub fn start(&mut self, now: Duration, kind: usize, side: Side) {
        let before = self.last.map(|last| (last.kind, last.side));
        self.last = Some(Timed {
            kind,
            side,
            began: now,
            is_clean: before == Some((kind, side)),
        });
    }

    /// Something else begins: nobody knows when the batch before it has ended.
    pub fn interrupt(&mut self) {
        self.last = None;
    }
}

/// The latest `MAX` of what was measured.
#[derive(Debug)]
pub struct Latest<T, const MAX: usize> {
    values: VecDeque<T>,
    n_new: usize,
}

impl<T, const MAX: usize> Default for Latest<T, MAX> {
    fn default() -> Self {
        Self {
            values: VecDeque::new(),
            n_new: 0,
        }
    }
}

impl<T: Copy, const MAX: usize> Latest<T, MAX> {
    /// Adds one, instead of the oldest if there are enough.
    pub fn push(&mut self, value: T) {
        if self.values.len() == MAX {
            self.values.pop_front();
        }
        self.values.push_back(value);
        self.n_new += 1;
    }

    /// Forgets them all.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// Counts [`Self::n_new`] from 0, and forgets nothing.
    pub fn count_anew(&mut self) {
        self.n_new = 0;
    }

    /// How many were added since the last [`Self::clear`] or [`Self::count_anew`], also if not all are kept.
    pub fn n_new(&self) -> usize {
        self.n_new
    }

    /// How many are kept.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// The latest first.
    pub fn iter(&self) -> impl Iterator<Item = T> {
        self.values.iter().rev().copied()
    }
}

impl<const MAX: usize> Latest<f64, MAX> {
    /// What is typical of them; `None` if there are none.
    pub fn typical(&self) -> Option<f64> {
        typical(self.iter())
    }
}

/// The typical time of a batch on both sides.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Verdict {
    /// Milliseconds with what was tried.
    pub ms_with: f64,
    /// Milliseconds without it.
    pub ms_without: f64,
}

impl Verdict {
    /// Whether it pays, if it may be slower by the factor `slower_max`.
    pub fn pays(&self, slower_max: f64) -> bool {
        self.ms_with <= slower_max * self.ms_without
    }
}

#[cfg(test)]
mod tests {
    use super::Side::{With, Without};
    use super::*;

    #[test]
    fn only_batches_between_others_of_their_kind_and_side_are_timed() {
        let mut watch = Stopwatch::default();
        let mut now = Duration::ZERO;
        let mut timed = |kind, side, is_interrupted: bool| {
            now += Duration::from_millis(10);
            if is_interrupted {
                watch.interrupt();
            }
            let took = watch.stop(now, kind);
            watch.start(now, kind, side);
            took
        };
        let batches = [
            (0, With, false, None),
            (0, With, false, None),
            (0, With, false, Some((With, 10.0))),
            (0, Without, false, Some((With, 10.0))),
            (0, Without, false, None),
            (0, Without, false, Some((Without, 10.0))),
            // Something else, that is not timed.
            (0, Without, true, None),
            (0, Without, false, None),
            (0, Without, false, Some((Without, 10.0))),
            (1, Without, false, None),
            (1, Without, false, None),
            (1, Without, false, Some((Without, 10.0))),
        ];
        for (number, (kind, side, is_interrupted, expected)) in batches.into_iter().enumerate() {
            assert_eq!(timed(kind, side, is_interrupted), expected, "{number}");
        }
    }

    #[test]
    fn the_latest_are_kept_and_all_are_counted() {
        let mut latest = Latest::<f64, 3>::default();
        (1..=5).for_each(|n| latest.push(f64::from(n)));
        assert_eq!(latest.iter().collect::<Vec<_>>(), [5.0, 4.0, 3.0]);
        assert_eq!((latest.n_new(), latest.typical()), (5, Some(4.0)));
        latest.count_anew();
        latest.push(6.0);
        assert_eq!((latest.len(), latest.n_new()), (3, 1));
        latest.clear();
        assert!(latest.is_empty() && latest.n_new() == 0);
    }
}
