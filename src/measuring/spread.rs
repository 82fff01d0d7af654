//! The middle and the range of a few measurements.

use crate::statistics::median;
use serde::Serialize;

/// The median of some numbers, and their least and greatest.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Spread {
    /// The middle one, or the mean of the two in the middle.
    pub median: f64,
    /// The least.
    pub min: f64,
    /// The greatest.
    pub max: f64,
}

impl Spread {
    /// Of `numbers`, none of which may be NaN; `None` if there are none.
    pub fn of(numbers: impl IntoIterator<Item = f64>) -> Option<Self> {
        let numbers: Vec<f64> = numbers.into_iter().collect();
        let all = || numbers.iter().copied();
        Some(Self {
            median: median(all())?,
            min: all().min_by(f64::total_cmp)?,
            max: all().max_by(f64::total_cmp)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        let of = |numbers: &[f64]| Spread::of(numbers.iter().copied());
        assert_eq!(of(&[]), None);
        for (numbers, median, min, max) in [
            (&[5.0][..], 5.0, 5.0, 5.0),
            (&[4.0, 1.0], 2.5, 1.0, 4.0),
            (&[9.0, 1.0, 2.0], 2.0, 1.0, 9.0),
            (&[10.0, 1.0, 2.0, 4.0], 3.0, 1.0, 10.0),
        ] {
            assert_eq!(of(numbers), Some(Spread { median, min, max }));
        }
    }
}
