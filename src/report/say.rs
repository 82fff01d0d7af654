//! Where lines for people go.

use std::io::Write;

/// Writes `text` and a line end to standard error, at once: other threads write there too.
pub fn say(text: &str) {
    // Nobody is left to tell if this fails.
    let _ = std::io::stderr().write_all(format!("{text}\n").as_bytes());
}
