//! Whether anybody has written to a file, as the kernel tells it (inotify): unlike a file's times, it tells writing
//! from touching. It does not see what is written through a mapping or by another machine, and there may be no room
//! for one watch more.
//!
//! All files share one descriptor, because a user may have only a few.

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use std::collections::HashMap;
use std::fs::File;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard};

/// What the system has told of a file.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct News {
    /// It was written to, or its time of writing alone was set: both look the same.
    pub is_written: bool,
    /// Its times or its mode were set, or links to it.
    pub is_touched: bool,
}

/// A file that is watched for as long as this lives.
#[derive(Debug)]
pub(super) struct Watch {
    number: i32,
    /// Writes that were told of.
    n_writes: AtomicU64,
    /// Other changes that were.
    n_touches: AtomicU64,
}

/// What is known of one inode.
struct Watched {
    n_users: usize,
    n_writes: u64,
    n_touches: u64,
}

struct Watcher {
    fd: OwnedFd,
    /// By the kernel's numbers, which are one for each inode.
    watched: HashMap<i32, Watched>,
}

/// Made when the first file is opened.
static WATCHER: Mutex<Option<Watcher>> = Mutex::new(None);

fn watcher() -> MutexGuard<'static, Option<Watcher>> {
    WATCHER.lock().expect("no thread panics with it")
}

impl Watch {
    /// Watches `file`, if that is possible.
    pub fn of(file: &File) -> Option<Self> {
        let mut watcher = watcher();
        if watcher.is_none() {
            let fd = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK).ok()?;
            *watcher = Some(Watcher {
                fd,
                watched: HashMap::new(),
            });
        }
        let watcher = watcher.as_mut()?;
        let link = format!("/proc/self/fd/{}", file.as_raw_fd());
        let flags = WatchFlags::MODIFY | WatchFlags::ATTRIB;
        let number = inotify::add_watch(&watcher.fd, link, flags).ok()?;
        watcher.drain();
        let watched = watcher.watched.entry(number).or_insert(Watched {
            n_users: 0,
            n_writes: 0,
            n_touches: 0,
        });
        watched.n_users += 1;
        Some(Self {
            number,
            n_writes: watched.n_writes.into(),
            n_touches: watched.n_touches.into(),
        })
    }

    /// What has happened since it was last asked.
    pub fn news(&self) -> News {
        let mut watcher = watcher();
        let Some(watcher) = watcher.as_mut() else {
            return News::default();
        };
        watcher.drain();
        let Some(watched) = watcher.watched.get(&self.number) else {
            return News::default();
        };
        let is_new = |told: &AtomicU64, n: u64| told.swap(n, Relaxed) != n;
        News {
            is_written: is_new(&self.n_writes, watched.n_writes),
            is_touched: is_new(&self.n_touches, watched.n_touches),
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut watcher = watcher();
        let Some(watcher) = watcher.as_mut() else {
            return;
        };
        if let Some(watched) = watcher.watched.get_mut(&self.number) {
            watched.n_users -= 1;
            if watched.n_users == 0 {
                watcher.watched.remove(&self.number);
                // It fails if the file system is gone, and with it the watch.
                let _ = inotify::remove_watch(&watcher.fd, self.number);
            }
        }
    }
}

impl Watcher {
    /// Takes what the kernel has to tell.
    fn drain(&mut self) {
        let mut buffer = [MaybeUninit::uninit(); 4096];
        let mut reader = Reader::new(&self.fd, &mut buffer);
        // The first error is that there is nothing more.
        while let Ok(event) = reader.next() {
            let is_lost = event.events().contains(ReadFlags::QUEUE_OVERFLOW);
            let is_write = is_lost || event.events().contains(ReadFlags::MODIFY);
            let is_touch = is_lost || event.events().contains(ReadFlags::ATTRIB);
            let number = event.wd();
            // What was lost may have been about any of them.
            let meant = |at: &i32| is_lost || *at == number;
            for (_, watched) in self.watched.iter_mut().filter(|(at, _)| meant(at)) {
                watched.n_writes += u64::from(is_write);
                watched.n_touches += u64::from(is_touch);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::FileTimes;
    use std::io::Write;
    use std::time::SystemTime;

    #[test]
    fn writing_is_told_from_touching_for_each_user_of_a_file() {
        let mut file = tempfile::tempfile().unwrap();
        let (Some(first), Some(gone)) = (Watch::of(&file), Watch::of(&file)) else {
            return; // There is no inotify here.
        };
        drop(gone);
        let epoch = SystemTime::UNIX_EPOCH;
        let times = FileTimes::new().set_accessed(epoch).set_modified(epoch);
        file.set_times(times).unwrap();
        let has_news = |watch: &Watch| watch.news().is_written;
        let news = first.news();
        assert!(news.is_touched && !news.is_written);
        file.write_all(b"x").unwrap();
        let later = Watch::of(&file).unwrap();
        assert!(has_news(&first) && !has_news(&later));
        let other = Watch::of(&tempfile::tempfile().unwrap()).unwrap();
        file.write_all(b"x").unwrap();
        for (watch, is_news) in [(&first, true), (&later, true), (&other, false)] {
            assert_eq!((has_news(watch), has_news(watch)), (is_news, false));
        }
    }
}
