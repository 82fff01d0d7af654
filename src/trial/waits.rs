//! How long it is until something is tried again: longer each time.

use std::ops::RangeInclusive;

/// Batches that were waited for.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wait(u32);

impl Wait {
    /// The next wait: `factor` times the last one, within `range`.
    pub fn next(&mut self, factor: u32, range: RangeInclusive<u32>) -> u32 {
        self.0 = (factor * self.0).clamp(*range.start(), *range.end());
        self.0
    }

    /// The last one; 0 at first.
    pub fn last(&self) -> u32 {
        self.0
    }

    /// The next one is the least there is.
    pub fn reset(&mut self) {
        self.0 = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_get_longer_until_they_begin_anew() {
        let mut wait = Wait::default();
        let waits = [0; 4].map(|_| wait.next(2, 64..=300));
        assert_eq!((waits, wait.last()), ([64, 128, 256, 300], 300));
        wait.reset();
        assert_eq!((wait.last(), wait.next(2, 64..=300)), (0, 64));
    }
}
