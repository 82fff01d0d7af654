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
