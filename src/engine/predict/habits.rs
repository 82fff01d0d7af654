//! How often and how lately each expert of a layer was picked.

/// The parts of what is new in what is remembered: of the latest few tokens, and of the latest hundred.
const RATES: [f32; 2] = [0.3, 0.01];

/// What the experts of a layer are used to.
#[derive(Default)]
pub(super) struct Habits {
    /// By expert: the share of tokens that picked it, of the latest few and of more.
    shares: Vec<[f32; RATES.len()]>,
    /// Tokens, up to as many as are remembered.
    n_tokens: f32,
}

impl Habits {
    /// A profile says how often a token picks each expert, 0 to 1, and is worth `n_tokens` of them.
    pub fn prime(&mut self, frequency: &[f32], n_tokens: f32) {
        let n_tokens = n_tokens.clamp(0.0, 1.0 / RATES[1]);
        let weight = n_tokens / (n_tokens + self.n_tokens).max(1.0);
        self.shares.resize(frequency.len(), [0.0; RATES.len()]);
        for (shares, frequency) in self.shares.iter_mut().zip(frequency) {
            shares.iter_mut().for_each(|share| *share += weight * (frequency - *share));
        }
        self.n_tokens = (self.n_tokens + n_tokens).min(1.0 / RATES[1]);
    }

    /// A token has picked `picks` of `n_experts`.
    pub fn learn(&mut self, picks: &[i32], n_experts: usize) {
        self.shares.resize(n_experts, [0.0; RATES.len()]);
        self.n_tokens = (self.n_tokens + 1.0).min(1.0 / RATES[1]);
        // At first it is the mean of what there was.
        let rates = RATES.map(|rate| rate.max(1.0 / (self.n_tokens + 1.0)));
        for shares in &mut self.shares {
            for (share, rate) in shares.iter_mut().zip(rates) {
                *share -= rate * *share;
            }
        }
        for &pick in picks {
            if let Some(shares) = self.shares.get_mut(pick as usize) {
                for (share, rate) in shares.iter_mut().zip(rates) {
                    *share += rate;
                }
            }
        }
    }

    /// The shares of the latest tokens that picked `expert`: of few, and of more.
    pub fn shares(&self, expert: usize) -> [f32; RATES.len()] {
        self.shares.get(expert).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_is_where_they_begin_and_counts_as_tokens_do() {
        let mut habits = Habits::default();
        habits.prime(&[1.0, 0.5, 0.0], 20.0);
        assert_eq!(habits.shares(1), [0.5; 2]);
        habits.learn(&[2], 3);
        // One token in 21, and of the latest few 0.3.
        let [few, more] = habits.shares(0);
        assert!((few - 0.7).abs() < 1e-6 && (more - (1.0 - 1.0 / 22.0)).abs() < 1e-6, "{few} {more}");
        // Later it says as much less as has been seen.
        (0..300).for_each(|_| habits.learn(&[2], 3));
        habits.prime(&[1.0, 0.5, 0.0], 20.0);
        let [_, more] = habits.shares(2);
        assert!((0.75..0.9).contains(&more), "{more}");
    }

    #[test]
    fn shares_are_those_of_few_tokens_and_of_more() {
        let mut habits = Habits::default();
        assert_eq!(habits.shares(3), [0.0, 0.0]);
        for n in 0..400 {
            // A pick that is out of range is nobody's.
            habits.learn(&[n % 2, if n < 390 { 2 } else { 7 }], 4);
        }
        let [few, more] = habits.shares(0);
        assert!((0.2..0.8).contains(&few) && (more - 0.5).abs() < 0.02, "{few} {more}");
        let [few, more] = habits.shares(2);
        assert!(few < 0.05 && more > 0.85, "{few} {more}");
        assert_eq!(habits.shares(3), [0.0, 0.0]);
    }
}
