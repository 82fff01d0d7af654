//! A profile and how much of it: `FILE` or `FILE:WEIGHT`.

use crate::numbers;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// The highest weight.
pub(crate) const WEIGHT_MAX: f64 = 1000.0;

/// Reads `FILE:WEIGHT`, or `FILE`, whose weight is 1. A colon that no number follows belongs to the name, and so
/// does one in the name of a file that is there.
///
/// Says what is wrong with a weight that is not above 0 and at most 1000, and with a file without a name.
pub fn path_and_weight(text: &OsStr) -> Result<(PathBuf, f64), String> {
    let bytes = text.as_bytes();
    let colon = bytes.iter().rposition(|b| *b == b':');
    let split = colon.filter(|_| !Path::new(text).is_file());
    let weighed = split.and_then(|at| {
        let weight = std::str::from_utf8(&bytes[at + 1..]).ok()?;
        // Whatever else is a number is a weight that is refused, not part of a name.
        weight.parse::<f64>().ok()?;
        Some((&bytes[..at], weight))
    });
    let (file, written) = weighed.unwrap_or((bytes, "1"));
    let file = OsStr::from_bytes(file);
    let weight = numbers::decimal(written).filter(|weight| *weight > 0.0 && *weight <= WEIGHT_MAX);
    let weight = weight.ok_or_else(|| {
        format!(
            "the weight {written} of {} is not above 0 and at most {WEIGHT_MAX}, in digits",
            file.display()
        )
    })?;
    match file.is_empty() {
        true => Err(format!("\"{}\" names no file", text.display())),
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
            let found = path_and_weight(OsStr::new(text));
            assert_eq!(found, Ok((PathBuf::from(file), weight)), "{text}");
        }
        for (text, why) in [
            ("a:0", "the weight 0 of a"),
            ("a:-1", "the weight -1"),
            ("a:1000.1", "the weight 1000.1"),
            ("a:nan", "the weight nan"),
            ("a:inf", "the weight inf"),
            ("a:1e308", "the weight 1e308 "),
            ("a:1e2", "the weight 1e2 "),
            ("a:+2", "the weight +2 "),
            (":1", "names no file"),
            ("", "names no file"),
        ] {
            let error = path_and_weight(OsStr::new(text)).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
