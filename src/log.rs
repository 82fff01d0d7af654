//! The latest routing events, kept to be replayed: to say what another policy would have done.

use crate::expert::Event;
use std::collections::VecDeque;

/// A bounded list of events; when it is full the oldest are dropped.
///
/// A pick takes 4 bytes, 4 more unless one token picked each expert, and 4 more where ranks are
/// known; an event takes 16, and all of it twice that until the dropped ones are cleared away.
#[derive(Debug)]
pub struct EventLog {
    n_picks_max: usize,
    n_picks: usize,
    heads: VecDeque<Head>,
    /// The experts of each event, followed by its rows unless all are 1, and by its ranks if they are
    /// known. The first `n_stale` values belong to dropped events.
    values: Vec<u32>,
    n_stale: usize,
    /// As many ones as the longest event has experts.
    ones: Vec<u32>,
    n_events_dropped: u64,
}

#[derive(Debug, Clone, Copy)]
struct Head {
    layer: u32,
    n_tokens: u32,
    n_experts: u32,
    has_rows: bool,
    has_ranks: bool,
}

impl Head {
    fn n_values(&self) -> usize {
        self.n_experts as usize * (1 + usize::from(self.has_rows) + usize::from(self.has_ranks))
    }
}

impl EventLog {
    /// An empty log that keeps at most `n_picks_max` picks; a pick is one expert of one event.
    pub fn new(n_picks_max: usize) -> Self {
        Self {
            n_picks_max,
            n_picks: 0,
            heads: VecDeque::new(),
            values: Vec::new(),
            n_stale: 0,
            ones: Vec::new(),
            n_events_dropped: 0,
        }
    }

    /// Appends `event` and drops the oldest ones, itself included, until the bound holds.
    pub fn push(&mut self, event: &Event) {
        let has_rows = event.rows.iter().any(|&rows| rows != 1);
        self.heads.push_back(Head {
            layer: event.layer,
            n_tokens: event.n_tokens,
            n_experts: event.experts.len() as u32,
            has_rows,
            has_ranks: !event.ranks.is_empty(),
        });
        self.values.extend_from_slice(event.experts);
        if has_rows {
            self.values.extend_from_slice(event.rows);
        } else if self.ones.len() < event.experts.len() {
            self.ones.resize(event.experts.len(), 1);
        }
        self.values.extend_from_slice(event.ranks);
        self.n_picks += event.experts.len();
        while self.n_picks > self.n_picks_max {
            let head = self
                .heads
                .pop_front()
                .expect("there are picks, so there are events");
            self.n_picks -= head.n_experts as usize;
            self.n_stale += head.n_values();
            self.n_events_dropped += 1;
        }
        // Each value is moved at most once per value dropped, so pushing stays O(k).
        if self.n_stale > self.values.len() / 2 {
            self.values.drain(..self.n_stale);
            self.n_stale = 0;
        }
    }

    /// The events kept, oldest first.
    pub fn iter(&self) -> impl Iterator<Item = Event<'_>> {
        let mut start = self.n_stale;
        self.heads.iter().map(move |head| {
            let n_experts = head.n_experts as usize;
            let values = &self.values[start..start + head.n_values()];
            start += head.n_values();
            let (experts, values) = values.split_at(n_experts);
            let (rows, ranks) = match head.has_rows {
                true => values.split_at(n_experts),
                false => (&self.ones[..n_experts], values),
            };
            Event {
                layer: head.layer,
                n_tokens: head.n_tokens,
                experts,
                rows,
                ranks,
            }
        })
    }

    /// A copy of the newest whole events, of at most `n_picks_max` picks together.
    pub fn tail(&self, n_picks_max: usize) -> Self {
        let (mut n_events, mut n_picks, mut n_values) = (0, 0, 0);
        for head in self.heads.iter().rev() {
            if n_picks + head.n_experts as usize > n_picks_max {
                break;
            }
            n_events += 1;
            n_picks += head.n_experts as usize;
            n_values += head.n_values();
        }
        let n_left_out = self.heads.len() - n_events;
        Self {
            n_picks_max,
            n_picks,
            heads: self.heads.range(n_left_out..).copied().collect(),
            values: self.values[self.values.len() - n_values..].to_vec(),
            n_stale: 0,
            ones: self.ones.clone(),
            n_events_dropped: self.n_events_dropped + n_left_out as u64,
        }
    }

    /// Events kept.
    pub fn n_events(&self) -> usize {
        self.heads.len()
    }

    /// The bound.
    pub fn n_picks_max(&self) -> usize {
        self.n_picks_max
    }

    /// Picks kept.
    pub fn n_picks(&self) -> usize {
        self.n_picks
    }

    /// Events that were pushed and are no longer kept.
    pub fn n_events_dropped(&self) -> u64 {
        self.n_events_dropped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Layer, tokens, experts, rows, ranks.
    type Copied = (u32, u32, Vec<u32>, Vec<u32>, Vec<u32>);

    fn copied(log: &EventLog) -> Vec<Copied> {
        let copy = |e: Event| {
            let [experts, rows, ranks] = [e.experts, e.rows, e.ranks].map(<[u32]>::to_vec);
            (e.layer, e.n_tokens, experts, rows, ranks)
        };
        log.iter().map(copy).collect()
    }

    /// Against a list that keeps everything, with events of 0 to 6 picks in a log of 10, which wraps
    /// many times, and of 3, which some events exceed.
    #[test]
    fn keeps_the_newest_whole_events() {
        for n_picks_max in [0, 3, 10] {
            let mut log = EventLog::new(n_picks_max);
            let mut all: Vec<Copied> = Vec::new();
            for i in 0..200u32 {
                let experts: Vec<u32> = (0..(i * 5) % 7).map(|e| e * 3 + i).collect();
                let rows = experts
                    .iter()
                    .map(|e| if i % 3 == 0 { e % 4 + 1 } else { 1 })
                    .collect();
                let ranks = experts
                    .iter()
                    .map(|e| e % 5)
                    .filter(|_| i % 4 < 2)
                    .collect();
                all.push((i % 4, i + 1, experts, rows, ranks));
                let (layer, n_tokens, experts, rows, ranks) = &all[i as usize];
                log.push(&Event {
                    layer: *layer,
                    n_tokens: *n_tokens,
                    experts,
                    rows,
                    ranks,
                });

                let mut n_picks = 0;
                let n_kept = all.iter().rev().take_while(|event| {
                    n_picks += event.2.len();
                    n_picks <= n_picks_max
                });
                // An event without picks takes no room, so the ones at the edge may stay or go.
                let n_kept = n_kept.count();
                let n_events = log.n_events();
                assert!(n_events <= n_kept, "max {n_picks_max} event {i}");
                assert!(
                    all[all.len() - n_kept..all.len() - n_events]
                        .iter()
                        .all(|e| e.2.is_empty())
                );
                let expected = &all[all.len() - n_events..];
                assert_eq!(copied(&log), expected, "max {n_picks_max} event {i}");
                assert_eq!(
                    log.n_picks(),
                    expected.iter().map(|e| e.2.len()).sum::<usize>()
                );
                assert_eq!(log.n_events_dropped(), (all.len() - n_events) as u64);
                assert!(
                    log.values.len() <= 6 * n_picks_max + 18,
                    "dropped values pile up"
                );
            }
        }
    }
    /// A tail is what a smaller log would hold, and can be written to like one.
    #[test]
    fn a_tail_is_a_smaller_log() {
        let mut log = EventLog::new(40);
        for i in 0..100u32 {
            let experts: Vec<u32> = (0..1 + (i * 5) % 7).collect();
            let rows = vec![1 + i % 2; experts.len()];
            let ranks = &rows[..experts.len() * (i as usize / 2 % 2)];
            let event = Event {
                layer: i,
                n_tokens: 2,
                experts: &experts,
                rows: &rows,
                ranks,
            };
            log.push(&event);
            for n_picks_max in [0, 1, 6, 20, 40, 99] {
                let mut tail = log.tail(n_picks_max);
                let all = copied(&log);
                let n = tail.n_events();
                assert_eq!(
                    copied(&tail),
                    all[all.len() - n..],
                    "{n_picks_max}, event {i}"
                );
                let n_picks = |events: &[Copied]| events.iter().map(|e| e.2.len()).sum::<usize>();
                assert_eq!(tail.n_picks(), n_picks(&all[all.len() - n..]));
                assert!(tail.n_picks() <= n_picks_max);
                assert!(n == all.len() || n_picks(&all[all.len() - n - 1..]) > n_picks_max);
                let n_pushed = tail.n_events_dropped() + n as u64;
                assert_eq!(n_pushed, u64::from(i) + 1);
                tail.push(&event);
                assert!(n_picks_max < experts.len() || copied(&tail).last() == all.last());
            }
        }
    }
}
