//! Whether a file still has the content that it had when it was opened: as cheap as asking for its times while
//! these stay as they are.

use super::sample::Sample;
#[cfg(target_os = "linux")]
use super::watch::Watch;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::sync::Mutex;

/// What tells, without reading, that a file still has the content it had. The inode is not part of it: an
/// open descriptor never changes to another.
#[derive(Debug, Clone, Copy)]
struct Stamp {
    len: u64,
    /// Seconds and nanoseconds.
    modified: (i64, i64),
    /// Whether these are also those of the last change of anything, as writing leaves them. Who sets them to
    /// another time than the present does not.
    is_of_writing: bool,
}

impl Stamp {
    fn of(file: &File) -> io::Result<Self> {
        let meta = file.metadata()?;
        if !meta.is_file() {
            return Err(io::Error::other("not a regular file"));
        }
        let modified = (meta.mtime(), meta.mtime_nsec());
        Ok(Self {
            len: meta.len(),
            modified,
            is_of_writing: modified == (meta.ctime(), meta.ctime_nsec()),
        })
    }
}

/// The content of a file when it was opened.
#[derive(Debug)]
pub(super) struct Content {
    len: u64,
    /// Its latest stamp.
    stamp: Mutex<Stamp>,
    /// `None` if it could not be read.
    sample: Option<Sample>,
    /// `None` if the system tells nothing.
    #[cfg(target_os = "linux")]
    watch: Option<Watch>,
}

impl Content {
    /// What `file`, whose reads are aligned to `align`, holds now.
    pub fn of(file: &File, align: usize) -> io::Result<Self> {
        // First: what is written while it is looked at is a change.
        #[cfg(target_os = "linux")]
        let watch = Watch::of(file);
        let stamp = Stamp::of(file)?;
        Ok(Self {
            len: stamp.len,
            sample: Sample::take(file, stamp.len, align).ok(),
            stamp: Mutex::new(stamp),
            #[cfg(target_os = "linux")]
            watch,
        })
    }

    /// Its bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// What has happened to it, if `file` does not hold it any more.
    pub fn change(&self, file: &File) -> io::Result<Option<String>> {
        let now = Stamp::of(file)?;
        let mut stamp = self.stamp.lock().expect("no thread panics with it");
        if (now.len, now.modified) == (stamp.len, stamp.modified) {
            return Ok(None);
        }
        if now.len != self.len {
            return Ok(Some(format!(
                "had {} bytes when it was opened and has {} now",
                self.len, now.len
            )));
        }
        let is_written = self.is_written() && now.is_of_writing;
        let sample = self.sample.as_ref().filter(|_| !is_written);
        if sample.map_or(Ok(false), |sample| sample.is_of(file))? {
            // Looked at before the bytes were: what was written since has yet another time.
            *stamp = now;
            return Ok(None);
        }
        Ok(Some("was overwritten while in use".to_string()))
    }

    /// Whether the system has told of writing since it was last asked.
    #[cfg(target_os = "linux")]
    fn is_written(&self) -> bool {
        self.watch.as_ref().is_some_and(Watch::has_news)
    }

    /// Nothing tells.
    #[cfg(not(target_os = "linux"))]
    fn is_written(&self) -> bool {
        false
    }
}
