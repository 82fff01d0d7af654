//! What several processes share: who takes part, and what each says of itself.
//!
//! Each keeps a file in the same folder, locked for as long as it lives, so that the system tells of its end however it
//! ends. The file has a few numbers, such as how much the process could use and how much it has. From these each works
//! out the same division alone; nobody is asked.

use std::fs::{self, DirBuilder, File, TryLockError};
use std::io::{self, ErrorKind, Read};
use std::marker::PhantomData;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// What one of those who take part says of itself: as many numbers each time.
pub trait Record: Copy {
    /// The numbers.
    fn numbers(&self) -> Vec<u64>;
    /// What they say; `None` if they are of another kind.
    fn of(numbers: &[u64]) -> Option<Self>;
}

/// What a process with a part of a fixed size says of itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Entry {
    /// Bytes that it could use.
    pub wanted: u64,
    /// Bytes that it has, or is about to take.
    pub held: u64,
}

impl Record for Entry {
    fn numbers(&self) -> Vec<u64> {
        vec![self.wanted, self.held]
    }

    fn of(numbers: &[u64]) -> Option<Self> {
        let &[wanted, held] = numbers else {
            return None;
        };
        Some(Self { wanted, held })
    }
}

/// What one of the processes that share `size` gets, if it could use `wanted` and the others what they say. Those
/// that want less than an even share get it all, and what they leave is divided among the rest.
pub fn allotment(size: u64, wanted: u64, others: &[Entry]) -> u64 {
    let mut all: Vec<u64> = others.iter().map(|other| other.wanted).collect();
    all.push(wanted);
    all.sort_unstable();
    let mut rest = size;
    let mut n_left = all.len() as u64;
    for smaller in all {
        let even = rest / n_left;
        if smaller > even {
            return wanted.min(even);
        }
        if smaller == wanted {
            return wanted;
        }
        rest -= smaller;
        n_left -= 1;
    }
    wanted
}

/// What nobody has of `size`.
pub fn unheld(size: u64, others: &[Entry]) -> u64 {
    let held = others.iter().map(|other| other.held);
    size.saturating_sub(held.fold(0, u64::saturating_add))
}

/// The part of this process in a folder that others have files in, too.
#[derive(Debug)]
pub struct Ledger<R> {
    folder: PathBuf,
    /// The file of this process, locked.
    file: File,
    path: PathBuf,
    records: PhantomData<R>,
}

/// Digits of each number in a file: all there can be, so that every record has the same length and is replaced whole.
const N_DIGITS: usize = 20;
/// More than the numbers of any record.
const N_NUMBERS_MAX: usize = 32;
const SUFFIX: &str = ".part";
/// Of files whose first entry is not written yet, which nobody looks at.
const DRAFT: &str = ".draft";

impl<R: Record> Ledger<R> {
    /// Takes part in what `folder` is about, and makes it if it does not exist; only this user may use it.
    pub fn join(folder: &Path, record: R) -> io::Result<Self> {
        // The last one to go may remove the folder while this one comes.
        let is_gone = |error: &io::Error| error.kind() == ErrorKind::NotFound;
        let first = Self::try_join(folder, record);
        match first {
            Err(error) if is_gone(&error) => Self::try_join(folder, record),
            joined => joined,
        }
    }

    fn try_join(folder: &Path, record: R) -> io::Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        make_private(folder)?;
        let number = NUMBER.fetch_add(1, Relaxed);
        // Containers may have the folder in common, and processes of the same numbers.
        let world = fs::metadata("/proc/self/ns/pid").map_or(0, |meta| meta.ino());
        let name = format!("{}-{world}-{number}", std::process::id());
        let draft = folder.join(name.clone() + DRAFT);
        let mut path = folder.join(name + SUFFIX);
        let file = File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .open(&draft)?;
        file.lock()?;
        file.write_all_at(text(record).as_bytes(), 0)?;
        // A process that has ended may have had the same number, and its file is being removed by somebody.
        while path.exists() {
            path.as_mut_os_string().push(SUFFIX);
        }
        fs::rename(&draft, &path)?;
        let folder = folder.to_path_buf();
        Ok(Self {
            folder,
            file,
            path,
            records: PhantomData,
        })
    }

    /// Tells the others what is so now.
    pub fn tell(&self, record: R) -> io::Result<()> {
        self.file.write_all_at(text(record).as_bytes(), 0)
    }

    /// What the others say that live. What is left of dead ones is removed.
    pub fn others(&self) -> io::Result<Vec<R>> {
        let others = parts(&self.folder)?.into_iter();
        Ok(others
            .filter(|path| *path != self.path)
            .filter_map(|path| look(&path))
            .collect())
    }
}

impl<R> Drop for Ledger<R> {
    fn drop(&mut self) {
        // Whoever looks next would do both.
        let _ = fs::remove_file(&self.path);
        let _ = fs::remove_dir(&self.folder);
    }
}

/// What those say who take part in what `folder` is about; nothing if there is no such folder.
pub fn living<R: Record>(folder: &Path) -> Vec<R> {
    let all = parts(folder).into_iter().flatten();
    all.filter_map(|path| look(&path)).collect()
}

/// Removes the folders beside `folder` of which nobody lives any more.
pub fn sweep(folder: &Path) {
    let beside = folder.parent().and_then(|parent| fs::read_dir(parent).ok());
    for entry in beside.into_iter().flatten().flatten() {
        let path = entry.path();
        if path != folder && path.is_dir() {
            let dead = parts(&path).into_iter().flatten();
            dead.for_each(|part| {
                opened_if_living(&part);
            });
            // It fails where somebody lives.
            let _ = fs::remove_dir(path);
        }
    }
}

/// The files of those who take part.
fn parts(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default();
        if name.as_encoded_bytes().ends_with(SUFFIX.as_bytes()) {
            found.push(path);
        }
    }
    Ok(found)
}

/// The file of another process, unless that has ended: then it goes.
fn opened_if_living(path: &Path) -> Option<File> {
    let file = File::open(path).ok()?;
    // Shared, so that two who look at the same dead one do not take each other for it.
    match file.try_lock_shared() {
        Err(TryLockError::WouldBlock) => Some(file),
        Ok(()) => {
            let _ = fs::remove_file(path);
            None
        }
        Err(TryLockError::Error(_)) => None,
    }
}

/// What the file of another process says, unless that has ended.
fn look<R: Record>(path: &Path) -> Option<R> {
    let file = opened_if_living(path)?;
    let mut text = String::new();
    let most = (N_NUMBERS_MAX * (N_DIGITS + 1)) as u64;
    file.take(most).read_to_string(&mut text).ok()?;
    let words = text.split_ascii_whitespace();
    let numbers: Option<Vec<u64>> = words.map(|word| word.parse().ok()).collect();
    R::of(&numbers?)
}

fn text(record: impl Record) -> String {
    let numbers = record.numbers();
    let words: Vec<_> = numbers.iter().map(|n| format!("{n:0N_DIGITS$}")).collect();
    words.join(" ") + "\n"
}

/// Makes a folder in a folder, both for this user alone. Fails if somebody else has made one of them.
fn make_private(folder: &Path) -> io::Result<()> {
    let me = rustix::process::geteuid().as_raw();
    for folder in [folder.parent().unwrap_or(folder), folder] {
        match DirBuilder::new().mode(0o700).create(folder) {
            Err(cause) if cause.kind() != ErrorKind::AlreadyExists => return Err(cause),
            _ => {}
        }
        let meta = fs::symlink_metadata(folder)?;
        if !meta.is_dir() || meta.uid() != me || meta.mode() & 0o022 != 0 {
            let why = format!("{} is not this user's own folder", folder.display());
            return Err(io::Error::other(why));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn entries(wanted: &[u64]) -> Vec<Entry> {
        let entry = |&wanted| Entry { wanted, held: 0 };
        wanted.iter().map(entry).collect()
    }

    #[test]
    fn what_small_ones_leave_is_divided_among_the_large() {
        for (size, wanted, shares) in [
            (100, &[200][..], &[100][..]),
            (100, &[30], &[30]),
            (100, &[200, 300], &[50, 50]),
            (100, &[20, 300], &[20, 80]),
            (100, &[20, 300, 300, 10], &[20, 35, 35, 10]),
            (100, &[40, 30, 40], &[35, 30, 35]),
            (100, &[40, 20, 40], &[40, 20, 40]),
            (100, &[0, 0], &[0, 0]),
            (0, &[5, 5], &[0, 0]),
            (10, &[7, 7, 7], &[3, 3, 3]),
            (
                u64::MAX,
                &[u64::MAX, u64::MAX],
                &[u64::MAX / 2, u64::MAX / 2],
            ),
        ] {
            let found: Vec<u64> = (0..wanted.len())
                .map(|own| {
                    let mut others = entries(wanted);
                    let own = others.remove(own).wanted;
                    allotment(size, own, &others)
                })
                .collect();
            assert_eq!(found, shares, "{size} for {wanted:?}");
        }
    }

    /// Whatever they want, they get no more than there is, and nothing is left while somebody wants it.
    #[test]
    fn shares_never_exceed_the_size() {
        let mut state = 1u64;
        let mut random = move |n| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1);
            (state >> 33) % n
        };
        for _ in 0..2000 {
            let size = random(1000);
            let wanted: Vec<u64> = (0..1 + random(6)).map(|_| random(500)).collect();
            let share = |own: usize| {
                let mut others = entries(&wanted);
                let own = others.remove(own).wanted;
                allotment(size, own, &others)
            };
            let sum: u64 = (0..wanted.len()).map(share).sum();
            let most = size.min(wanted.iter().sum());
            let n = wanted.len() as u64;
            assert!(
                sum <= most && sum + n > most,
                "{size} for {wanted:?}: {sum}"
            );
        }
    }

    #[test]
    fn those_who_live_are_known_and_those_who_have_ended_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("of-me").join("shared");
        let entry = |wanted, held| Entry { wanted, held };
        let first = Ledger::join(&folder, entry(10 * MIB, 0)).unwrap();
        assert_eq!(first.others().unwrap(), []);
        let second = Ledger::join(&folder, entry(u64::MAX, 3)).unwrap();
        assert_eq!(first.others().unwrap(), [entry(u64::MAX, 3)]);
        second.tell(entry(5, 7)).unwrap();
        assert_eq!(first.others().unwrap(), [entry(5, 7)]);
        assert_eq!(unheld(10, &first.others().unwrap()), 3);
        assert_eq!(second.others().unwrap(), [entry(10 * MIB, 0)]);
        // One that was killed leaves its file, and the lock goes.
        let path = second.path.clone();
        fs::copy(&path, path.with_file_name("99999-0.part")).unwrap();
        drop(second);
        fs::write(folder.join("draft.draft"), "").unwrap();
        assert_eq!(first.others().unwrap(), []);
        assert!(!path.with_file_name("99999-0.part").exists());
        fs::remove_file(folder.join("draft.draft")).unwrap();
        drop(first);
        assert!(!folder.exists());
    }

    #[test]
    fn what_says_something_else_is_not_listened_to() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("me").join("shared");
        let entry = Entry { wanted: 7, held: 3 };
        let first = Ledger::join(&folder, entry).unwrap();
        assert_eq!(living::<Entry>(&folder), [entry]);
        let second = Ledger::join(&folder, entry).unwrap();
        for (text, n_known) in [
            (format!("{:020} {:020}\n", 1, 2), 1),
            (format!("{:020} {:020} {:020}\n", 1, 2, 3), 0),
            (format!("{:020}\n", 1), 0),
            ("?".repeat(5000), 0),
            (String::new(), 0),
        ] {
            fs::write(&second.path, &text).unwrap();
            assert_eq!(first.others().unwrap().len(), n_known, "{text}");
            assert!(second.path.exists(), "it lives");
        }
        assert_eq!(living::<Entry>(&folder.join("none")), []);
    }

    #[test]
    fn what_is_left_of_other_ledgers_goes() {
        let dir = tempfile::tempdir().unwrap();
        let [own, dead, living] = ["own", "dead", "living"].map(|n| dir.path().join("me").join(n));
        let _own = Ledger::join(&own, Entry::default()).unwrap();
        let _living = Ledger::join(&living, Entry::default()).unwrap();
        let ended = Ledger::join(&dead, Entry::default()).unwrap();
        fs::copy(&ended.path, dead.join("1-1.part")).unwrap();
        drop(ended);
        assert!(dead.exists());
        sweep(&own);
        assert!(own.exists() && living.exists() && !dead.exists());
    }

    #[test]
    fn a_folder_of_somebody_else_is_not_trusted() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("me").join("shared");
        fs::create_dir_all(&folder).unwrap();
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o777);
        fs::set_permissions(dir.path().join("me"), open).unwrap();
        let error = Ledger::join(&folder, Entry::default()).unwrap_err();
        assert!(error.to_string().contains("not this user's own"), "{error}");
    }
}
