//! What is known of the next layer's routing, and what became of it.

use crate::trace::Picks;
use serde::Serialize;

/// Experts of a layer, each with the chance, 0 to 1, that it is picked; the surest first.
pub type Likely = [(u32, f32)];

/// Tells what the next layers will probably pick.
pub trait Foresight: Send + Sync {
    /// The router of `layer` in lane `at` has seen `inputs`: all tokens of a few, or some of a prompt.
    fn see(&mut self, at: usize, layer: usize, inputs: &Inputs);

    /// The experts that the layer `distance` after `layer`, which lane `at` has seen last, will probably pick for any
    /// of its tokens. Of each token it picks `top_k`. Those that are hardly likely are left out, and all of them if
    /// there is nothing to tell.
    fn guess(&mut self, at: usize, layer: usize, distance: usize, top_k: usize) -> &Likely;

    /// In `layer`, `tokens` of the vocabulary have picked `picks`, a row each. This is called for each event whose tokens
    /// are known, also where nothing is guessed.
    fn meet(&mut self, layer: usize, tokens: &[i32], picks: Picks) {
        let _ = (layer, tokens, picks);
    }

    /// The experts that `layer` will probably pick for `tokens`, before any router has run: for the first layers, from
    /// what these tokens picked when they were met.
    fn remember(&mut self, layer: usize, tokens: &[i32]) -> &Likely {
        let _ = (layer, tokens);
        &[]
    }

    /// A profile says how often a token picks each expert of `layer`, 0 to 1, and is worth `n_tokens` of them.
    fn prime(&mut self, layer: usize, frequency: &[f32], n_tokens: f32) {
        let _ = (layer, frequency, n_tokens);
    }

    /// What lane `at` has seen last was `layer`, which picked `picks`; `None` where only some tokens were seen.
    fn learn(&mut self, at: usize, layer: usize, picks: Option<Picks>);
}

/// What the router of an event saw: a row of numbers for each token.
#[derive(Debug, Clone, Copy, Default)]
pub struct Inputs<'a> {
    values: &'a [f32],
    width: usize,
    stride: usize,
}

impl<'a> Inputs<'a> {
    /// Nothing is guessed for events of more tokens: these pick most of a layer.
    pub const N_MAX: usize = 8;
    /// So many tokens are seen of a larger batch, as far apart as can be.
    pub const N_SAMPLED: usize = 16;
    /// And no more than one of so many, so that learning takes a small part of what computing does.
    pub const SAMPLED_STEP: usize = 16;

    /// Rows of `width` numbers, each `stride` after the one before. Panics unless `values` ends with a
    /// whole row.
    pub fn new(values: &'a [f32], width: usize, stride: usize) -> Self {
        assert!(0 < width && width <= stride, "{width} numbers in {stride}");
        assert_eq!(values.len() % stride, width % stride);
        Self {
            values,
            width,
            stride,
        }
    }

    /// The row of each token; none where the inputs are not known.
    pub fn rows(&self) -> impl Iterator<Item = &'a [f32]> {
        let width = self.width;
        let rows = self.values.chunks(self.stride.max(1));
        rows.map(move |row| &row[..width])
    }
}

/// What became of the guesses of a model. Each was an expert that was not resident.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct AheadTally {
    /// Experts that were guessed, whether they were read ahead or not.
    pub guesses: u64,
    /// Of these, the ones that the router picked: `right / guesses` is the precision.
    pub right: u64,
    /// Experts that were to be read ahead.
    pub reads: u64,
    /// Of these, the ones that the router picked.
    pub right_reads: u64,
    /// Of these, the ones that were there when it did.
    pub in_time: u64,
    /// Wrong ones of which nothing was read, because they were recalled before.
    pub recalled: u64,
    /// Bytes read for wrong ones.
    pub wasted_bytes: u64,
    /// What a token took with reading ahead, in milliseconds, when the two were last compared; null if
    /// they were not yet.
    pub token_ms_on: Option<f64>,
    /// The same without reading ahead.
    pub token_ms_off: Option<f64>,
}

impl AheadTally {
    /// What was counted since `before`; the times are those of now.
    pub fn since(self, before: &Self) -> Self {
        Self {
            guesses: self.guesses.saturating_sub(before.guesses),
            right: self.right.saturating_sub(before.right),
            reads: self.reads.saturating_sub(before.reads),
            right_reads: self.right_reads.saturating_sub(before.right_reads),
            in_time: self.in_time.saturating_sub(before.in_time),
            recalled: self.recalled.saturating_sub(before.recalled),
            wasted_bytes: self.wasted_bytes.saturating_sub(before.wasted_bytes),
            ..self
        }
    }
}
