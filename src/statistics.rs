//! Numbers that stand for many: mean, median, typical time, share.

/// One in so many numbers is left out of the typical one for being the greatest, and one for being the least.
const TRIM: usize = 10;

/// The mean; `None` of nothing.
pub fn mean(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let add = |(n, sum), value| (n + 1, sum + value);
    let (n, sum) = values.into_iter().fold((0u64, 0.0), add);
    (n > 0).then(|| sum / n as f64)
}

/// The middle one, or the mean of the two in the middle; `None` of nothing.
pub fn median(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let sorted = sorted(values);
    let n = sorted.len();
    (n > 0).then(|| (sorted[(n - 1) / 2] + sorted[n / 2]) / 2.0)
}

/// The mean without the extremes: batches that wait for many experts count, a pause of the system does not. Of two
/// numbers it is the lesser one, from three on the greatest and the least are left out. `None` of nothing.
pub fn typical(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let sorted = sorted(values);
    let n = sorted.len();
    let n_greatest = n.div_ceil(TRIM).min(n.saturating_sub(1));
    let n_least = n_greatest.min(n.saturating_sub(n_greatest + 1));
    mean(sorted[n_least..n - n_greatest].iter().copied())
}

/// `part` of `whole`, 0 of nothing.
pub fn share(part: u64, whole: u64) -> f64 {
    part as f64 / whole.max(1) as f64
}

/// The same in percent.
pub fn percent(part: u64, whole: u64) -> f64 {
    100.0 * part as f64 / whole.max(1) as f64
}

fn sorted(values: impl IntoIterator<Item = f64>) -> Vec<f64> {
    let mut sorted: Vec<f64> = values.into_iter().collect();
    sorted.sort_unstable_by(f64::total_cmp);
    sorted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle_and_the_mean_need_not_be() {
        for (numbers, the_median, the_mean) in [
            (&[5.0][..], 5.0, 5.0),
            (&[4.0, 1.0], 2.5, 2.5),
            (&[9.0, 1.0, 2.0], 2.0, 4.0),
            (&[10.0, 1.0, 3.0, 4.0], 3.5, 4.5),
        ] {
            let numbers = || numbers.iter().copied();
            assert_eq!(median(numbers()), Some(the_median));
            assert_eq!(mean(numbers()), Some(the_mean));
        }
        assert_eq!((median([]), mean([]), typical([])), (None, None, None));
    }

    #[test]
    fn a_pause_is_not_typical_and_waiting_is() {
        let hour = 3.6e6;
        assert_eq!(typical([hour]), Some(hour));
        assert_eq!(typical([hour, 2.0]), Some(2.0));
        assert_eq!(typical([1.0, hour, 2.0]), Some(2.0));
        assert_eq!(typical([3.0, 1.0, hour, 2.0]), Some(2.5));
        // A third of these wait, and two are pauses.
        let mut times = [10.0; 30];
        times[..10].fill(40.0);
        times[10..12].fill(hour);
        let expected = (9.0 * 40.0 + 15.0 * 10.0) / 24.0;
        assert_eq!(typical(times), Some(expected));
    }

    #[test]
    fn nothing_is_no_part_of_nothing() {
        assert_eq!((share(1, 4), share(0, 0), percent(1, 4)), (0.25, 0.0, 25.0));
    }
}
