//! A line through times.

use crate::statistics::{mean, median};

/// Points that a line needs.
const N_FITTED: usize = 5;

/// Milliseconds of a batch by its misses: a line.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fit {
    a: f64,
    b: f64,
}

impl Fit {
    /// By least squares, without what is far off the line; `None` if the misses hardly differ.
    pub fn of(points: impl Iterator<Item = (f64, f64)>) -> Option<Self> {
        let mut points: Vec<_> = points.collect();
        let usual = median(points.iter().map(|(_, ms)| *ms))?;
        points.retain(|(_, ms)| *ms < 4.0 * usual);
        let first = Self::through(&points)?;
        let error = |point: &(f64, f64)| (point.1 - first.at(point.0)).abs();
        let usual = median(points.iter().map(error))?;
        points.retain(|point| error(point) <= 3.0 * usual);
        Self::through(&points)
    }

    fn through(points: &[(f64, f64)]) -> Option<Self> {
        let n = points.len() as f64;
        if points.len() < N_FITTED {
            return None;
        }
        let x = mean(points.iter().map(|p| p.0))?;
        let y = mean(points.iter().map(|p| p.1))?;
        let sxx: f64 = points.iter().map(|p| (p.0 - x).powi(2)).sum();
        let sxy: f64 = points.iter().map(|p| (p.0 - x) * (p.1 - y)).sum();
        // A deviation of a tenth of the mean is the least that a slope is taken from.
        if (sxx / n).sqrt() < 0.1 * x || sxx == 0.0 {
            return None;
        }
        // A miss costs time; that it saves some is noise.
        let b = (sxy / sxx).max(0.0);
        Some(Self { a: y - b * x, b })
    }

    pub fn at(&self, misses: f64) -> f64 {
        self.a + self.b * misses
    }
}
