//! What a person should know of the files that experts are read from.

use crate::engine::Engine;
use crate::numbers::bytes;
use crate::store::{ModelFile, Way};
use std::path::Path;

/// Lines about files that are slow, the first of which is `measured`, and about those that are not read past the
/// page cache.
pub fn disk_lines(engine: &Engine, measured: &Path, way: &Way) -> Vec<String> {
    let slow = way.slow.map(|slow| {
        format!(
            "hotset: warning: {} is slow to read: {:.0} MB/s, and a read of {} takes {:.1} ms",
            measured.display(),
            slow.bytes_per_second / 1e6,
            bytes(slow.n_bytes as u64),
            slow.latency.as_secs_f64() * 1e3,
        )
    });
    slow.into_iter()
        .chain(cached_line(engine.queue().files()))
        .collect()
}

/// The line about files that the file system does not read past the page cache.
fn cached_line(files: &[ModelFile]) -> Option<String> {
    let mut cached = files.iter().filter(|file| file.why_buffered().is_some());
    let first = cached.next()?;
    let others = match cached.count() {
        0 => String::new(),
        n => format!(" (and {n} files more)"),
    };
    Some(format!(
        "hotset: {}{others} cannot be read past the page cache ({}): experts are read through it, and it takes memory \
         of its own",
        first.path().display(),
        first
            .why_buffered()
            .map_or(String::new(), ToString::to_string),
    ))
}
