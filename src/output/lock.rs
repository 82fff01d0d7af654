//! A file for one process at a time: to read it, change it, and write it again.

use super::Place;
use crate::config::folder_of;
use std::fs::{File, TryLockError};
use std::path::Path;
use std::time::{Duration, Instant};

/// How long another process is waited for. One that is stopped must not stop this one.
const WAIT_MAX: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(5);

/// Keeps others who lock the same file out, as far as the file system can. Ends with the process, too.
#[derive(Debug)]
pub struct Lock(#[allow(dead_code)] [Option<File>; 2]);

/// Locks the file that `path` leads to. Goes on without where that cannot be had: what is written is whole all the
/// same.
pub fn lock(path: &Path) -> Lock {
    let (target, is_there) = match Place::of(path) {
        Ok(Place::Missing(target)) => (target, false),
        Ok(Place::File {
            path: Some(target), ..
        }) => (target, true),
        Ok(Place::File { path: None, .. }) => return Lock([None, hold(path)]),
        Ok(Place::Stream(_) | Place::Special(_)) | Err(_) => return Lock([None, None]),
    };
    // A file that is replaced is another one afterwards, so its folder is what all have in common: except where the
    // file alone is mounted into a container, which is written in place.
    let folder = hold(folder_of(&target));
    Lock([folder, is_there.then(|| hold(&target)).flatten()])
}

fn hold(path: &Path) -> Option<File> {
    let file = File::open(path).ok()?;
    let begin = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Some(file),
            Err(TryLockError::WouldBlock) if begin.elapsed() < WAIT_MAX => {
                std::thread::sleep(PAUSE);
            }
            Err(_) => return None,
        }
    }
}
