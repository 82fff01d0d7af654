//! Says whether reading ahead pays.

/// Says whether reading ahead pays.
#[derive(Default)]
pub(super) struct Governor {
    /// By rank: guesses and right ones.
    ranks: Vec<(u64, u64)>,
}

impl Governor {
    /// A guess of this rank turned out right or wrong.
    pub fn learn(&mut self, rank: usize, is_right: bool) {
        if self.ranks.len() <= rank {
            self.ranks.resize(rank + 1, (0, 0));
        }
        let (n, right) = &mut self.ranks[rank];
        *n += 1;
        *right += u64::from(is_right);
    }

    /// Whether a guess of this rank is worth reading.
    pub fn allows(&self, _rank: usize) -> bool {
        true
    }
}
