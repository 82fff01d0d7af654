//! The histories of sequences that are generated side by side.
//!
//! Tokens of different sequences do not follow each other, so each sequence has a history of its own, up to
//! [`N_MAX`] of them. One that is new goes on with the history that was used longest ago and is of no sequence
//! of the event: so who serves one request after the other has one history, whatever sequences these are.

use super::history::{History, Memory};
use crate::expert::{Event, Spot};
use std::cmp::Reverse;
use std::ops::Range;

/// Most of them: beyond that, what many sequences pick together is told by frequencies.
const N_MAX: usize = 8;

/// At least one history.
pub(super) struct Histories {
    all: Vec<Own>,
    /// Those of the sequences of the last event.
    current: Vec<usize>,
    /// What a history is made of.
    rows: Vec<Range<usize>>,
    top_k: usize,
    memory: Memory,
    discount: f32,
    n_events: u64,
}

struct Own {
    /// The sequence, once that is known.
    seq: Option<u32>,
    history: History,
    /// The number of the last event of the sequence.
    used: u64,
}

impl Histories {
    /// One, of no sequence yet. Arguments as of [`History::new`].
    pub(super) fn new(rows: &[Range<usize>], top_k: usize, memory: Memory, discount: f32) -> Self {
        let mut histories = Self {
            all: Vec::new(),
            current: vec![0],
            rows: rows.to_vec(),
            top_k,
            memory,
            discount,
            n_events: 0,
        };
        histories.begin();
        histories
    }

    fn begin(&mut self) -> usize {
        let mut history = History::new(&self.rows, self.top_k, self.memory);
        history.set_discount(self.discount);
        self.all.push(Own {
            seq: None,
            history,
            used: 0,
        });
        self.all.len() - 1
    }

    /// See [`History::set_discount`].
    pub(super) fn set_discount(&mut self, discount: f32) {
        self.discount = discount;
        for own in &mut self.all {
            own.history.set_discount(discount);
        }
    }

    /// The tokens of `event` picked experts. Finds for each of its sequences the `n_analogs` earlier tokens most
    /// like its latest.
    #[inline(always)]
    pub(super) fn note(&mut self, event: &Event, n_analogs: usize) {
        self.n_events += 1;
        let is_told = event.n_tokens == 1 || !event.picks.is_empty();
        if is_told && !event.sequences.is_empty() {
            self.note_tokens(event);
        } else {
            self.note_one(event);
        }
        for &at in &self.current {
            self.all[at].history.find_analogs(n_analogs);
        }
    }

    /// Which token picked what is not known: it is taken for one token, of the sequence heard of last. A token that is
    /// alone is of the first one, as traces have it.
    #[inline(always)]
    fn note_one(&mut self, event: &Event) {
        self.current.truncate(1);
        if event.n_tokens == 1 {
            let first = self.of(0);
            self.current.clear();
            self.current.extend(first);
        }
        if self.current.is_empty() {
            self.current.push(0);
        }
        let own = &mut self.all[self.current[0]];
        own.used = self.n_events;
        if event.n_tokens == 1 || event.experts.len() <= self.top_k {
            own.history.note(event.layer, None, event.experts);
            return;
        }
        let mut order: Vec<usize> = (0..event.experts.len()).collect();
        order.sort_by_key(|&i| (Reverse(event.rows[i]), event.ranks.get(i)));
        let best = order[..self.top_k].iter().map(|&i| event.experts[i]);
        own.history
            .note(event.layer, None, &best.collect::<Vec<_>>());
    }

    #[inline(always)]
    fn note_tokens(&mut self, event: &Event) {
        // What a sequence of the event has is taken by no other.
        for own in &mut self.all {
            if own.seq.is_some_and(|seq| event.sequences.contains(&seq)) {
                own.used = self.n_events;
            }
        }
        self.current.clear();
        for (Spot { seq, pos }, experts) in event.tokens() {
            let Some(at) = self.of(seq) else { continue };
            self.all[at].history.note(event.layer, Some(pos), experts);
            if !self.current.contains(&at) {
                self.current.push(at);
            }
        }
    }

    /// The history of a sequence of the event, unless there are too many.
    #[inline(always)]
    fn of(&mut self, seq: u32) -> Option<usize> {
        let known = self.all.iter().position(|own| own.seq == Some(seq));
        if known.is_some() {
            return known;
        }
        let idle = (0..self.all.len()).filter(|&at| self.all[at].used < self.n_events);
        let at = match idle.min_by_key(|&at| self.all[at].used) {
            Some(idle) => idle,
            None if self.all.len() < N_MAX => self.begin(),
            None => return None,
        };
        self.all[at].seq = Some(seq);
        self.all[at].used = self.n_events;
        Some(at)
    }

    /// Those of the sequences of the last event that have tokens like the latest.
    #[inline(always)]
    pub(super) fn current(&self) -> impl Iterator<Item = &History> {
        let current = self.current.iter().map(|&at| &self.all[at].history);
        current.filter(|history| history.has_analogs())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const N_EXPERTS: u32 = 8;
    const N_TOKENS: u32 = 100;
    const MEMORY: Memory = Memory {
        n_tokens: 256,
        carried: 4,
    };

    fn rows() -> Vec<Range<usize>> {
        (0..2)
            .map(|layer| layer * N_EXPERTS as usize..(layer + 1) * N_EXPERTS as usize)
            .collect()
    }

    /// What a token picks of a layer: sequences go around in circles of different lengths.
    fn picked(seq: u32, pos: u32, layer: u32) -> [u32; 2] {
        let first = pos % (3 + seq) + layer;
        [first % N_EXPERTS, (first + 3 + seq) % N_EXPERTS]
    }

    fn note(histories: &mut Histories, layer: u32, spots: &[(u32, u32)]) {
        let picks: Vec<u32> = spots
            .iter()
            .flat_map(|&(seq, pos)| picked(seq, pos, layer))
            .collect();
        let mut experts = picks.clone();
        experts.sort_unstable();
        experts.dedup();
        let (sequences, positions): (Vec<u32>, Vec<u32>) = spots.iter().copied().unzip();
        let event = Event {
            layer,
            n_tokens: spots.len() as u32,
            rows: &vec![1; experts.len()],
            experts: &experts,
            sequences: &sequences,
            positions: &positions,
            picks: if spots.len() > 1 { &picks } else { &[] },
            ..Event::default()
        };
        histories.note(&event, 4);
    }

    fn votes(history: &History) -> Vec<Vec<f32>> {
        let of_layer = |layer| {
            let mut votes = vec![0.0; N_EXPERTS as usize];
            history.vote(layer, &mut votes);
            votes
        };
        (0..2).map(of_layer).collect()
    }

    fn new() -> Histories {
        Histories::new(&rows(), 2, MEMORY, 0.5)
    }

    /// Sequences side by side, in any order, against each of them alone.
    #[test]
    fn sequences_do_not_mix() {
        let mut both = new();
        let mut alone = [new(), new(), new()];
        for pos in 0..N_TOKENS {
            for layer in 0..2 {
                let mut spots = [(0, pos), (1, pos), (2, pos)];
                spots.rotate_left(pos as usize % 3);
                note(&mut both, layer, &spots);
                alone
                    .iter_mut()
                    .zip(0..)
                    .for_each(|(own, seq)| note(own, layer, &[(seq, pos)]));
            }
        }
        assert_eq!(both.all.len(), 3);
        for own in &both.all {
            let seq = own.seq.unwrap();
            let expected = votes(&alone[seq as usize].all[0].history);
            assert_eq!(votes(&own.history), expected, "sequence {seq}");
            // What it has picked lately says what comes.
            for expert in picked(seq, N_TOKENS, 0) {
                assert!(
                    expected[0][expert as usize] > 0.9,
                    "sequence {seq}: {expected:?}"
                );
            }
        }
    }

    /// Requests one after the other, whatever sequences they are, are as one.
    #[test]
    fn a_sequence_that_is_alone_goes_on_with_what_there_is() {
        let mut histories = new();
        for pos in 0..N_TOKENS {
            (0..2).for_each(|layer| note(&mut histories, layer, &[(pos / 20, pos)]));
        }
        assert_eq!(histories.all.len(), 1);
        assert_eq!(histories.all[0].seq, Some(N_TOKENS / 20 - 1));
    }

    /// Of drafts that stay each layer is heard of after the same layer of what follows them, and before the next one.
    #[test]
    fn drafts_are_noted_where_they_belong() {
        let (mut late, mut in_order) = (new(), new());
        for pos in (0..N_TOKENS).step_by(4) {
            for layer in 0..2 {
                if pos > 0 {
                    note(
                        &mut late,
                        layer,
                        &[(0, pos - 3), (0, pos - 2), (0, pos - 1)],
                    );
                }
                note(&mut late, layer, &[(0, pos)]);
            }
        }
        for pos in 0..=N_TOKENS - 4 {
            (0..2).for_each(|layer| note(&mut in_order, layer, &[(0, pos)]));
        }
        let [late, in_order] =
            [late, in_order].map(|histories| histories.all.into_iter().next().unwrap().history);
        assert!(late.remembers_as(&in_order));
    }

    #[test]
    fn more_sequences_than_histories() {
        let mut histories = new();
        for pos in 0..4 {
            let spots: Vec<_> = (0..3 * N_MAX as u32).map(|seq| (seq, pos)).collect();
            (0..2).for_each(|layer| note(&mut histories, layer, &spots));
        }
        let known: Vec<_> = histories.all.iter().map(|own| own.seq.unwrap()).collect();
        assert_eq!(known, (0..N_MAX as u32).collect::<Vec<_>>());
    }
}
