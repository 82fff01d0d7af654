//! Tokens that may be taken back: drafts that wait to be verified.
//!
//! A batch that verifies drafts asks for the output of every token, and what comes after a rejected
//! one is dropped from the context's memory. All its experts are computed, so all are planned; but
//! the policy, the tracker and the recent events hear only of the tokens that are sure. What the others picked
//! is kept until the layer's next event of the same context, and learnt before it, without the tokens
//! that were dropped or are computed again.

use crate::expert::{Event, Picked};
use crate::trace::Picks;

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

/// What a thread computes.
#[derive(Debug, Default)]
pub struct Batch {
    memory: usize,
    tokens: Vec<Token>,
    /// What each is in the vocabulary; empty if that is not known.
    ids: Vec<i32>,
    /// Whether each token is sure; empty if all are.
    sure: Vec<bool>,
    is_aside: bool,
    is_trial: bool,
}

impl Batch {
    /// Begins a batch of `tokens` for the context whose memory is known as `memory`.
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
        if memory == 0 || self.tokens.len() > Event::DECODE_TOKENS_MAX as usize {
            return;
        }
        for (i, token) in self.tokens.iter().enumerate() {
            let mut before = self.tokens[..i].iter().rev();
            let before = before.find(|t| t.seq == token.seq);
            self.sure.push(before.is_none_or(|t| !t.is_output));
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

/// What the unsure tokens of one event picked. Those of a context that is freed with drafts open, one
/// event of each layer, stay as long as the model.
struct Draft {
    memory: usize,
    layer: usize,
    /// Each token with its experts and their ranks.
    rows: Vec<(Token, Vec<(u32, u32)>)>,
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
        let mut sure = Vec::new();
        let mut unsure = Vec::new();
        let mut n_tokens = 0;
        for ((token, is_sure), ids) in rows.zip(picks.rows()) {
            let picks = (0..).zip(ids).map(|(rank, &id)| (id as u32, rank));
            if is_sure {
                n_tokens += 1;
                sure.extend(picks);
            } else {
                unsure.push((token, picks.collect()));
            }
        }
        self.0.push(Draft {
            memory: batch.memory,
            layer,
            rows: unsure,
        });
        let picked = Picked::of(&mut sure);
        Some(Sure {
            layer,
            n_tokens,
            picked,
        })
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
        let n_tokens = self.rows.len() as u32;
        let mut picks: Vec<_> = self.rows.into_iter().flat_map(|(_, p)| p).collect();
        (n_tokens > 0).then(|| Sure {
            layer: self.layer,
            n_tokens,
            picked: Picked::of(&mut picks),
        })
    }
}

impl Sure {
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
}
