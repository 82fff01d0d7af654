//! A profile and how much of it: `FILE` or `FILE:WEIGHT`.

use std::path::PathBuf;

/// The highest weight.
pub(crate) const WEIGHT_MAX: f64 = 1000.0;

/// Reads `FILE:WEIGHT`, or `FILE`, whose weight is 1. A colon that no number follows belongs to the name.
///
/// Says what is wrong with a weight that is not above 0 and at most 1000, and with a file without a name.
pub fn part(text: &str) -> Result<(PathBuf, f64), String> {
    let split = text.rsplit_once(':');
    let weighed = split.and_then(|(file, weight)| Some((file, weight.parse::<f64>().ok()?)));
    let (file, weight) = weighed.unwrap_or((text, 1.0));
    // Not a number is in no range.
    if !(weight > 0.0 && weight <= WEIGHT_MAX) {
        return Err(format!(
            "the weight {weight} of {file} is not above 0 and at most {WEIGHT_MAX}"
        ));
    }
    match file.is_empty() {
        true => Err(format!("\"{text}\" names no file")),
        false => Ok((PathBuf::from(file), weight)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_colon_splits_if_a_number_follows() {
        for (text, file, weight) in [
            ("a.json", "a.json", 1.0),
            ("a.json:2.5", "a.json", 2.5),
            ("a.json:1000", "a.json", 1000.0),
            ("c:/a.json", "c:/a.json", 1.0),
            ("a:3:0.25", "a:3", 0.25),
            ("a.json:", "a.json:", 1.0),
        ] {
            assert_eq!(part(text), Ok((PathBuf::from(file), weight)), "{text}");
        }
        for (text, why) in [
            ("a:0", "the weight 0 of a"),
            ("a:-1", "the weight -1"),
            ("a:1000.1", "the weight 1000.1"),
            ("a:nan", "the weight NaN"),
            ("a:inf", "the weight inf"),
            (":1", "names no file"),
            ("", "names no file"),
        ] {
            let error = part(text).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
