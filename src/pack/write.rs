//! Writing packed experts, which takes minutes: what was written is not lost when that is interrupted.

use super::head::Head;
use crate::error::{Error, Result};
use crate::numbers;
use crate::output::Place;
use crate::output::names::folder_of;
use std::fs::{self, File, Metadata, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// After so many bytes the system is asked to write them: they are there after a crash.
const SYNC_BYTES: u64 = 256 << 20;

/// A file of packed experts that is being written, under the name of what it will be with `.part` at its end.
#[derive(Debug)]
pub struct Writer {
    file: File,
    path: PathBuf,
    target: PathBuf,
    /// Experts' bytes that are written.
    n_bytes: u64,
    /// Of these, what the system was asked to write.
    n_synced: u64,
    sync_bytes: u64,
}

impl Writer {
    /// Begins the file of `head` that `path` will lead to, or goes on with one that was begun: [`Self::n_bytes`] says how far
    /// it is.
    ///
    /// Fails if somebody else writes it, if what is there is not a file, and if the file system has no room for the rest.
    pub fn begin(path: &Path, head: &Head) -> Result<Self> {
        Self::begin_synced(path, head, SYNC_BYTES)
    }

    fn begin_synced(path: &Path, head: &Head, sync_bytes: u64) -> Result<Self> {
        let target = target_of(path)?;
        let path = part_of(&target);
        let failed = |cause| Error::io(path.clone(), cause);
        let bytes = head.to_bytes();
        let head_bytes = bytes.len() as u64;
        let n_there = fs::metadata(&path).map_or(0, |meta| meta.len());
        check_room(&target, (head_bytes + head.n_bytes).saturating_sub(n_there))?;
        let mut file = open_alone(&path)?;
        let n_there = file.metadata().map_err(failed)?.len();
        let mut there = vec![0; bytes.len().min(n_there as usize)];
        file.read_exact(&mut there).map_err(failed)?;
        let n_bytes = match there == bytes {
            true => {
                let n_bytes = head.n_bytes.min(n_there - head_bytes);
                // The system may have lost what it was not asked to write.
                let largest = head.experts().map(|expert| expert.n_bytes as u64).max().unwrap_or(0);
                whole_experts(head, n_bytes.saturating_sub(sync_bytes + largest))
            }
            false => 0,
        };
        if n_bytes == 0 {
            file.set_len(0).map_err(failed)?;
            file.rewind().map_err(failed)?;
            file.write_all(&bytes).map_err(failed)?;
        }
        file.set_len(head_bytes + n_bytes).map_err(failed)?;
        file.seek(SeekFrom::End(0)).map_err(failed)?;
        Ok(Self {
            file,
            path,
            target,
            n_bytes,
            n_synced: n_bytes,
            sync_bytes,
        })
    }

    /// Bytes of experts that are written.
    pub fn n_bytes(&self) -> u64 {
        self.n_bytes
    }

    /// Adds an expert, filled up.
    pub fn add(&mut self, expert: &[u8]) -> Result<()> {
        let written = self.file.write_all(expert).and_then(|()| {
            self.n_bytes += expert.len() as u64;
            if self.n_bytes - self.n_synced >= self.sync_bytes {
                self.file.sync_data()?;
                self.n_synced = self.n_bytes;
            }
            Ok(())
        });
        written.map_err(|cause| Error::io(self.path.clone(), cause))
    }

    /// All experts are there: the file gets its name.
    pub fn keep(self) -> Result<()> {
        let kept = self.file.sync_all().and_then(|()| fs::rename(&self.path, &self.target));
        kept.map_err(|cause| Error::io(self.path, cause))
    }

    /// What is written is of no use: nobody goes on with it.
    pub fn discard(self) -> Result<()> {
        fs::remove_file(&self.path).map_err(|cause| Error::io(self.path, cause))
    }

    /// Its name until it is whole.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// The file that `path` leads to. Fails if that is none that can be replaced.
pub fn target_of(path: &Path) -> Result<PathBuf> {
    match Place::of(path).map_err(|cause| Error::io(path, cause))? {
        Place::Missing(target) => Ok(target),
        Place::File {
            path: Some(target), ..
        } => Ok(target),
        _ => Err(Error::setting("--output", path.display(), "it is not a file that can be replaced")),
    }
}

/// Opens the file at `path`, which is made if it is not there, for this process alone.
fn open_alone(path: &Path) -> Result<File> {
    let failed = |cause| Error::io(path, cause);
    loop {
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).open(path).map_err(failed)?;
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => {
                return Err(Error::State(format!("{} is being written by another process", path.display())));
            }
            // Where the file system has no locks, nobody is kept out.
            Ok(()) | Err(TryLockError::Error(_)) => {}
        }
        let id = |meta: Metadata| (meta.dev(), meta.ino());
        let own = id(file.metadata().map_err(failed)?);
        // Whoever had the lock may have given the file its name.
        if fs::metadata(path).is_ok_and(|there| id(there) == own) {
            return Ok(file);
        }
    }
}

/// The name under which a file is written.
fn part_of(target: &Path) -> PathBuf {
    let mut name = target.as_os_str().to_os_string();
    name.push(".part");
    name.into()
}

/// Bytes of the whole experts among the first `n_bytes`.
fn whole_experts(head: &Head, n_bytes: u64) -> u64 {
    let ends = head.experts().map(|expert| expert.offset + expert.n_bytes as u64);
    ends.take_while(|end| *end <= n_bytes).last().unwrap_or(0)
}

/// Whether `n_bytes` more can be written beside `target`.
fn check_room(target: &Path, n_bytes: u64) -> Result<()> {
    let folder = folder_of(target);
    let Ok(of) = rustix::fs::statvfs(folder) else {
        return Ok(());
    };
    let room = of.f_bavail.saturating_mul(of.f_frsize);
    if room >= n_bytes {
        return Ok(());
    }
    let why = format!("it takes {} more, and {} are free", numbers::bytes(n_bytes), numbers::bytes(room));
    Err(Error::io(target, io::Error::new(io::ErrorKind::StorageFull, why)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::layout::Tensor;

    fn head(source: &str) -> Head {
        let tensor = |block, n_bytes| Tensor {
            name: format!("{block}"),
            block,
            n_experts: 5,
            n_bytes,
            file: 0,
            offset: 0,
            stride: n_bytes as u64,
        };
        let layouts = [crate::pack::PLAIN, crate::pack::PLAIN].map(str::to_string);
        Head::new(&[tensor(0, 5000), tensor(1, 4096)], &layouts, vec![source.to_string(); 2], Vec::new())
    }

    fn expert(head: &Head, at: usize) -> Vec<u8> {
        let expert = head.experts().nth(at).unwrap();
        vec![at as u8 + 1; expert.n_bytes]
    }

    #[test]
    fn what_was_written_is_kept_when_it_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.packed");
        let head = head("a");
        let whole = {
            let mut bytes = head.to_bytes();
            (0..10).for_each(|at| bytes.extend(expert(&head, at)));
            bytes
        };
        for n_first in 0..10 {
            for n_lost in [0, 1, 4096] {
                let mut writer = Writer::begin_synced(&path, &head, 4096).unwrap();
                assert_eq!(writer.n_bytes(), 0);
                (0..n_first).for_each(|at| writer.add(&expert(&head, at)).unwrap());
                assert!(!path.exists());
                // Nobody else writes it meanwhile.
                assert!(matches!(Writer::begin(&path, &head), Err(Error::State(_))));
                let part = writer.path().to_path_buf();
                drop(writer);
                let n_there = fs::metadata(&part).unwrap().len();
                // What was not synced may be anything.
                let mut there = fs::read(&part).unwrap();
                let n_kept = there.len().saturating_sub(n_lost).max(head.to_bytes().len());
                there[n_kept..].fill(0);
                fs::write(&part, there).unwrap();

                let mut writer = Writer::begin_synced(&path, &head, 4096).unwrap();
                let is_whole = |at: &usize| head.experts().nth(*at).unwrap().offset < writer.n_bytes();
                let n_whole = (0..10).take_while(is_whole).count();
                assert!((n_whole..=n_whole + 3).contains(&n_first), "{n_first} of {n_there}: {n_whole}");
                (n_whole..10).for_each(|at| writer.add(&expert(&head, at)).unwrap());
                writer.keep().unwrap();
                assert!(fs::read(&path).unwrap() == whole, "{n_first} {n_lost}");
                assert!(!part.exists());
                fs::remove_file(&path).unwrap();
            }
        }
    }

    #[test]
    fn what_is_of_another_model_is_begun_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("m.packed");
        let mut writer = Writer::begin_synced(&path, &head("a"), 1).unwrap();
        (0..9).for_each(|at| writer.add(&expert(&head("a"), at)).unwrap());
        drop(writer);
        assert!(Writer::begin_synced(&path, &head("a"), 1).unwrap().n_bytes() > 0);
        assert_eq!(Writer::begin_synced(&path, &head("b"), 1).unwrap().n_bytes(), 0);
        // Nothing of the other one is left.
        assert_eq!(Writer::begin_synced(&path, &head("a"), 1).unwrap().n_bytes(), 0);
    }
}
