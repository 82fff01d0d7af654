//! The timeline of the process, as a file.

use super::loaded::try_loaded_models;
use crate::output;
use crate::report;
use crate::timeline::Timeline;
use flate2::Compression;
use flate2::write::GzEncoder;
use std::io;
use std::path::Path;

/// Writes the timeline, if there is one with a model, once. A file that takes none costs a line.
pub fn write() {
    let known = try_loaded_models().and_then(|mut loaded| {
        let path = loaded.config.timeline.clone()?;
        let timeline = loaded.timeline.take_if(|timeline| timeline.has_models())?;
        Some((timeline, path))
    });
    let Some((timeline, path)) = known else {
        return;
    };
    let written = text(&timeline, &path).and_then(|text| output::write(&path, &text));
    if let Err(cause) = written {
        report::say(&format!(
            "hotset: warning: HOTSET_TIMELINE: {}: {cause}; the timeline is not written",
            path.display()
        ));
    }
}

/// What the file will hold, compressed if its name ends in `.gz`.
fn text(timeline: &Timeline, path: &Path) -> io::Result<Vec<u8>> {
    if path.extension().is_none_or(|suffix| suffix != "gz") {
        let mut text = Vec::new();
        timeline.write(&mut text)?;
        return Ok(text);
    }
    let mut gz = GzEncoder::new(Vec::new(), Compression::fast());
    timeline.write(&mut io::BufWriter::new(&mut gz))?;
    gz.finish()
}
