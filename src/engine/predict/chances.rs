//! How likely an expert is picked: a logistic regression on what is known of it, for each layer and distance.
//!
//! The rate of each weight falls with what it has learnt lately: Duchi, Hazan and Singer, "Adaptive Subgradient Methods
//! for Online Learning and Stochastic Optimization", 2011, with sums that fade.

use super::habits::Habits;

/// What is known of an expert, as numbers.
pub(super) const N_SIGNS: usize = 6;
/// See [`N_SIGNS`].
pub(super) type Signs = [f32; N_SIGNS];

/// How far an expert is from being a close call: half of the way from the last one that would be picked to the next
/// is 0; in standard deviations of all scores of the layer. More is taken for this.
const LEAD_MAX: f32 = 4.0;
/// Log odds beyond are taken for these.
const LOG_ODDS_MAX: f32 = 8.0;
/// The first step of a weight.
const RATE: f32 = 0.5;
/// What is left of a sum after each event.
const FADING: f32 = 0.998;
/// What a layer begins with: what the layers of small models come to.
const START: Signs = [0.0, 2.0, 0.5, 0.3, 0.3, 0.0];

/// Makes `signs` what is known of each expert that has one of `scores`, of which `top_k` will be picked. `earlier`
/// are log odds of the same by an earlier guess, if there was one. False if the scores say nothing.
pub(super) fn read_signs(
    scores: &[f32],
    top_k: usize,
    habits: &Habits,
    earlier: Option<&[f32]>,
    order: &mut Vec<f32>,
    signs: &mut [Signs],
) -> bool {
    let n = scores.len() as f32;
    let mean = scores.iter().sum::<f32>() / n;
    let squares = scores.iter().map(|score| (score - mean) * (score - mean));
    let deviation = (squares.sum::<f32>() / n).sqrt();
    if !deviation.is_normal() || top_k == 0 || top_k >= scores.len() {
        return false;
    }
    order.clear();
    order.extend_from_slice(scores);
    let (above, next, _) = order.select_nth_unstable_by(top_k, |a, b| b.total_cmp(a));
    let last = above.iter().copied().fold(f32::INFINITY, f32::min);
    let bar = 0.5 * (last + *next);
    for (expert, (signs, score)) in signs.iter_mut().zip(scores).enumerate() {
        let lead = ((score - bar) / deviation).clamp(-LEAD_MAX, LEAD_MAX);
        let [few, more] = habits.shares(expert);
        let earlier = earlier.map_or(0.0, |log_odds| log_odds[expert]);
        *signs = [1.0, lead, lead.min(0.0), (few + 0.02).ln() + 2.0, (more + 0.02).ln() + 2.0, earlier];
    }
    true
}

/// The chances of one layer's experts, guessed from one earlier layer.
pub(super) struct Chances {
    weights: Signs,
    /// Sums of the squares of their gradients.
    squares: Signs,
}

impl Default for Chances {
    fn default() -> Self {
        Self {
            weights: START,
            squares: [20.0; N_SIGNS],
        }
    }
}

impl Chances {
    /// The logarithm of how much likelier it is that an expert with these signs is picked than that it is not.
    pub fn log_odds(&self, signs: &Signs) -> f32 {
        let sum: f32 = self.weights.iter().zip(signs).map(|(w, s)| w * s).sum();
        sum.clamp(-LOG_ODDS_MAX, LOG_ODDS_MAX)
    }

    /// Of a token, the experts with these signs were picked or not. Signs are numbers.
    pub fn learn(&mut self, signs: &[Signs], is_picked: impl Fn(usize) -> bool) {
        let mut gradient = [0.0; N_SIGNS];
        for (expert, signs) in signs.iter().enumerate() {
            let error = f32::from(u8::from(is_picked(expert))) - chance(self.log_odds(signs));
            for (sum, sign) in gradient.iter_mut().zip(signs) {
                *sum += error * sign;
            }
        }
        for ((weight, square), gradient) in self.weights.iter_mut().zip(&mut self.squares).zip(gradient) {
            *square = FADING * *square + gradient * gradient;
            *weight += RATE * gradient / square.sqrt();
        }
    }
}

/// The chance that belongs to log odds.
pub(super) fn chance(log_odds: f32) -> f32 {
    1.0 / (1.0 + (-log_odds).exp())
}
