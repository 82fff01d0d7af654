//! How unevenly experts are picked.

use super::counts::LayerCounts;
use libm::log2;
use serde::Serialize;

/// How unevenly the experts of a layer are picked, as the mean over the layers that were used.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Unevenness {
    /// The share of picks that the hottest tenth of a layer's experts got: 0.1 is a flat router, whose
    /// hot experts are no better than others.
    pub hottest_tenth: f64,
    /// The same of its hottest quarter.
    pub hottest_quarter: f64,
    /// The same of its hottest half.
    pub hottest_half: f64,
    /// The entropy of the picks, in bits.
    pub entropy_bits: f64,
    /// What it would be if all experts were picked alike.
    pub flat_bits: f64,
}

impl Unevenness {
    /// The mean over `layers`, of those that were used.
    pub(crate) fn mean(layers: &[LayerCounts]) -> Option<Self> {
        let mut sum = Self::default();
        let mut n_layers = 0.0;
        for layer in layers {
            let Some(entropy_bits) = layer.entropy() else {
                continue;
            };
            let share = |percent| layer.coverage(percent).unwrap_or_default();
            n_layers += 1.0;
            sum.hottest_tenth += share(10);
            sum.hottest_quarter += share(25);
            sum.hottest_half += share(50);
            sum.entropy_bits += entropy_bits;
            sum.flat_bits += log2(layer.picks.len() as f64);
        }
        (n_layers > 0.0).then(|| Self {
            hottest_tenth: sum.hottest_tenth / n_layers,
            hottest_quarter: sum.hottest_quarter / n_layers,
            hottest_half: sum.hottest_half / n_layers,
            entropy_bits: sum.entropy_bits / n_layers,
            flat_bits: sum.flat_bits / n_layers,
        })
    }
}
