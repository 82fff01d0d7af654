//! Writing.

use super::check::{is_full, said};
use super::names::folder_of;
use super::place::Place;
use super::place::unwritable;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{
    OFlags, XattrFlags, fsetxattr, getxattr, getxattr_query, listxattr, listxattr_query,
};
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Metadata, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Read, Seek, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::NamedTempFile;

/// Age of a temporary file whose writer must be dead.
const STALE: Duration = Duration::from_secs(3600);
/// How long whoever reads a pipe is waited for.
const READER_WAIT_MAX: Duration = Duration::from_secs(10);
/// Files up to this size are put back if writing them in place fails.
const KEPT_BYTES_MAX: u64 = 64 << 20;

/// A file that is being written.
#[derive(Debug)]
pub enum Draft {
    /// Under a temporary name, beside the file that it will be.
    Beside {
        /// What is written.
        file: NamedTempFile,
        /// What it will be called.
        target: PathBuf,
        /// Whether the file that is there may be written over where it cannot be replaced.
        may_overwrite: bool,
    },
    /// What is there already: a regular file of which the first bytes are written anew, or something else.
    InPlace {
        /// What is written.
        file: File,
        /// Whether the file ends where the new bytes end.
        is_regular: bool,
    },
}

impl Draft {
    /// Begins a file that `path` will lead to, and that no failure can leave half written: a file that is there and
    /// could not be replaced as a whole is refused.
    pub fn whole(path: &Path) -> io::Result<Self> {
        Self::begin(path, false)
    }

    fn begin(path: &Path, may_overwrite: bool) -> io::Result<Self> {
        match Place::of(path)? {
            Place::Missing(target) => Ok(Self::Beside {
                file: beside(&target)?,
                target,
                may_overwrite,
            }),
            Place::File { path: real, meta } => {
                let begun = match (real, in_the_way(path, &meta)) {
                    (Some(target), None) => replacement(&target, &meta).map(|file| (file, target)),
                    (_, Some(why)) => Err(io::Error::other(why)),
                    (None, None) => Err(io::Error::other("no name leads to it")),
                };
                match begun {
                    Ok((file, target)) => Ok(Self::Beside {
                        file,
                        target,
                        may_overwrite,
                    }),
                    Err(cause) if is_full(&cause) => Err(cause),
                    Err(_) if may_overwrite => Self::in_place(path),
                    Err(cause) => Err(io::Error::other(format!(
                        "it cannot be replaced as a whole: {}",
                        said(&cause)
                    ))),
                }
            }
            Place::Stream(file) => Ok(Self::InPlace {
                file,
                is_regular: false,
            }),
            Place::Special(meta) => match unwritable(&meta) {
                Some(kind) => Err(io::Error::other(format!("it is {kind}"))),
                None => Ok(Self::InPlace {
                    file: open_special(path)?,
                    is_regular: false,
                }),
            },
        }
    }

    fn in_place(path: &Path) -> io::Result<Self> {
        // Reading is for putting the old bytes back, and may be forbidden.
        let open = |reads| OpenOptions::new().read(reads).write(true).open(path);
        Ok(Self::InPlace {
            file: open(true).or_else(|_| open(false))?,
            is_regular: true,
        })
    }

    fn as_file(&self) -> &File {
        match self {
            Self::Beside { file, .. } => file.as_file(),
            Self::InPlace { file, .. } => file,
        }
    }

    /// Ends the draft: what was written is the file. Returns it, for more to be added.
    ///
    /// A draft that is dropped instead leaves what was there, unless it was written in place.
    pub fn keep(self) -> io::Result<File> {
        let (file, target, may_overwrite) = match self {
            Self::Beside {
                file,
                target,
                may_overwrite,
            } => (file, target, may_overwrite),
            Self::InPlace {
                mut file,
                is_regular,
            } => {
                if is_regular {
                    let n_bytes = file.stream_position()?;
                    file.set_len(n_bytes)?;
                    file.sync_all()?;
                }
                return Ok(file);
            }
        };
        file.as_file().sync_all()?;
        match file.persist(&target) {
            Ok(file) => {
                // The new file is there, and is whole or the old one whatever happens: no error would help.
                let _ = File::open(folder_of(&target)).and_then(|folder| folder.sync_all());
                Ok(file)
            }
            // A file that is mounted by itself cannot be replaced, nor can that of another in some folders.
            Err(refused) if may_overwrite && target.is_file() => {
                let mut source = refused.file.into_file();
                source.rewind()?;
                overwrite(Self::in_place(&target)?, &mut source)
            }
            Err(refused) => Err(refused.error),
        }
    }
}

/// From the beginning of the file.
impl Write for &Draft {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        send(self.as_file(), bytes).map(|()| bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Makes `bytes` the content of the file that `path` leads to. Returns it, for more to be added.
///
/// Errors, after which the file is as it was, as far as the system lets it.
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<File> {
    match Draft::begin(path, true)? {
        draft @ Draft::InPlace { .. } => overwrite(draft, &mut &*bytes),
        draft => send(draft.as_file(), bytes).and_then(|()| draft.keep()),
    }
}

/// Writes in place, and puts a regular file back if that fails.
fn overwrite(draft: Draft, source: &mut dyn Read) -> io::Result<File> {
    let mut old = None;
    if let Draft::InPlace {
        file,
        is_regular: true,
    } = &draft
        && file.metadata()?.len() <= KEPT_BYTES_MAX
    {
        let mut bytes = Vec::new();
        let mut reader = file;
        old = reader.read_to_end(&mut bytes).ok().map(|_| bytes);
        reader.rewind()?;
    }
    let mut buffer = vec![0; 1 << 16];
    let mut copy = || -> io::Result<()> {
        loop {
            let n = source.read(&mut buffer)?;
            if n == 0 {
                return Ok(());
            }
            send(draft.as_file(), &buffer[..n])?;
        }
    };
    let spare = match &old {
        Some(_) => Some(draft.as_file().try_clone()?),
        None => None,
    };
    copy().and_then(|()| draft.keep()).inspect_err(|_| {
        if let (Some(mut file), Some(old)) = (spare, old) {
            // Its blocks are still there: nothing was cut off.
            let _ = file.rewind();
            let _ = file.write_all(&old);
            let _ = file.set_len(old.len() as u64);
        }
    })
}

/// A file that grows, of which each part is there as a whole or not at all.
#[derive(Debug)]
pub struct Growing {
    file: File,
    /// Bytes of whole parts; `None` for what is not regular, or where others write, too.
    n_bytes: Option<u64>,
}

impl Growing {
    /// Replaces the file that `path` leads to by `bytes`. Errors leave it as it was.
    pub fn begin(path: &Path, bytes: &[u8]) -> io::Result<Self> {
        let is_stream = matches!(Place::of(path), Ok(Place::Stream(_)));
        let file = write(path, bytes)?;
        let is_own = !is_stream && file.metadata()?.is_file();
        Ok(Self {
            file,
            n_bytes: is_own.then_some(bytes.len() as u64),
        })
    }

    /// Adds `bytes`. Errors leave the file as it was.
    pub fn add(&mut self, bytes: &[u8]) -> io::Result<()> {
        let sent = send(&self.file, bytes);
        if let Some(n_bytes) = &mut self.n_bytes {
            match sent {
                Ok(()) => *n_bytes += bytes.len() as u64,
                Err(_) => {
                    let _ = self.file.set_len(*n_bytes);
                }
            }
        }
        sent
    }
}

/// Writes all of `bytes`. A reader that does not read is waited for, but not for ever.
fn send(mut file: &File, mut bytes: &[u8]) -> io::Result<()> {
    let wait = Timespec {
        tv_sec: READER_WAIT_MAX.as_secs() as i64,
        tv_nsec: 0,
    };
    while !bytes.is_empty() {
        match file.write(bytes) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(n) => bytes = &bytes[n..],
            Err(cause) if cause.kind() == ErrorKind::Interrupted => {}
            Err(cause) if cause.kind() == ErrorKind::WouldBlock => {
                let mut fds = [PollFd::new(file, PollFlags::OUT)];
                match poll(&mut fds, Some(&wait)) {
                    Ok(0) => return Err(io::Error::other("nobody reads what is written to it")),
                    Ok(_) | Err(rustix::io::Errno::INTR) => {}
                    Err(cause) => return Err(cause.into()),
                }
            }
            Err(cause) => return Err(cause),
        }
    }
    Ok(())
}

/// Opens a pipe or a device, but does not wait for somebody to read.
fn open_special(path: &Path) -> io::Result<File> {
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    let opened = OpenOptions::new()
        .write(true)
        .custom_flags(flags.bits() as i32)
        .open(path);
    opened.map_err(|cause| match cause.raw_os_error() {
        Some(code) if code == rustix::io::Errno::NXIO.raw_os_error() => {
            io::Error::other("nobody reads what is written to it")
        }
        _ => cause,
    })
}

/// Why the file `meta`, to which `path` leads, can be told not to be replaceable before that is tried.
fn in_the_way(path: &Path, meta: &Metadata) -> Option<String> {
    match meta.nlink() {
        1 => is_mount(path).then(|| "it is mounted by itself".to_string()),
        0 => Some("it was removed".to_string()),
        n => Some(format!("it has {n} names, which are hard links")),
    }
}

/// Whether a file is mounted by itself, as into a container; where the system does not say, replacing it shows that.
#[cfg(target_os = "linux")]
fn is_mount(path: &Path) -> bool {
    use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags, statx};
    let found = statx(CWD, path, AtFlags::empty(), StatxFlags::empty());
    found.is_ok_and(|found| found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

#[cfg(not(target_os = "linux"))]
fn is_mount(_: &Path) -> bool {
    false
}

/// A temporary file of the mode, owner and group of `old`, which is `target`.
fn replacement(target: &Path, old: &Metadata) -> io::Result<NamedTempFile> {
    let file = beside(target)?;
    let new = file.as_file().metadata()?;
    if (new.uid(), new.gid()) != (old.uid(), old.gid()) {
        fchown(file.as_file(), Some(old.uid()), Some(old.gid()))?;
    }
    // After the owner: with another one some bits go.
    file.as_file().set_permissions(old.permissions())?;
    copy_attributes(target, file.as_file())?;
    Ok(file)
}

/// Copies who else may read it, and what users have noted of it. What the system notes is its own.
fn copy_attributes(from: &Path, to: &File) -> io::Result<()> {
    let Ok(n_bytes) = listxattr_query(from) else {
        // The file system has none.
        return Ok(());
    };
    let mut names = vec![0; n_bytes];
    let n_bytes = listxattr(from, &mut names[..])?;
    let names = names[..n_bytes].split(|&b| b == 0);
    for name in names.filter(|name| !name.is_empty() && !name.starts_with(b"security.")) {
        let mut value = vec![0; getxattr_query(from, name)?];
        let n_bytes = getxattr(from, name, &mut value[..])?;
        fsetxattr(to, name, &value[..n_bytes], XattrFlags::empty())?;
    }
    Ok(())
}

/// The end of the name of a temporary file.
const SUFFIX: &str = ".tmp";

/// A temporary file beside `target`.
fn beside(target: &Path) -> io::Result<NamedTempFile> {
    let Some(name) = target.file_name() else {
        return Err(io::Error::other("not a name of a file"));
    };
    let folder = folder_of(target);
    let prefix = prefix_of(name);
    remove_stale(folder, &prefix);
    tempfile::Builder::new()
        .prefix(&prefix)
        .suffix(SUFFIX)
        // As for any new file: the system takes the umask away.
        .permissions(Permissions::from_mode(0o666))
        .tempfile_in(folder)
        .map_err(|cause| io::Error::new(cause.kind(), said(&cause)))
}

/// How the names of temporary files of the file `name` begin.
fn prefix_of(name: &OsStr) -> OsString {
    /// What is added must not make a name too long.
    const BYTES_MAX: usize = 100;
    let name = name.as_bytes();
    let name = &name[..name.len().min(BYTES_MAX)];
    OsString::from_vec([b".", name, b"."].concat())
}

/// Removes what writers that were killed have left. Nothing depends on it, so it may fail.
fn remove_stale(folder: &Path, prefix: &OsStr) {
    let is_stale = |entry: &fs::DirEntry| {
        let name = entry.file_name();
        let name = name.as_bytes();
        let age = entry.metadata().and_then(|meta| meta.modified());
        name.starts_with(prefix.as_bytes())
            && name.ends_with(SUFFIX.as_bytes())
            && age.is_ok_and(|time| time.elapsed().is_ok_and(|age| age > STALE))
    };
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if is_stale(&entry) {
            let _ = fs::remove_file(entry.path());
        }
    }
}
