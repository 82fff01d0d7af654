//! How alike two profiles are: 1 less the Jensen-Shannon divergence, in bits, of what they pick.
//!
//! J. Lin, "Divergence measures based on the Shannon entropy", IEEE Transactions on Information Theory 37(1), 1991.

use super::format::{Heat, Profile};
use crate::statistics::mean;
use crate::tracker::Phase;
use libm::log2;

/// By layer: 1 where both pick each expert equally often, 0 where they share none, `None` where one knows nothing.
/// Panics unless both are of one shape.
pub fn layer_similarities(a: &Profile, b: &Profile, phase: Phase) -> Vec<Option<f64>> {
    assert_eq!(a.layers.len(), b.layers.len());
    let layers = a.layers.iter().zip(&b.layers);
    layers
        .map(|(a, b)| of_heats(a.heat(phase), b.heat(phase)))
        .collect()
}

/// The mean over the layers that both know; `None` if there are none. Panics unless both are of one shape.
pub fn similarity(a: &Profile, b: &Profile, phase: Phase) -> Option<f64> {
    mean(layer_similarities(a, b, phase).into_iter().flatten())
}

fn of_heats(a: &Heat, b: &Heat) -> Option<f64> {
    assert_eq!(a.weight.len(), b.weight.len());
    let (total_a, total_b) = (a.total(), b.total());
    if total_a == 0.0 || total_b == 0.0 {
        return None;
    }
    let mut divergence = 0.0;
    for (a, b) in a.weight.iter().zip(&b.weight) {
        let (p, q) = (a / total_a, b / total_b);
        let mean = (p + q) / 2.0;
        divergence += (term(p, mean) + term(q, mean)) / 2.0;
    }
    // Sums round: a divergence may end a little outside.
    Some((1.0 - divergence).clamp(0.0, 1.0))
}

/// `p log2(p / mean)`, which is 0 at 0.
fn term(p: f64, mean: f64) -> f64 {
    let ratio = p / mean;
    match ratio.is_normal() {
        true => p * log2(ratio),
        false => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::Fingerprint;

    fn profile(weights: &[&[f64]]) -> Profile {
        let n_experts: Vec<u32> = weights.iter().map(|w| w.len() as u32).collect();
        let model = Fingerprint {
            architecture: "test".to_string(),
            name: String::new(),
            n_layers: n_experts.len() as u32,
            n_experts: 4,
            top_k: 1,
        };
        let mut profile = Profile::new("test", model, &n_experts);
        for (layer, weights) in profile.layers.iter_mut().zip(weights) {
            layer.generation.weight = weights.to_vec();
        }
        profile
    }

    fn entropy(weights: &[f64]) -> f64 {
        let total: f64 = weights.iter().sum();
        let shares = weights.iter().map(|w| w / total).filter(|&p| p > 0.0);
        shares.map(|p| -p * p.log2()).sum()
    }

    #[test]
    fn the_same_the_disjoint_and_the_unknown() {
        let a = profile(&[&[1.0, 2.0, 0.0], &[1.0, 0.0], &[0.0, 0.0], &[3.0]]);
        let b = profile(&[&[2.0, 4.0, 0.0], &[0.0, 9.0], &[1.0, 2.0], &[0.0]]);
        let layers = layer_similarities(&a, &b, Phase::Decode);
        assert_eq!(layers, [Some(1.0), Some(0.0), None, None]);
        assert_eq!(similarity(&a, &b, Phase::Decode), Some(0.5));
        assert_eq!(similarity(&a, &b, Phase::Prefill), None);
    }

    /// The divergence is the entropy of the mean less the mean entropy.
    #[test]
    fn it_is_the_difference_of_entropies() {
        let weights: [&[f64]; 4] = [
            &[1.0, 2.0, 3.0, 4.0],
            &[0.0, 0.5, 0.0, 7.0],
            &[1e-300, 5.0, 0.0, 1.0],
            &[9e15, 1.0, 1.0, 1.0],
        ];
        for a in weights {
            for b in weights {
                let share = |w: &[f64], i: usize| w[i] / w.iter().sum::<f64>();
                let mean: Vec<f64> = (0..4).map(|i| (share(a, i) + share(b, i)) / 2.0).collect();
                let expected = 1.0 - (entropy(&mean) - (entropy(a) + entropy(b)) / 2.0);
                let (a, b) = (profile(&[a]), profile(&[b]));
                let found = similarity(&a, &b, Phase::Decode).unwrap();
                assert!((found - expected).abs() < 1e-12, "{found} {expected}");
                let back = similarity(&b, &a, Phase::Decode).unwrap();
                assert!((found - back).abs() < 1e-15, "{found} {back}");
            }
        }
    }

    #[test]
    #[should_panic]
    fn another_shape() {
        similarity(&profile(&[&[1.0, 2.0]]), &profile(&[&[1.0]]), Phase::Decode);
    }
}
