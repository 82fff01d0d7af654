//! A table of probabilities that are learnt: one cell for each kind of expert.

use super::approximate::logit;

/// Where counting ends, so that a cell keeps following what changes.
const N_MAX: usize = 2000;

/// As many as a byte can tell apart.
const N_CELLS: usize = 256;

/// The mean of what was observed in each cell, and its log odds.
pub(super) struct Table {
    means: [f32; N_CELLS],
    /// Observations, a first guess among them.
    counts: [u16; N_CELLS],
    /// As of the last [`Table::refresh`], less those of an expert of which nothing is known.
    logits: [f32; N_CELLS],
}

impl Table {
    /// Starts from guesses for each cell, worth `n_guess` observations.
    pub(super) fn new(guess: impl Fn(usize) -> f32, n_guess: u16, base: f32) -> Self {
        let mut table = Self {
            means: std::array::from_fn(guess),
            counts: [n_guess; N_CELLS],
            logits: [0.0; N_CELLS],
        };
        table.refresh(base);
        table
    }

    /// What each cell says, in log odds. Panics unless both are of one length, a multiple of 8.
    #[inline(always)]
    pub(super) fn read(&self, cells: &[u8], logits: &mut [f32]) {
        let (cells, logits) = (cells.as_chunks::<8>(), logits.as_chunks_mut::<8>());
        assert!(cells.0.len() == logits.0.len() && cells.1.is_empty() && logits.1.is_empty());
        for (cells, logits) in cells.0.iter().zip(logits.0) {
            *logits = cells.map(|cell| self.logits[cell as usize]);
        }
    }

    /// An expert of this cell turned out to be worth `target`.
    #[inline(always)]
    pub(super) fn observe(&mut self, cell: u8, target: f32, rates: &Rates) {
        let cell = cell as usize;
        let count = &mut self.counts[cell];
        self.means[cell] += (target - self.means[cell]) * rates.0[(*count as usize).min(N_MAX)];
        *count += u16::from((*count as usize) < N_MAX);
    }

    /// Brings the log odds up to date; not done at each observation because it costs.
    #[inline(always)]
    pub(super) fn refresh(&mut self, base: f32) {
        for (logit_of, &mean) in self.logits.iter_mut().zip(&self.means) {
            *logit_of = logit(mean) - base;
        }
    }
}

/// What the next observation weighs, by the number of those before: made once, because dividing
/// each time costs more than all the rest of an observation.
pub(super) struct Rates([f32; N_MAX + 1]);

impl Rates {
    pub(super) fn new() -> Self {
        Self(std::array::from_fn(|n| 1.0 / (n as f32 + 1.5)))
    }
}
