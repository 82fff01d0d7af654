//! How likely a guess is right, learnt from those before: a logistic regression for each layer.
//!
//! The rate of each weight falls with what it has learnt: Duchi, Hazan and Singer, "Adaptive
//! Subgradient Methods for Online Learning and Stochastic Optimization", 2011.

/// How far a guess is from being a close call: its score less that of the best expert that is not
/// guessed, in standard deviations of all scores of the layer.
pub(super) type Lead = f32;

/// The first step of a weight, in log odds.
const RATE: f32 = 1.0;
/// What a layer begins with: all are taken for right until some were wrong.
const START: Weights = Weights {
    values: [0.5, 1.0],
    squares: [1.0, 1.0],
};

/// Of 1 and the lead.
#[derive(Clone, Copy)]
struct Weights {
    values: [f32; 2],
    /// Sums of the squares of their gradients.
    squares: [f32; 2],
}

/// The odds of the guesses of each layer.
#[derive(Default)]
pub(super) struct Odds {
    layers: Vec<Weights>,
}

impl Odds {
    /// The chance that a guess of `layer` with this lead is right, 0 to 1.
    pub fn chance(&self, layer: usize, lead: Lead) -> f32 {
        let weights = self.layers.get(layer).unwrap_or(&START);
        let log_odds = weights.values[0] + weights.values[1] * lead;
        1.0 / (1.0 + (-log_odds).exp())
    }

    /// Such a guess turned out right or wrong. Of a lead that is no number nothing is learnt: it would stay for ever.
    pub fn learn(&mut self, layer: usize, lead: Lead, is_right: bool) {
        if !lead.is_finite() {
            return;
        }
        let error = f32::from(u8::from(is_right)) - self.chance(layer, lead);
        if self.layers.len() <= layer {
            self.layers.resize(layer + 1, START);
        }
        let Weights { values, squares } = &mut self.layers[layer];
        for ((value, square), input) in values.iter_mut().zip(squares).zip([1.0, lead]) {
            let gradient = error * input;
            *square += gradient * gradient;
            *value += RATE * gradient / square.sqrt();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Guesses that are right with a chance of `1 / (1 + exp(middle - slope * lead))`, evenly spread.
    fn learn_from(odds: &mut Odds, layer: usize, middle: f32, slope: f32) {
        for n in 0..4000 {
            let spread = |step: f32| (n as f32 * step).fract();
            let lead = 3.0 * spread(0.618_034);
            let chance = 1.0 / (1.0 + (middle - slope * lead).exp());
            odds.learn(layer, lead, spread(0.754_877_7) < chance);
        }
    }

    #[test]
    fn each_layer_learns_its_own_chances() {
        let mut odds = Odds::default();
        learn_from(&mut odds, 3, 2.0, 2.0);
        learn_from(&mut odds, 1, -1.0, 0.0);
        for lead in [0.1, 1.0, 2.5] {
            let expected = 1.0 / (1.0 + f32::exp(2.0 - 2.0 * lead));
            let chance = odds.chance(3, lead);
            assert!(
                (chance - expected).abs() < 0.07,
                "{lead}: {chance} {expected}"
            );
            let chance = odds.chance(1, lead);
            assert!((chance - 0.731).abs() < 0.07, "{lead}: {chance}");
            assert_eq!(odds.chance(2, lead), odds.chance(9, lead));
        }
    }

    #[test]
    fn what_is_no_number_teaches_nothing() {
        let mut odds = Odds::default();
        learn_from(&mut odds, 0, 2.0, 2.0);
        let before = odds.chance(0, 1.0);
        for lead in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            odds.learn(0, lead, true);
            odds.learn(0, lead, false);
        }
        assert_eq!(odds.chance(0, 1.0), before);
    }

    #[test]
    fn what_changes_is_learnt_again() {
        let mut odds = Odds::default();
        for (n, is_right) in [(300, true), (300, false), (300, true)] {
            (0..n).for_each(|_| odds.learn(0, 1.0, is_right));
            assert_eq!(odds.chance(0, 1.0) > 0.5, is_right);
        }
    }
}
