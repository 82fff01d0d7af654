//! Tokens that may be taken back: drafts that wait to be verified.
//!
//! A batch that verifies drafts asks for the output of every token, and what comes after a rejected
//! one is dropped from the context's memory. All its experts are computed, so all are planned; but
//! the policy, the tracker and the recent events hear only of the tokens that are sure. What the others picked
//! is kept until the layer's next event of the same context, and learnt before it, without the tokens
//! that were dropped or are computed again.

use crate::expert::{Event, Picked, Spot};
use crate::trace::Picks;
use std::collections::HashMap;

/// A token of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Token {
    /// Its sequence.
    pub seq: i32,
    /// Its position.
    pub pos: i32,
    /// Whether its output is asked for.
    pub is_output: bool,
}

impl Token {
    fn spot(&self) -> Spot {
        Spot {
            seq: self.seq as u32,
            pos: self.pos as u32,
        }
    }
}

/// What a batch has of a sequence.
struct Sequence {
    n_tokens: u32,
    begins: bool,
}

impl Sequence {
    /// The sequences of `tokens`.
    fn of(tokens: &[Token]) -> HashMap<i32, Self> {
        let mut sequences = HashMap::new();
        for token in tokens {
            let sequence = sequences.entry(token.seq).or_insert(Self {
                n_tokens: 0,
                begins: token.pos == 0,
            });
            sequence.n_tokens += 1;
        }
        sequences
    }

    /// Whether it is read and not generated, whatever outputs are asked for.
    fn is_read(&self) -> bool {
        self.begins && self.n_tokens > 1 || self.n_tokens > Event::DECODE_TOKENS_MAX
    }
}

/// Whether no more of `tokens` are of prompts than a decode may have.
fn is_generated<'a>(tokens: impl Iterator<Item = &'a Token> + Clone, is_read: impl Fn(&Token) -> bool) -> bool {
    const N_MAX: usize = Event::DECODE_TOKENS_MAX as usize;
    tokens.filter(|t| !t.is_output || is_read(t)).nth(N_MAX).is_none()
}

/// What a thread computes.
#[derive(Debug, Default)]
pub struct Batch {
    memory: usize,
    tokens: Vec<Token>,
    /// What each is in the vocabulary; empty if that is not known.
    ids: Vec<i32>,
    /// Whether each token is sure; empty if all are.
    sure: Vec<bool>,
    /// Where its tokens are, and where those with output are; empty if it is a prefill.
    spots: [Vec<Spot>; 2],
    is_aside: bool,
    is_trial: bool,
}

impl Batch {
    /// Begins a batch of `tokens` for the context whose memory is known as `memory`.
    ///
    /// A token is of a prompt if its output is not asked for, and so is all of a sequence that begins in the batch or
    /// has more than [`Event::DECODE_TOKENS_MAX`] tokens in it: of what is embedded or scored all outputs are asked for.
    /// More than so many tokens of prompts are a prefill.
    ///
    /// A token is not sure if the one before it in its sequence is in the batch too, and its output is
    /// asked for: whoever asks will say what should have followed. A prompt asks for its last output
    /// only, and no prefill verifies drafts. Without a memory, 0, nothing can be taken back.
    pub fn begin(&mut self, memory: usize, tokens: impl Iterator<Item = Token>) {
        self.memory = memory;
        self.is_aside = false;
        self.tokens.clear();
        self.ids.clear();
        self.tokens.extend(tokens);
        self.sure.clear();
        self.spots.iter_mut().for_each(Vec::clear);
        let sequences = Sequence::of(&self.tokens);
        let is_read = |t: &Token| sequences[&t.seq].is_read();
        let outputs = |t: &&Token| t.is_output;
        if is_generated(self.tokens.iter(), is_read) {
            self.spots[0].extend(self.tokens.iter().map(Token::spot));
        }
        if is_generated(self.tokens.iter().filter(outputs), is_read) {
            self.spots[1].extend(self.tokens.iter().filter(outputs).map(Token::spot));
        }
        if memory == 0 || self.spots[0].is_empty() {
            return;
        }
        let mut last = HashMap::new();
        for token in &self.tokens {
            let before = last.insert(token.seq, token.is_output);
            self.sure.push(before != Some(true) || is_read(token));
        }
        if !self.sure.contains(&false) {
            self.sure.clear();
        }
    }

    /// Says what each of its tokens is in the vocabulary.
    pub fn name(&mut self, ids: impl Iterator<Item = i32>) {
        self.ids.clear();
        self.ids.extend(ids);
    }

    /// What each of its tokens is in the vocabulary; empty if that is not known.
    pub fn ids(&self) -> &[i32] {
        &self.ids
    }

    /// The memory of its context; 0 if there is none.
    pub fn memory(&self) -> usize {
        self.memory
    }

    /// The tokens of an event and whether each is sure; `None` if all are.
    ///
    /// An event is of all tokens or, in the last layer, of those with output. If it is neither, there
    /// is no telling which they are.
    fn rows(&self, n_tokens: u32) -> Option<impl Iterator<Item = (Token, bool)>> {
        let n_tokens = n_tokens as usize;
        let has_all = n_tokens == self.tokens.len();
        let n_outputs = self.tokens.iter().filter(|t| t.is_output).count();
        let is_known = !self.sure.is_empty() && (has_all || n_tokens == n_outputs);
        let tokens = self.tokens.iter().copied().zip(self.sure.iter().copied());
        is_known.then(|| tokens.filter(move |(t, _)| has_all || t.is_output))
    }

    /// Where the tokens of an event of so many are, see [`Event::sequences`].
    pub fn spots(&self, n_tokens: u32) -> &[Spot] {
        let n_tokens = n_tokens as usize;
        let [all, outputs] = &self.spots;
        match (n_tokens == self.tokens.len(), n_tokens == outputs.len()) {
            (true, _) => all,
            (false, true) => outputs,
            (false, false) => &[],
        }
    }

    /// Whether an event of so many of its tokens is a prefill.
    pub fn is_prefill(&self, n_tokens: u32) -> bool {
        n_tokens > Event::DECODE_TOKENS_MAX && self.spots(n_tokens).is_empty()
    }

    /// How many tokens it has.
    pub fn n_tokens(&self) -> usize {
        self.tokens.len()
    }

    /// Experts of each token in an event of `n_ids` ids; a layer uses `n_most` at most. An event is of all tokens or of
    /// those with output.
    pub fn top_k(&self, n_ids: usize, n_most: usize) -> usize {
        let n_outputs = self.tokens.iter().filter(|t| t.is_output).count();
        let counts = [self.tokens.len(), n_outputs];
        if counts.iter().any(|n| n * n_most == n_ids) {
            return n_most;
        }
        let fits = |n: &usize| n_ids.checked_rem(*n) == Some(0) && n_ids / n <= n_most;
        counts.into_iter().find(fits).map_or(n_ids, |n| n_ids / n)
    }

    /// The cache of a device is left aside for this batch.
    pub fn set_aside(&mut self) {
        self.is_aside = true;
    }

    /// Whether [`Self::set_aside`] was called since it began.
    pub fn is_aside(&self) -> bool {
        self.is_aside
    }

    /// From now on batches are trials or not: a program finds out what a context can do. What such a batch picks
    /// is computed, but neither counted, learnt nor recorded.
    pub fn set_trial(&mut self, is_trial: bool) {
        self.is_trial = is_trial;
    }

    /// Whether it is a trial.
    pub fn is_trial(&self) -> bool {
        self.is_trial
    }

    fn has(&self, seq: i32, pos: i32) -> bool {
        self.tokens.iter().any(|t| (t.seq, t.pos) == (seq, pos))
    }
}

/// A token, and its experts by their ranks.
type Row = (Token, Vec<i32>);

/// What the unsure tokens of one event picked. Those of a context that is freed with drafts open, one
/// event of each layer, stay as long as the model.
struct Draft {
    memory: usize,
    layer: usize,
    rows: Vec<Row>,
}

/// What is computed and not yet learnt.
#[derive(Default)]
pub struct Drafts(Vec<Draft>);

/// Tokens of a layer that will stay, and what they picked.
pub struct Sure {
    /// The layer.
    pub layer: usize,
    /// The tokens.
    pub n_tokens: u32,
    /// What they picked.
    pub picked: Picked,
}

impl Drafts {
    /// What the last batch of the same context left open in `layer` and is sure now: call this before
    /// [`Self::sort`] with the same batch.
    pub fn settle(&mut self, layer: usize, batch: &Batch) -> Option<Sure> {
        let is_open = |d: &Draft| d.memory == batch.memory && d.layer == layer;
        let at = self.0.iter().position(is_open)?;
        let mut draft = self.0.swap_remove(at);
        draft.rows.retain(|(t, _)| !batch.has(t.seq, t.pos));
        draft.sure()
    }

    /// The part of an event of `layer` that is sure; the rest is kept. `None` if all of it is.
    pub fn sort(&mut self, layer: usize, picks: Picks, batch: &Batch) -> Option<Sure> {
        let rows = batch.rows(picks.n_tokens())?;
        let rows = rows.zip(picks.rows());
        let (sure, unsure) = rows.partition::<Vec<_>, _>(|((_, is_sure), _)| *is_sure);
        let owned = |rows: Vec<((Token, bool), &[i32])>| -> Vec<Row> {
            rows.into_iter().map(|((token, _), ids)| (token, ids.to_vec())).collect()
        };
        self.0.push(Draft {
            memory: batch.memory,
            layer,
            rows: owned(unsure),
        });
        Some(Sure::of_rows(layer, &owned(sure)))
    }

    /// The tokens of sequence `seq` from `begin` to before `end` are dropped from `memory`. Negative
    /// numbers stand for all sequences, and for no limit.
    pub fn drop_tokens(&mut self, memory: usize, seq: i32, begin: i32, end: i32) {
        let is_dropped =
            |t: &Token| (seq < 0 || t.seq == seq) && t.pos >= begin && (end < 0 || t.pos < end);
        for draft in self.0.iter_mut().filter(|d| d.memory == memory) {
            draft.rows.retain(|(t, _)| !is_dropped(t));
        }
        self.0.retain(|d| !d.rows.is_empty());
    }

    /// What is still open: nothing more will be dropped.
    pub fn settle_all(&mut self) -> impl Iterator<Item = Sure> + use<> {
        std::mem::take(&mut self.0)
            .into_iter()
            .filter_map(Draft::sure)
    }
}

impl Draft {
    /// All of it, if there is anything.
    fn sure(self) -> Option<Sure> {
        (!self.rows.is_empty()).then(|| Sure::of_rows(self.layer, &self.rows))
    }
}

impl Sure {
    fn of_rows(layer: usize, rows: &[Row]) -> Self {
        let ranked = |(_, ids): &Row| (0..).zip(ids.clone()).map(|(rank, id)| (id as u32, rank)).collect::<Vec<_>>();
        let mut picked = Picked::of(&mut rows.iter().flat_map(ranked).collect::<Vec<_>>());
        let spots: Vec<Spot> = rows.iter().map(|(token, _)| token.spot()).collect();
        picked.tokens.set(&spots, rows.iter().map(|(_, ids)| &ids[..]));
        Self {
            layer,
            n_tokens: rows.len() as u32,
            picked,
        }
    }

    /// What is sure of an event of `all` tokens: `sure`, or all of it.
    pub fn of<'a>(sure: &'a Option<Self>, all: Event<'a>) -> Event<'a> {
        sure.as_ref().map_or(all, |sure| sure.event(all.layer))
    }

    /// As an event of the layer that is number `layer`.
    pub fn event(&self, layer: u32) -> Event<'_> {
        self.picked.event(layer, self.n_tokens)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(tokens: &[(i32, i32, bool)]) -> Batch {
        let tokens = tokens.iter().map(|&(seq, pos, is_output)| Token {
            seq,
            pos,
            is_output,
        });
        let mut batch = Batch::default();
        batch.begin(1, tokens);
        batch
    }

    fn sure(batch: &Batch, n_tokens: u32) -> Option<Vec<bool>> {
        let rows = batch.rows(n_tokens)?;
        Some(rows.map(|(_, is_sure)| is_sure).collect())
    }

    #[test]
    fn what_follows_an_output_in_its_sequence_is_not_sure() {
        // Three drafts of one sequence, a token of another, the end of a prompt of a third.
        let mixed = batch(&[
            (0, 7, true),
            (0, 8, true),
            (1, 3, true),
            (0, 9, true),
            (2, 4, false),
            (2, 5, true),
        ]);
        let all = [true, false, true, false, true, true];
        assert_eq!(sure(&mixed, 6).as_deref(), Some(&all[..]));
        // The last layer, without the token that has no output.
        let outputs = [true, false, true, false, true];
        assert_eq!(sure(&mixed, 5).as_deref(), Some(&outputs[..]));
        assert_eq!(sure(&mixed, 4), None, "of tokens that are not known");
    }

    #[test]
    fn prompts_and_parallel_sequences_are_sure() {
        let prompt: Vec<_> = (0..20).map(|pos| (0, pos, pos == 19)).collect();
        let scored: Vec<_> = (0..33).map(|pos| (0, pos, true)).collect();
        let parallel: Vec<_> = (0..8).map(|seq| (seq, 40, true)).collect();
        for tokens in [prompt, scored, parallel] {
            assert_eq!(sure(&batch(&tokens), tokens.len() as u32), None);
        }
    }

    /// Tokens of sequences from `first` on, of each as many from position `pos` on, all with output.
    fn side_by_side(first: i32, n_sequences: i32, pos: i32, n_each: i32) -> Vec<(i32, i32, bool)> {
        let of_sequence = |seq| (pos..pos + n_each).map(move |pos| (seq, pos, true));
        (first..first + n_sequences).flat_map(of_sequence).collect()
    }

    #[test]
    fn what_is_generated_is_told_from_what_is_read() {
        let read = |tokens: &[(i32, i32, bool)], n_tokens: usize| {
            let batch = batch(tokens);
            let n_spots = batch.spots(n_tokens as u32).len();
            assert!(n_spots == n_tokens || n_spots == 0);
            assert_eq!(n_spots == 0, batch.is_prefill(n_tokens as u32));
            n_spots == 0
        };
        // Sequences side by side, with drafts, and with the end of a short prompt.
        assert!(!read(&side_by_side(0, 64, 9, 1), 64));
        assert!(!read(&side_by_side(0, 16, 9, 5), 80));
        let prompt = |n_tokens| (0..n_tokens).map(|pos| (99, pos, pos == n_tokens - 1)).collect::<Vec<_>>();
        assert!(!read(&[side_by_side(0, 48, 9, 1), prompt(32)].concat(), 80));
        // A longer one, of which the last layer computes the end alone.
        let mixed = [side_by_side(0, 48, 9, 1), prompt(400)].concat();
        assert!(read(&mixed, 448));
        assert!(!read(&mixed, 49));
        // Texts to embed or to rank, and a chunk of a text of which all is scored.
        assert!(read(&side_by_side(0, 4, 0, 20), 80));
        assert!(read(&side_by_side(0, 1, 512, 512), 512));
        // Who does not know the batch says nothing.
        assert!(Batch::default().is_prefill(33) && !Batch::default().is_prefill(32));
    }

    #[test]
    fn drafts_of_many_sequences_are_not_sure_and_what_is_embedded_is() {
        let drafts = sure(&batch(&side_by_side(0, 16, 9, 5)), 80).unwrap();
        assert!(drafts.chunks(5).all(|own| own == [true, false, false, false, false]));
        assert_eq!(sure(&batch(&side_by_side(0, 2, 0, 10)), 20), None);
    }
}
