//! What a layer's router saw, as few numbers of like size around 0: what a correction is learnt from.
//!
//! A wide hidden state is folded: each number is added, with a sign that looks random, to one of fewer sums. What
//! two states have in common stays that way (Charikar, Chen and Farach-Colton, "Finding frequent items in data
//! streams", 2002), and what is learnt from them takes as much less memory.

/// The mean and the variance go by about this many of the latest tokens.
const N_LATEST: f32 = 100.0;
/// Tokens between two looks at how large the numbers are, once that many were seen.
const N_SETTLED: u32 = 16;
/// Below it a number is taken for constant.
const VARIANCE_MIN: f32 = 1e-4;

/// How the inputs of one layer's router become features.
#[derive(Default)]
pub(super) struct Features {
    mean: Vec<f32>,
    variance: Vec<f32>,
    /// One over the root of the deviation: between leaving large numbers as large as they are and making all alike.
    scale: Vec<f32>,
    n_seen: u32,
    folded: Vec<f32>,
}

impl Features {
    /// Makes `features` those of `input`, and learns what is usual. Returns the sum of their squares, which is no
    /// number if the input has what is none: nothing is learnt of it then.
    pub fn take(&mut self, input: &[f32], features: &mut [f32]) -> f32 {
        let n = features.len();
        self.mean.resize(n, 0.0);
        self.variance.resize(n, 0.0);
        self.scale.resize(n, 1.0);
        fold(input, n, &mut self.folded);
        if !self.folded.iter().sum::<f32>().is_finite() {
            return f32::NAN;
        }
        let rate = (1.0 / (self.n_seen + 1) as f32).max(1.0 / N_LATEST);
        for ((value, mean), variance) in self.folded.iter().zip(&mut self.mean).zip(&mut self.variance) {
            let before = value - *mean;
            *mean += rate * before;
            *variance += rate * (before * before * (1.0 - rate) - *variance);
        }
        self.n_seen = self.n_seen.saturating_add(1);
        if self.n_seen <= N_SETTLED || self.n_seen.is_multiple_of(N_SETTLED) {
            for (scale, variance) in self.scale.iter_mut().zip(&self.variance) {
                *scale = 1.0 / (variance + VARIANCE_MIN).sqrt().sqrt();
            }
        }
        let mut square = 0.0;
        let usual = self.mean.iter().zip(&self.scale);
        for ((feature, value), (mean, scale)) in features.iter_mut().zip(&self.folded).zip(usual) {
            *feature = (value - mean) * scale;
            square += *feature * *feature;
        }
        square
    }
}

/// Makes `folded` the `n` sums of `input`.
fn fold(input: &[f32], n: usize, folded: &mut Vec<f32>) {
    folded.clear();
    if n >= input.len() {
        folded.extend_from_slice(input);
        return folded.resize(n, 0.0);
    }
    folded.resize(n, 0.0);
    let mut word = 0x9e37_79b9_7f4a_7c15_u64;
    for part in input.chunks(n) {
        for (sums, values) in folded.chunks_mut(64).zip(part.chunks(64)) {
            // xorshift64: a bit for each sign.
            word ^= word << 13;
            word ^= word >> 7;
            word ^= word << 17;
            for (i, (sum, value)) in sums.iter_mut().zip(values).enumerate() {
                let sign = ((word >> i) as u32) << 31;
                *sum += f32::from_bits(value.to_bits() ^ sign);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_are_around_0_and_large_numbers_are_not_much_larger() {
        let mut features = Features::default();
        let mut row = [0.0; 2];
        let mut sums = [0.0; 2];
        let mut squares = [0.0; 2];
        for n in 0..400 {
            let wave = (n as f32 * 0.7).sin();
            features.take(&[500.0 + 100.0 * wave, 0.1 * wave], &mut row);
            if n >= 200 {
                (0..2).for_each(|i| sums[i] += row[i] / 200.0);
                (0..2).for_each(|i| squares[i] += row[i] * row[i] / 200.0);
            }
        }
        assert!(sums.iter().all(|sum| sum.abs() < 1.0), "{sums:?}");
        // Of deviations a thousand times apart.
        let ratio = (squares[0] / squares[1]).sqrt();
        assert!((20.0..50.0).contains(&ratio), "{ratio}");
    }

    #[test]
    fn folding_keeps_what_states_have_in_common() {
        let state = |seed: usize| -> Vec<f32> { (0..2048).map(|i| ((i * i + seed * i) as f32 * 0.37).sin()).collect() };
        let dot = |a: &[f32], b: &[f32]| -> f32 { a.iter().zip(b).map(|(x, y)| x * y).sum() };
        let (a, b) = (state(1), state(5));
        let near: Vec<f32> = a.iter().zip(&b).map(|(x, y)| x + 0.3 * y).collect();
        let [mut fa, mut fb, mut fnear] = [(); 3].map(|()| Vec::new());
        fold(&a, 512, &mut fa);
        fold(&b, 512, &mut fb);
        fold(&near, 512, &mut fnear);
        let cosine = |x: &[f32], y: &[f32]| dot(x, y) / (dot(x, x) * dot(y, y)).sqrt();
        assert!(cosine(&fa, &fnear) > 0.85, "{}", cosine(&fa, &fnear));
        assert!(cosine(&fa, &fb).abs() < 0.2, "{}", cosine(&fa, &fb));
    }

    #[test]
    fn what_is_no_number_teaches_nothing() {
        let mut features = Features::default();
        let mut row = [0.0; 2];
        (0..20).for_each(|n| assert!(features.take(&[n as f32, 1.0], &mut row).is_finite()));
        let before = features.mean.clone();
        for bad in [f32::NAN, f32::INFINITY] {
            assert!(!features.take(&[bad, 1.0], &mut row).is_finite());
        }
        assert_eq!(features.mean, before);
    }
}
