//! What other policies would have done on the latest routing of a run.
//!
//! The routing of a window is replayed with `lru`, with the active policy and with the offline optimum,
//! all from an empty cache of the size that the run has. If the window is the whole run, that is how
//! the run began. If not, the run's cache was full when the window began: then the first half of the
//! window only fills the three caches, and the hits of the second half count.
//!
//! The optimum may begin the second half with any experts that the first half has picked: no cache
//! that was filled by the first half holds others. So it bounds the hits of every policy there.

use crate::error::Result;
use crate::expert::{Event, Shape};
use crate::recent_events::RecentEvents;
use crate::replay::{Replay, belady};
use crate::trace::PoolSpec;
use serde::Serialize;

/// The latest routing of one pool.
pub struct Lookback {
    /// The pool's layers.
    pub shape: Shape,
    /// Its size.
    pub n_slots: u32,
    /// Another size, larger than that, for the active policy to try.
    pub n_slots_more: Option<u32>,
    /// The events. Those that it has dropped, or that were left out, say whether it is the whole run.
    pub recent: RecentEvents,
}

/// Hits of other policies on the latest routing of a run, see the head of this file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Hindsight {
    /// Experts routed whose hits are counted.
    pub picks: u64,
    /// Experts routed before, which only filled the caches; 0 if the window is the whole run.
    pub warm_picks: u64,
    /// Whether the window is the whole run.
    pub is_whole_run: bool,
    /// Hits of the active policy.
    pub active_hits: u64,
    /// The same with more memory, where that was asked for.
    pub more_hits: Option<u64>,
    /// Hits of `lru`.
    pub lru_hits: u64,
    /// Hits of the offline optimum.
    pub belady_hits: u64,
}

const FITS: &str = "recent events are of its pool's shape, and the policy is active";

impl Hindsight {
    /// The hits in `windows`, which cover the same time, together. Takes a second per million picks,
    /// or so. Panics if there is no policy called `policy`.
    pub fn of(windows: &[Lookback], policy: &str) -> Self {
        let mut hindsight = Self {
            is_whole_run: windows.iter().all(|w| w.recent.n_events_dropped() == 0),
            ..Self::default()
        };
        for window in windows {
            let n_warm = window.n_warm(hindsight.is_whole_run);
            let picks = |e: Event| e.experts.len() as u64;
            hindsight.warm_picks += window.recent.iter().take(n_warm).map(picks).sum::<u64>();
            hindsight.picks += window.recent.iter().skip(n_warm).map(picks).sum::<u64>();
            hindsight.active_hits += window.hits(n_warm, policy, window.n_slots);
            if let Some(n_slots) = window.n_slots_more {
                *hindsight.more_hits.get_or_insert(0) += window.hits(n_warm, policy, n_slots);
            }
            hindsight.lru_hits += window.hits(n_warm, "lru", window.n_slots);
            hindsight.belady_hits += window.most_hits(n_warm);
        }
        hindsight
    }
}

impl Lookback {
    /// How many events hold half of the picks, or just less.
    fn n_events_of_first_half(&self) -> usize {
        let mut n_picks = 0;
        let is_in_half = |event: &Event| {
            n_picks += event.experts.len();
            n_picks <= self.recent.n_picks() / 2
        };
        self.recent.iter().take_while(is_in_half).count()
    }

    /// The first events that only fill caches, where windows of the same time are the whole run or are not.
    pub fn n_warm(&self, is_whole_run: bool) -> usize {
        match is_whole_run {
            true => 0,
            false => self.n_events_of_first_half(),
        }
    }

    /// The events after the first `n_warm` ones, with the hits of a policy with `n_slots`. Fails if there is none of this
    /// name.
    pub fn replayed(
        &self,
        n_warm: usize,
        policy: &str,
        n_slots: u32,
    ) -> Result<impl Iterator<Item = (Event<'_>, u64)>> {
        let pool = PoolSpec {
            layers: (0..self.shape.n_layers()).collect(),
            n_slots,
            preloaded: false,
            device: false,
        };
        let mut replay = Replay::new(&self.shape, &[pool], policy, None)?;
        let hits = replay.run(self.recent.iter())?;
        let both = self.recent.iter().zip(hits).skip(n_warm);
        Ok(both.map(|(event, n)| (event, u64::from(n))))
    }

    /// Hits of a policy with `n_slots` after the first `n_warm` events.
    fn hits(&self, n_warm: usize, policy: &str, n_slots: u32) -> u64 {
        let replayed = self.replayed(n_warm, policy, n_slots).expect(FITS);
        replayed.map(|(_, hits)| hits).sum()
    }

    /// The most hits that there can be after the first `n_warm` events. Those are replaced by one
    /// prompt per layer that picks the same experts: nothing of it hits, and the optimum keeps of it
    /// what it likes.
    fn most_hits(&self, n_warm: usize) -> u64 {
        let picked = self.experts_of_first(n_warm);
        let ones = vec![1; picked.iter().map(Vec::len).max().unwrap_or(0)];
        let prompts = (0..).zip(&picked).map(|(layer, experts)| Event {
            layer,
            n_tokens: Event::DECODE_TOKENS_MAX + 1,
            experts,
            rows: &ones[..experts.len()],
            ..Event::default()
        });
        let events = prompts.chain(self.recent.iter().skip(n_warm));
        let counts = belady(events, &self.shape, self.n_slots);
        counts.expect(FITS).hits()
    }

    /// The experts that the first `n_events` events pick, by layer, ascending.
    fn experts_of_first(&self, n_events: usize) -> Vec<Vec<u32>> {
        let layers = 0..self.shape.n_layers();
        let mut is_picked: Vec<Vec<bool>> = layers
            .map(|layer| vec![false; self.shape.n_experts(layer) as usize])
            .collect();
        for event in self.recent.iter().take(n_events) {
            for &expert in event.experts {
                is_picked[event.layer as usize][expert as usize] = true;
            }
        }
        let picked = |layer: Vec<bool>| (0..).zip(layer).filter(|e| e.1).map(|e| e.0).collect();
        is_picked.into_iter().map(picked).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{self, REGISTRY};
    use crate::residency::{Buffers, Residency};

    fn one<'a>(layer: u32, experts: &'a [u32]) -> Event<'a> {
        Event {
            layer,
            n_tokens: 1,
            experts,
            rows: &[1, 1, 1][..experts.len()],
            ..Event::default()
        }
    }

    /// Two layers of ten experts; low ones are hot, and one pick in three is of a hot one.
    fn window(n_slots: u32, n_events: u32, n_picks_max: usize) -> Lookback {
        let mut recent = RecentEvents::new(n_picks_max);
        let mut state = 7u64;
        let mut below = |limit: u32| {
            state = state
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            ((state >> 33) % u64::from(limit)) as u32
        };
        for i in 0..n_events {
            let range = if below(3) == 0 { 3 } else { 10 };
            let mut experts = [below(range), below(10), below(10)].to_vec();
            experts.sort_unstable();
            experts.dedup();
            recent.push(&one(i % 2, &experts));
        }
        Lookback {
            shape: Shape::uniform(2, 10),
            n_slots,
            n_slots_more: None,
            recent,
        }
    }

    /// Hits of the policy, and picks, after the first `n_warm` events.
    fn obvious(window: &Lookback, n_warm: usize, name: &str) -> (u64, u64) {
        let policy = policy::by_name(name, &window.shape).unwrap();
        let mut residency = Residency::new(window.shape.clone(), window.n_slots, policy);
        let mut buffers = Buffers::default();
        let (mut n_hits, mut n_picks) = (0, 0);
        for (i, event) in window.recent.iter().enumerate() {
            let planned = residency.plan(&event, buffers).unwrap();
            if i >= n_warm {
                n_hits += planned.hits.len() as u64;
                n_picks += event.experts.len() as u64;
            }
            let committed = residency.commit(planned);
            buffers = residency.release(committed);
        }
        (n_hits, n_picks)
    }

    #[test]
    fn a_whole_run_counts_from_its_start() {
        let windows = [window(5, 300, 2000), window(9, 200, 2000)];
        let of = |name| windows.iter().map(|w| obvious(w, 0, name).0).sum::<u64>();
        let best = |w: &Lookback| belady(w.recent.iter(), &w.shape, w.n_slots).unwrap().hits();
        let hindsight = Hindsight::of(&windows, "lfu");
        let expected = Hindsight {
            picks: windows.iter().map(|w| w.recent.n_picks() as u64).sum(),
            warm_picks: 0,
            is_whole_run: true,
            active_hits: of("lfu"),
            more_hits: None,
            lru_hits: of("lru"),
            belady_hits: windows.iter().map(best).sum(),
        };
        assert_eq!(hindsight, expected);
        assert!(hindsight.lru_hits < hindsight.belady_hits, "{hindsight:?}");
    }

    #[test]
    fn of_a_part_of_a_run_the_second_half_counts() {
        for n_slots in [0, 1, 3, 8, 15] {
            let window = window(n_slots, 500, 400);
            let mut n_picks = 0;
            let n_warm = window.recent.iter().take_while(|event| {
                n_picks += event.experts.len();
                n_picks <= window.recent.n_picks() / 2
            });
            let n_warm = n_warm.count();
            let lru = obvious(&window, n_warm, "lru");
            for spec in REGISTRY {
                let (active_hits, picks) = obvious(&window, n_warm, spec.name);
                let window = [Lookback {
                    shape: window.shape.clone(),
                    recent: window.recent.tail(400),
                    n_slots,
                    n_slots_more: Some(n_slots + 2),
                }];
                let hindsight = Hindsight::of(&window, spec.name);
                assert!(!hindsight.is_whole_run);
                assert_eq!(
                    (hindsight.active_hits, hindsight.picks),
                    (active_hits, picks)
                );
                assert_eq!((hindsight.lru_hits, hindsight.picks), lru);
                let more = obvious(&self::window(n_slots + 2, 500, 400), n_warm, spec.name);
                assert_eq!(hindsight.more_hits, Some(more.0));
                let n_all = hindsight.warm_picks + hindsight.picks;
                assert_eq!(n_all, window[0].recent.n_picks() as u64);
                assert!((190..=200).contains(&hindsight.warm_picks), "{hindsight:?}");
                assert!(hindsight.belady_hits >= active_hits, "{hindsight:?}");
            }
        }
    }

    /// Two slots and 0 1 2 1 | 0 1 0 1. The optimum of the whole lets 0 go for 2, to hit 1 in the
    /// first half. That does not count: with 0 kept everything that counts is a hit.
    #[test]
    fn the_optimum_fills_its_cache_for_what_counts() {
        let mut recent = RecentEvents::new(8);
        for expert in [3, 0, 1, 2, 1, 0, 1, 0, 1] {
            recent.push(&one(0, &[expert]));
        }
        let shape = Shape::uniform(1, 4);
        let windows = [Lookback {
            shape,
            n_slots: 2,
            n_slots_more: None,
            recent,
        }];
        let hindsight = Hindsight::of(&windows, "lru");
        assert_eq!((hindsight.picks, hindsight.warm_picks), (4, 4));
        assert_eq!((hindsight.lru_hits, hindsight.belady_hits), (3, 4));
    }

    #[test]
    fn nothing_picked_has_no_hindsight() {
        let hindsight = Hindsight::of(&[window(3, 0, 10)], "lru");
        assert_eq!((hindsight.picks, hindsight.belady_hits), (0, 0));
    }
}
