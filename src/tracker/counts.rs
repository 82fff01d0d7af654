//! What can be said of one layer's counts.

use libm::log2;

/// Tokens of one layer, and how many of them picked each expert; in spans that fade these are no
/// whole numbers.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerCounts {
    /// The tokens.
    pub n_tokens: f64,
    /// By expert.
    pub picks: Vec<f64>,
}

impl LayerCounts {
    /// The share of the tokens that picked each expert, 0 to 1; 0 if there were no tokens. What a
    /// [`crate::policy::Prior`] is made of.
    pub fn frequencies(&self) -> Vec<f32> {
        let share = |&picks: &f64| match self.n_tokens > 0.0 {
            // What fades is rounded.
            true => f64::min(picks / self.n_tokens, 1.0) as f32,
            false => 0.0,
        };
        self.picks.iter().map(share).collect()
    }

    /// The share of all picks that the hottest experts got, `percent` percent of the experts, rounded
    /// up. A flat router gives them as much as there are of them. `None` if nothing was picked.
    pub fn coverage(&self, percent: u32) -> Option<f64> {
        let mut picks = self.picks.clone();
        picks.sort_unstable_by(|a, b| b.total_cmp(a));
        let n_hottest = (picks.len() * percent as usize).div_ceil(100);
        let covered: f64 = picks.iter().take(n_hottest).sum();
        let total: f64 = picks.iter().sum();
        (total > 0.0).then_some(covered / total)
    }

    /// How evenly the picks are spread, in bits: `n` experts picked alike give log2 of `n`. `None` if
    /// nothing was picked.
    pub fn entropy(&self) -> Option<f64> {
        let total: f64 = self.picks.iter().sum();
        let shares = self.picks.iter().map(|picks| picks / total);
        // What has faded to nothing adds nothing.
        let bits = |share: f64| match share.is_normal() {
            true => -share * log2(share),
            false => 0.0,
        };
        (total > 0.0).then(|| shares.map(bits).sum())
    }
}
