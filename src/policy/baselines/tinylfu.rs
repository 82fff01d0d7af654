//! W-TinyLFU: a newcomer leaves the window for the main part only by beating its next victim.
//!
//! The counts are exact, halved now and then: the experts of a model are few and known, so there is
//! no need for the sketch that the original estimates frequencies with.

use super::lists::Lists;
use super::queued::{Queued, Queues};
use crate::expert::{Event, Shape};
use crate::policy::contract::{Prior, Spec};
use crate::policy::scored::weight;

pub(in crate::policy) const SPEC: Spec = Spec {
    name: "tinylfu",
    about: "evict the oldest newcomer or the oldest of the rest, whichever fewer tokens picked lately",
    when: "when little fits; on some recorded routing it loses to lru by much",
    source: "W-TinyLFU (Einziger et al. 2017), exact counts instead of a sketch",
    param: None,
    build: |shape, _| Box::new(Queued::new(shape, TinyLfu::new(shape))),
};

const WINDOW: u8 = 0;
/// The main part is a segmented LRU, 80 % of it protected.
const PROBATION: u8 = 1;
const PROTECTED: u8 = 2;

const COUNT_MAX: f32 = 15.0;

/// After so many picks per slot counts are halved and rounded down: what was picked once is forgotten,
/// which matters when little fits.
const SAMPLE_PER_SLOT: f64 = 10.0;

struct TinyLfu {
    n_slots: u32,
    /// How many experts the last event of generation picked: the window takes them.
    n_picks: u32,
    /// By dense index: tokens that picked it; a prompt adds fractions.
    count: Vec<f32>,
    /// What was added to counts since they were halved.
    n_sampled: f64,
}

impl TinyLfu {
    fn new(shape: &Shape) -> Self {
        Self {
            n_slots: 0,
            n_picks: 0,
            count: vec![0.0; shape.n_total()],
            n_sampled: 0.0,
        }
    }

    /// A hundredth of the slots, or one event's experts but no more than a quarter.
    fn n_window_max(&self) -> u32 {
        let n_event = self.n_picks.min(self.n_slots / 4);
        (self.n_slots / 100).max(n_event).max(1)
    }

    fn demote(&self, lists: &mut Lists) {
        let n_main = self.n_slots.saturating_sub(self.n_window_max());
        while lists.len(PROTECTED) > protected(n_main) {
            let oldest = lists.oldest(PROTECTED).expect("it is not empty");
            lists.push(oldest, PROBATION);
        }
    }
}

impl Queues for TinyLfu {
    const N_LISTS: u8 = 3;
    const N_RESIDENT_LISTS: u8 = 3;

    fn resize(&mut self, n_slots: u32, lists: &mut Lists) {
        self.n_slots = n_slots;
        self.demote(lists);
    }

    fn prime(&mut self, prior: &Prior) {
        for (count, share) in self.count.iter_mut().zip(prior.frequency) {
            *count = (*count + share * prior.n_tokens).min(COUNT_MAX);
        }
    }

    fn route(&mut self, event: &Event, first: usize) {
        if !event.is_prefill() {
            self.n_picks = event.experts.len() as u32;
        }
        for (&expert, &rows) in event.experts.iter().zip(event.rows) {
            let weight = weight(event, rows);
            let count = &mut self.count[first + expert as usize];
            *count = (*count + weight as f32).min(COUNT_MAX);
            self.n_sampled += weight;
        }
        if self.n_sampled >= SAMPLE_PER_SLOT * f64::from(self.n_slots.max(1)) {
            self.n_sampled = 0.0;
            let halve = |count: &mut f32| *count = (*count * 0.5).floor();
            self.count.iter_mut().for_each(halve);
        }
    }

    fn hit(&mut self, index: u32, _rows: u32, lists: &mut Lists) {
        let is_new = lists.list_of(index) == Some(WINDOW);
        lists.push(index, if is_new { WINDOW } else { PROTECTED });
        self.demote(lists);
    }

    /// While there is room the window hands on its oldest; after that, `evict` sees to its size.
    fn arrive(&mut self, index: u32, lists: &mut Lists) {
        let n_residents: u32 = (0..Self::N_LISTS).map(|list| lists.len(list)).sum();
        let is_room = n_residents + 1 < self.n_slots;
        if is_room && lists.len(WINDOW) >= self.n_window_max() {
            let oldest = lists.oldest(WINDOW).expect("it is not empty");
            lists.push(oldest, PROBATION);
        }
        lists.push(index, WINDOW);
    }

    fn evict(&mut self, pinned: &dyn Fn(u32) -> bool, lists: &mut Lists) -> Option<u32> {
        let count = |index: u32| self.count[index as usize];
        let newcomer = lists.oldest_free(&[WINDOW], pinned);
        let main = lists.oldest_free(&[PROBATION, PROTECTED], pinned);
        let is_window_full = lists.len(WINDOW) >= self.n_window_max();
        let victim = match (newcomer, main) {
            (Some(_), Some(main)) if !is_window_full => main,
            (Some(newcomer), Some(main)) if count(newcomer) > count(main) => {
                lists.push(newcomer, PROBATION);
                main
            }
            (newcomer, main) => newcomer.or(main)?,
        };
        lists.take(victim);
        Some(victim)
    }
}

/// How many of `n_main` are for the protected.
fn protected(n_main: u32) -> u32 {
    ((u64::from(n_main) * 4 / 5) as u32).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::testing::replay;

    /// The window has room for one of the four. `e`, used three times, beats `b`; others do not.
    #[test]
    fn a_newcomer_must_beat_the_next_victim() {
        assert_eq!(replay("tinylfu", 4, "abcdaaefeegh"), "++++..cd..fb");
    }

    #[test]
    fn counts_saturate_and_are_halved() {
        let mut policy = TinyLfu::new(&Shape::uniform(1, 3));
        policy.n_slots = 4;
        policy.prime(&Prior {
            frequency: &[0.25, 0.5, 1.0],
            n_tokens: 24.0,
        });
        assert_eq!(policy.count, [6.0, 12.0, COUNT_MAX]);
        let event = Event {
            layer: 0,
            n_tokens: 8,
            experts: &[0, 1],
            rows: &[1, 7],
            ..Event::default()
        };
        for expected in [
            [7.0, 15.0],
            [8.0, 15.0],
            [9.0, 15.0],
            [10.0, 15.0],
            [5.0, 7.0],
        ] {
            policy.route(&event, 0);
            assert_eq!(policy.count[..2], expected);
        }
    }
}
