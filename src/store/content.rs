//! Whether a file still has the content that it had when it was opened: as cheap as asking for its times while
//! these stay as they are.
//!
//! When they do not, what it holds is compared with what was kept of it (`sample.rs`). Where that is all of a small
//! file, nothing else matters. Where it is a few bytes, the system is asked whether anybody has written (`watch.rs`):
//! a wrong token is worse than none.

use super::sample::{Cached, Sample};
#[cfg(target_os = "linux")]
use super::watch::{News, Watch};
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::sync::Mutex;

/// What tells, without reading, that a file still has the content it had. The inode is not part of it: an
/// open descriptor never changes to another.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Stamp {
    len: u64,
    /// Seconds and nanoseconds.
    modified: (i64, i64),
    /// When anything of it changed, also what is set to another time than the present.
    changed: (i64, i64),
}

impl Stamp {
    fn of(file: &File) -> io::Result<Self> {
        let meta = file.metadata()?;
        if !meta.is_file() {
            return Err(io::Error::other("not a regular file"));
        }
        Ok(Self {
            len: meta.len(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
        })
    }

    /// Whether writing after `before` may have left this time: it lies between the two. Nearly all others that
    /// somebody sets do not.
    fn may_be_of_writing(&self, before: &Self) -> bool {
        self.modified != before.modified && (before.changed..=self.changed).contains(&self.modified)
    }
}

/// What is known of a file by now.
#[derive(Debug)]
struct KnownContent {
    /// When its content was last found to be the same.
    stamp: Stamp,
    /// Since then.
    news: News,
    /// What has happened to its content, for good.
    change: Option<String>,
}

/// The content of a file when it was opened.
#[derive(Debug)]
pub(super) struct Content {
    len: u64,
    known: Mutex<KnownContent>,
    /// `None` if it could not be read.
    sample: Option<Sample>,
    /// `None` if the system tells nothing.
    #[cfg(target_os = "linux")]
    watch: Option<Watch>,
}

impl Content {
    /// What `file`, whose reads are aligned to `align`, holds now.
    pub fn of(file: &File, cached: Cached<'_>, align: usize) -> io::Result<Self> {
        // First: what is written while it is looked at is a change.
        #[cfg(target_os = "linux")]
        let watch = Watch::of(file);
        let stamp = Stamp::of(file)?;
        Ok(Self {
            len: stamp.len,
            sample: Sample::take(file, cached, stamp.len, align).ok(),
            known: Mutex::new(KnownContent {
                stamp,
                news: News::default(),
                change: None,
            }),
            #[cfg(target_os = "linux")]
            watch,
        })
    }

    /// Its bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// What has happened to it, if `file` does not hold it any more; for good, because what was read before does
    /// not fit to what is read after.
    pub fn change(&self, file: &File, cached: Cached<'_>) -> io::Result<Option<String>> {
        let now = Stamp::of(file)?;
        let mut known = self.known.lock().expect("no thread panics with it");
        if known.change.is_none() && now != known.stamp {
            known.change = self.look(&mut known, now, (file, cached))?;
        }
        Ok(known.change.clone())
    }

    /// Looks what has happened, if its stamp is `now` another one than is `known`.
    fn look(
        &self,
        known: &mut KnownContent,
        now: Stamp,
        (file, cached): (&File, Cached<'_>),
    ) -> io::Result<Option<String>> {
        if now.len != self.len {
            return Ok(Some(format!(
                "had {} bytes when it was opened and has {} now",
                self.len, now.len
            )));
        }
        self.add_news(&mut known.news);
        // The news may be of something later than `now`; of what follows them there will be others.
        let latest = Stamp::of(file)?;
        let is_same = match &self.sample {
            Some(sample) if sample.is_whole() || !self.is_written(known, &latest) => {
                match sample.is_of(file, cached) {
                    Ok(is_same) => is_same,
                    // What cannot be read now does no harm, and who needs it will say so. It is looked at again.
                    Err(_) => return Ok(None),
                }
            }
            Some(_) => false,
            // Nothing is known but what the system tells.
            None => !self.is_written(known, &latest),
        };
        if is_same {
            // Looked at before the bytes were: what was written since has yet another time.
            known.stamp = now;
            known.news = News::default();
        }
        let what = "was overwritten while in use";
        Ok((!is_same).then(|| what.to_string()))
    }

    /// Whether news say that it was written to, as far as that can be told. Of times that somebody has set alone
    /// they tell the same, but these are seldom those of writing; and who hides a writing by other times sets more
    /// than the time of writing.
    #[cfg(target_os = "linux")]
    fn is_written(&self, known: &KnownContent, latest: &Stamp) -> bool {
        let News {
            is_written,
            is_touched,
        } = known.news;
        match &self.watch {
            Some(_) => is_written && (is_touched || latest.may_be_of_writing(&known.stamp)),
            None => self.seems_written(known, latest),
        }
    }

    /// Nothing tells.
    #[cfg(not(target_os = "linux"))]
    fn is_written(&self, known: &KnownContent, latest: &Stamp) -> bool {
        self.seems_written(known, latest)
    }

    /// Where the system tells nothing: a file of which nothing is known by its time.
    fn seems_written(&self, known: &KnownContent, latest: &Stamp) -> bool {
        self.sample.is_none() && latest.may_be_of_writing(&known.stamp)
    }

    #[cfg(target_os = "linux")]
    fn add_news(&self, news: &mut News) {
        if let Some(watch) = &self.watch {
            let latest = watch.news();
            news.is_written |= latest.is_written;
            news.is_touched |= latest.is_touched;
        }
    }

    #[cfg(not(target_os = "linux"))]
    fn add_news(&self, _: &mut News) {}
}
