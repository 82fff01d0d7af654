//! Numbers in files that the system makes: of /proc, /sys and control groups.

use std::fs;
use std::path::Path;

/// The number that is all of a file.
pub(crate) fn number(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// The number after the word `name` in a file of lines `name number ...`; in most files of /proc the word ends with
/// a colon.
pub(crate) fn field(path: &Path, name: &str) -> Option<u64> {
    let text = fs::read_to_string(path).ok()?;
    text.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        (words.next()? == name).then(|| words.next()?.parse().ok())?
    })
}
