//! Trials that run at once, and take turns: what one of them does while it compares changes what the others measure.
//!
//! A trial that wants to compare takes the turn, and waits with that while another one has it; in the meantime it
//! goes on with the side it is on. While one has the turn, what the others measure does not count, nor does what a
//! turn of another one has begun or ended in. So each compares under steady conditions, and only its own sides
//! differ. Who has the turn and measures nothing any more (its model is idle, say) loses it.

use std::sync::{Arc, Mutex, MutexGuard};

/// After so many batches of all trials in which it has measured nothing, a trial loses its turn.
const IDLE_BATCHES: u64 = 64;

/// The trials that may spoil each other's measurements.
#[derive(Debug, Default)]
pub struct Turns(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    n_trials: u32,
    /// Batches of all trials.
    n_batches: u64,
    /// Turns of all trials.
    n_turns: u64,
    /// The trial that has the turn, and the batch in which it has last measured something.
    holder: Option<(u32, u64)>,
}

impl State {
    /// Whether a trial other than `number` has the turn.
    fn is_of_other(&mut self, number: u32) -> bool {
        let is_idle = |(_, measured_at)| self.n_batches - measured_at > IDLE_BATCHES;
        self.holder = self.holder.filter(|holder| !is_idle(*holder));
        self.holder.is_some_and(|(holder, _)| holder != number)
    }

    fn take(&mut self, number: u32) {
        if self.holder.is_none() {
            self.n_turns += 1;
        }
        self.holder = Some((number, self.n_batches));
    }
}

/// What one trial has of the turns. It gives its turn back when it is dropped.
#[derive(Debug)]
pub struct Turn {
    turns: Arc<Turns>,
    number: u32,
    /// Whether it has taken the turn and not given it back. It may have lost it meanwhile.
    is_taken: bool,
    /// Whether another one had it when the batch began that is computed now.
    is_spoilt: bool,
    /// The value of `State::n_turns` then.
    n_turns: u64,
}

impl Turn {
    /// One trial more among `turns`.
    pub fn of(turns: &Arc<Turns>) -> Self {
        let number = {
            let mut state = lock(turns);
            state.n_trials += 1;
            state.n_trials
        };
        Self {
            turns: turns.clone(),
            number,
            is_taken: false,
            is_spoilt: true,
            n_turns: 0,
        }
    }

    /// A batch has ended and the next one begins; `is_measured` if a trial that compares knows what it took.
    /// Returns whether that counts: no other trial had the turn meanwhile.
    pub fn next_batch(&mut self, is_measured: bool) -> bool {
        let mut state = lock(&self.turns);
        state.n_batches += 1;
        let is_of_other = state.is_of_other(self.number);
        let is_steady = state.n_turns == self.n_turns;
        if self.is_taken && is_measured && !is_of_other {
            state.take(self.number);
        }
        self.n_turns = state.n_turns;
        !std::mem::replace(&mut self.is_spoilt, is_of_other) && !is_of_other && is_steady
    }

    /// Takes the turn, before a comparison. False if another trial has it.
    pub fn take(&mut self) -> bool {
        let mut state = lock(&self.turns);
        self.is_taken = !state.is_of_other(self.number);
        if self.is_taken {
            state.take(self.number);
            self.n_turns = state.n_turns;
        }
        self.is_taken
    }

    /// The comparison is over.
    pub fn give_back(&mut self) {
        if std::mem::take(&mut self.is_taken) {
            let mut state = lock(&self.turns);
            state.holder = state.holder.filter(|(holder, _)| *holder != self.number);
        }
    }
}

/// A trial that is alone.
impl Default for Turn {
    fn default() -> Self {
        Self::of(&Arc::default())
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.give_back();
    }
}

fn lock(turns: &Turns) -> MutexGuard<'_, State> {
    turns.0.lock().expect("no thread panics with it")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two() -> (Turn, Turn) {
        let turns = Arc::default();
        let (mut one, mut other) = (Turn::of(&turns), Turn::of(&turns));
        // Of what was before the first batch nothing is known.
        assert!(!one.next_batch(true) && !other.next_batch(true));
        (one, other)
    }

    #[test]
    fn while_one_compares_the_other_waits_and_measures_nothing() {
        let (mut one, mut other) = two();
        assert!(one.next_batch(true) && other.next_batch(true));
        assert!(one.take() && !other.take());
        for _ in 0..3 {
            assert!(one.next_batch(true) && !other.next_batch(true));
        }
        one.give_back();
        // The batch that is computed now began while it compared.
        assert!(!other.next_batch(true));
        assert!(other.next_batch(true) && other.take());
        assert!(!one.next_batch(true));
        drop(other);
        assert!(one.take());
    }

    #[test]
    fn a_turn_that_lies_within_a_batch_spoils_it() {
        let (mut one, mut other) = two();
        assert!(one.take());
        assert!(one.next_batch(true));
        one.give_back();
        assert!(!other.next_batch(true));
        assert!(other.next_batch(true));
    }

    #[test]
    fn who_measures_nothing_any_more_loses_the_turn_and_gets_it_again() {
        let (mut idle, mut busy) = two();
        assert!(idle.take());
        let n_waited = (0..).take_while(|_| {
            // It computes, but not what it compares.
            idle.next_batch(false);
            busy.next_batch(true);
            !busy.take()
        });
        assert_eq!(n_waited.count() as u64, IDLE_BATCHES / 2);
        // It has not ended: it waits now, and goes on when it can.
        assert!(!idle.next_batch(true) && busy.next_batch(true));
        busy.give_back();
        assert!(!idle.next_batch(true) && !busy.take());
        assert!(idle.next_batch(true));
    }

    #[test]
    fn one_alone_counts_all_but_its_first_batch() {
        let mut turn = Turn::default();
        assert!(!turn.next_batch(false));
        for n in 0..200 {
            assert!(turn.next_batch(n % 2 == 0) && turn.take());
            if n % 3 == 0 {
                turn.give_back();
            }
        }
    }
}
