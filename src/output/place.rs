//! What a path leads to.

use super::names::folder_of;
use rustix::io::dup;
use std::fs::{self, File, Metadata};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

/// What a path leads to.
#[derive(Debug)]
pub enum Place {
    /// Nothing yet. A chain of symbolic links may lead to this name.
    Missing(PathBuf),
    /// A regular file, and its path without links. That is `None` where no name leads to it, as for
    /// `/proc/self/fd/5`.
    File {
        /// The path.
        path: Option<PathBuf>,
        /// What the file is.
        meta: Metadata,
    },
    /// What this process writes its output to: its own descriptor, which knows where others wrote last.
    Stream(File),
    /// Anything else.
    Special(Metadata),
}

impl Place {
    /// Follows `path`.
    pub fn of(path: &Path) -> io::Result<Self> {
        let meta = match fs::metadata(path) {
            Ok(meta) => meta,
            Err(cause) if cause.kind() == ErrorKind::NotFound => {
                return Ok(Self::Missing(target_of(path)?));
            }
            // The folder is a file: whoever asks for it will see.
            Err(cause) if cause.kind() == ErrorKind::NotADirectory => {
                return Ok(Self::Missing(path.to_path_buf()));
            }
            Err(cause) => return Err(cause),
        };
        if let Some(stream) = own_stream(&meta) {
            return Ok(Self::Stream(stream));
        }
        if !meta.is_file() {
            return Ok(Self::Special(meta));
        }
        let is_same = |real: &PathBuf| {
            fs::symlink_metadata(real)
                .is_ok_and(|real| (real.dev(), real.ino()) == (meta.dev(), meta.ino()))
        };
        let path = fs::canonicalize(path).ok().filter(is_same);
        Ok(Self::File { path, meta })
    }
}

/// What a file can be that nothing can be written to.
pub fn unwritable(meta: &Metadata) -> Option<&'static str> {
    let kind = meta.file_type();
    if kind.is_dir() {
        Some("a folder")
    } else if kind.is_socket() {
        Some("a socket")
    } else if kind.is_block_device() {
        Some("a disk")
    } else {
        None
    }
}

/// The standard output or error of this process, if that is what `meta` is of.
fn own_stream(meta: &Metadata) -> Option<File> {
    let copies = [dup(rustix::stdio::stderr()), dup(rustix::stdio::stdout())];
    let copies = copies.into_iter().flatten().map(File::from);
    let is_it = |stream: &File| {
        stream
            .metadata()
            .is_ok_and(|own| (own.dev(), own.ino()) == (meta.dev(), meta.ino()))
    };
    copies.into_iter().find(is_it)
}

/// The name that a chain of symbolic links ends with.
fn target_of(path: &Path) -> io::Result<PathBuf> {
    /// As many as Linux follows.
    const N_LINKS_MAX: usize = 40;
    let mut path = path.to_path_buf();
    for _ in 0..=N_LINKS_MAX {
        match fs::read_link(&path) {
            Ok(target) => path = folder_of(&path).join(target),
            Err(_) => return Ok(path),
        }
    }
    Err(io::Error::other("too many symbolic links"))
}
