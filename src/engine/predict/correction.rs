//! What an earlier layer's view of a router lacks: a linear map from its features to what is to be added to the scores.
//!
//! Learnt by normalised least mean squares, a step for each token: half of what was missing is added in the direction
//! of the token's features. From little text it learns much of a large map, because it begins at nothing.

use super::product::Product;

/// Part of an error that is taken away at once.
const RATE: f32 = 0.5;
/// The same for what is always missing, after the first tokens.
const BIAS_RATE: f32 = 0.01;

/// The correction of one layer's scores, as an earlier one sees them.
#[derive(Default)]
pub(super) struct Correction {
    /// A row for each expert; empty until something was learnt.
    rows: Vec<f32>,
    bias: Vec<f32>,
    n_learnt: u32,
    wanted: Vec<f32>,
}

impl Correction {
    /// Adds to `scores` what is missing.
    pub fn correct(&self, product: Product, features: &[f32], scores: &mut [f32]) {
        if self.rows.is_empty() {
            return;
        }
        product.multiply_add(&self.rows, features, scores);
        for (score, bias) in scores.iter_mut().zip(&self.bias) {
            *score += bias;
        }
    }

    /// Scores that were seen as `early` from these features, the sum of whose squares is `square`, turned out to be
    /// `scores`. Nothing is learnt if anything is no number.
    pub fn learn(&mut self, product: Product, features: &[f32], square: f32, early: &[f32], scores: &[f32]) {
        let n_experts = scores.len();
        self.bias.resize(n_experts, 0.0);
        self.wanted.clear();
        let missing = scores.iter().zip(early).zip(&self.bias);
        self.wanted.extend(missing.map(|((score, early), bias)| score - early - bias));
        if !(self.wanted.iter().sum::<f32>() + square).is_finite() {
            return;
        }
        self.rows.resize(n_experts * features.len(), 0.0);
        let scale = 1.0 / (square + 1.0);
        product.approach(&mut self.rows, features, &self.wanted, RATE, scale);
        self.n_learnt = self.n_learnt.saturating_add(1);
        let rate = (1.0 / self.n_learnt as f32).max(BIAS_RATE);
        for (bias, wanted) in self.bias.iter_mut().zip(&self.wanted) {
            *bias += rate * wanted;
        }
    }
}
