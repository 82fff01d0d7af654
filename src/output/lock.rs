//! A file for one process at a time: to read it, change it, and write it again.

use super::names::folder_of;
use super::place::Place;
use std::fs::{File, TryLockError};
use std::path::Path;
use std::time::{Duration, Instant};

/// How long another process is waited for, for folder and file together. One that is stopped must not stop this one.
const WAIT_MAX: Duration = Duration::from_secs(2);
const PAUSE: Duration = Duration::from_millis(5);

/// Keeps others who lock the same file out, as far as the file system can. Ends with the process, too.
#[derive(Debug)]
pub struct Lock(#[allow(dead_code)] [Option<File>; 2]);

/// Locks the file that `path` leads to. Goes on without where that cannot be had: what is written is whole all the
/// same.
pub fn lock(path: &Path) -> Lock {
    let begin = Instant::now();
    let (target, is_there) = match Place::of(path) {
        Ok(Place::Missing(target)) => (target, false),
        Ok(Place::File {
            path: Some(target), ..
        }) => (target, true),
        Ok(Place::File { path: None, .. }) => return Lock([None, hold(path, begin)]),
        Ok(Place::Stream(_) | Place::Special(_)) | Err(_) => return Lock([None, None]),
    };
    // A file that is replaced is another one afterwards, so its folder is what all have in common: except where the
    // file alone is mounted into a container, which is written in place.
    let folder = hold(folder_of(&target), begin);
    Lock([folder, is_there.then(|| hold(&target, begin)).flatten()])
}

/// Locks what `path` names, waiting since `begin`.
fn hold(path: &Path, begin: Instant) -> Option<File> {
    let file = File::open(path).ok()?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output;
    use std::fs;

    /// Each adds to what is there, which is replaced each time; one more holds the lock for ever at last.
    #[test]
    fn nobody_writes_what_another_has_added_away() {
        /// Few, because waiting is for no turns: on a slow disk one may be unlucky for as long as any waits.
        const N: u32 = 10;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..N {
                        let _lock = lock(&path);
                        let n = fs::read_to_string(&path).map_or(0, |n| n.parse().unwrap());
                        output::write(&path, (n + 1).to_string().as_bytes()).unwrap();
                    }
                });
            }
        });
        assert_eq!(fs::read_to_string(&path).unwrap(), (4 * N).to_string());
        let _held = lock(&path);
        let begin = Instant::now();
        drop(lock(&path));
        assert!(begin.elapsed() >= WAIT_MAX);
        assert!(begin.elapsed() < 20 * WAIT_MAX);
    }

    #[test]
    fn what_cannot_be_locked_is_done_without() {
        for path in ["/dev/null", "no/such/folder/x.json", "/proc/self/status"] {
            drop(lock(Path::new(path)));
        }
    }
}
