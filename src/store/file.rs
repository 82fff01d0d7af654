//! A model file, opened so that reads bypass the page cache where the system lets them.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::content::Content;
use super::patience::patiently;
use crate::error::{Error, Result};

/// The aligned range of a file that covers a slice of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Where the range begins, a multiple of the alignment.
    pub offset: u64,
    /// Its length, a multiple of the alignment. It may reach beyond the end of the file.
    pub len: usize,
    /// Bytes of the range before the slice.
    pub skip: usize,
}

/// The smallest range of multiples of `align` that covers `len` bytes at `offset`.
pub fn span(offset: u64, len: usize, align: usize) -> Span {
    let skip = (offset % align as u64) as usize;
    Span {
        offset: offset - skip as u64,
        len: (skip + len).next_multiple_of(align),
        skip,
    }
}

/// A file of weights, independent of the descriptor it was opened from.
#[derive(Debug)]
pub struct ModelFile {
    file: File,
    path: PathBuf,
    content: Arc<Content>,
    align: usize,
    is_direct: AtomicBool,
    /// Why the file system does not read past the page cache.
    why_buffered: Option<io::Error>,
}

impl ModelFile {
    /// Opens the file behind `fd` once more, so that the caller may close `fd`.
    ///
    /// The new descriptor reads past the page cache where the file system can. If the file cannot
    /// be opened again, because its mode was changed, say, it shares what `fd` has open.
    pub fn open(fd: BorrowedFd<'_>) -> Result<Self> {
        let path = system::path(fd);
        let failed = |cause| Error::io(path.clone(), cause);
        let Opened {
            file,
            align,
            why_buffered,
        } = open_again(fd, &path).map_err(failed)?;
        let cached = || system::open_buffered(fd, &path);
        Ok(Self {
            content: Arc::new(Content::of(&file, &cached, align).map_err(failed)?),
            file,
            path,
            align,
            is_direct: AtomicBool::new(align > 1),
            why_buffered,
        })
    }

    /// The same file with a descriptor of its own, where the system lets us: read in the same way, and nothing of
    /// it is read for that.
    pub(super) fn again(&self) -> Result<Self> {
        let opened = match self.is_direct() {
            true => system::open_direct(self.as_fd(), &self.path),
            false => system::open_buffered(self.as_fd(), &self.path),
        };
        let file = opened.or_else(|_| self.file.try_clone());
        Ok(Self {
            file: file.map_err(|cause| Error::io(self.path.clone(), cause))?,
            path: self.path.clone(),
            content: self.content.clone(),
            align: self.align,
            is_direct: AtomicBool::new(self.is_direct()),
            why_buffered: None,
        })
    }

    /// The name it had when it was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its length in bytes when it was opened.
    #[allow(clippy::len_without_is_empty)] // an empty model is found out elsewhere
    pub fn len(&self) -> u64 {
        self.content.len()
    }

    /// What offsets, lengths and addresses of reads must be multiples of; 1 if nothing.
    pub fn align(&self) -> usize {
        self.align
    }

    /// Whether reads bypass the page cache.
    pub fn is_direct(&self) -> bool {
        self.is_direct.load(Ordering::Acquire)
    }

    /// Why they did not from the beginning, if the file system refused it.
    pub fn why_buffered(&self) -> Option<&io::Error> {
        self.why_buffered.as_ref()
    }

    /// Reads go through the page cache from now on, of the same descriptor and so of the same file. What is
    /// aligned for direct reads is good enough for any. Returns whether it was not so before.
    pub(super) fn stop_direct(&self) -> io::Result<bool> {
        system::stop_direct(&self.file)?;
        Ok(self.is_direct.swap(false, Ordering::AcqRel))
    }

    /// Fails if the file was truncated or written to since it was opened: what is read from now
    /// on would not fit to what was read before. A new file renamed over this one is no problem,
    /// the old one stays until it is closed; nor is another time of the same content.
    pub fn check_unchanged(&self) -> Result<()> {
        let cached = || system::open_buffered(self.as_fd(), &self.path);
        match self.content.change(&self.file, &cached) {
            Ok(None) => Ok(()),
            Ok(Some(why)) => Err(Error::file(self.path.clone(), why)),
            Err(cause) => Err(Error::io(self.path.clone(), cause)),
        }
    }

    /// The same file, read through the page cache.
    pub fn buffered(&self) -> Result<File> {
        system::open_buffered(self.as_fd(), &self.path).map_err(|cause| Error::io(self.path.clone(), cause))
    }

    /// For the queue, which reads.
    pub(super) fn raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}

impl AsFd for ModelFile {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// A file, its alignment, and why it is not read past the page cache if the file system refused that.
struct Opened {
    file: File,
    align: usize,
    why_buffered: Option<io::Error>,
}

/// The best descriptor for the file behind `fd`.
fn open_again(fd: BorrowedFd<'_>, path: &Path) -> io::Result<Opened> {
    let opened = |file, align, why_buffered| Opened {
        file,
        align,
        why_buffered,
    };
    let direct = system::open_direct(fd, path).and_then(|file| {
        let align = alignment(&file)?;
        Ok((file, align))
    });
    let why_buffered = match direct {
        Ok((file, align)) => return Ok(opened(file, align, None)),
        Err(cause) => is_no_to_direct(&cause).then_some(cause),
    };
    if let Ok(file) = system::open_buffered(fd, path) {
        return Ok(opened(file, 1, why_buffered));
    }
    let file = File::from(fd.try_clone_to_owned()?);
    // What is shared is as direct as its owner made it.
    let align = match system::is_direct(&file) {
        true => alignment(&file)?,
        false => 1,
    };
    Ok(opened(file, align, None))
}

/// The smallest alignment at which direct reads of `file` succeed.
fn alignment(file: &File) -> io::Result<usize> {
    let candidates = match system::stated_alignment(file) {
        Some(align) => vec![align],
        None => vec![512, 4096],
    };
    let mut refused = io::ErrorKind::InvalidInput.into();
    for align in candidates {
        match read_at(file, align) {
            Ok(()) => return Ok(align),
            Err(cause) => refused = cause,
        }
    }
    Err(refused)
}

/// Reads at odd multiples of `align`: offset, length and address.
fn read_at(file: &File, align: usize) -> io::Result<()> {
    let mut memory = vec![0; 4 * align];
    let at = memory.as_ptr().align_offset(2 * align) + align;
    let len = file.metadata().map_or(0, |meta| meta.len());
    // Reads beyond the end succeed whatever their alignment.
    let offset = if len > align as u64 { align as u64 } else { 0 };
    patiently(|| file.read_at(&mut memory[at..at + align], offset)).map(|_| ())
}

/// Whether a file system says so when it does not read past the page cache.
pub(super) fn is_no_to_direct(cause: &io::Error) -> bool {
    matches!(cause.raw_os_error(), Some(libc::EINVAL | libc::EOPNOTSUPP))
}

#[cfg(target_os = "linux")]
mod system {
    use super::*;
    use rustix::fs::{AtFlags, OFlags, StatxFlags, fcntl_getfl, fcntl_setfl, statx};
    use std::fs::OpenOptions;
    use std::os::unix::fs::OpenOptionsExt;

    fn link(fd: BorrowedFd<'_>) -> PathBuf {
        format!("/proc/self/fd/{}", fd.as_raw_fd()).into()
    }

    pub fn path(fd: BorrowedFd<'_>) -> PathBuf {
        std::fs::read_link(link(fd)).unwrap_or_else(|_| link(fd))
    }

    /// Opening the link opens the very file, whatever its name refers to by now.
    pub fn open_direct(fd: BorrowedFd<'_>, _: &Path) -> io::Result<File> {
        OpenOptions::new()
            .read(true)
            .custom_flags(OFlags::DIRECT.bits() as i32)
            .open(link(fd))
    }

    pub fn open_buffered(fd: BorrowedFd<'_>, _: &Path) -> io::Result<File> {
        File::open(link(fd))
    }

    pub fn is_direct(file: &File) -> bool {
        fcntl_getfl(file).is_ok_and(|flags| flags.contains(OFlags::DIRECT))
    }

    /// Descriptors that share what `file` has open change with it.
    pub fn stop_direct(file: &File) -> io::Result<()> {
        Ok(fcntl_setfl(file, fcntl_getfl(file)? - OFlags::DIRECT)?)
    }

    /// What the kernel says, from Linux 6.1 on and for most file systems.
    pub fn stated_alignment(file: &File) -> Option<usize> {
        let info = statx(file, c"", AtFlags::EMPTY_PATH, StatxFlags::DIOALIGN).ok()?;
        let is_stated = info.stx_mask & StatxFlags::DIOALIGN.bits() != 0;
        let align = info.stx_dio_mem_align.max(info.stx_dio_offset_align) as usize;
        (is_stated && align > 0).then_some(align)
    }
}

#[cfg(target_os = "macos")]
mod system {
    use super::*;
    use rustix::fs::{fcntl_nocache, getpath};
    use std::ffi::OsString;
    use std::os::unix::ffi::OsStringExt;
    use std::os::unix::fs::MetadataExt;

    pub fn path(fd: BorrowedFd<'_>) -> PathBuf {
        match getpath(fd) {
            Ok(name) => OsString::from_vec(name.into_bytes()).into(),
            Err(_) => format!("/dev/fd/{}", fd.as_raw_fd()).into(),
        }
    }

    pub fn open_direct(fd: BorrowedFd<'_>, path: &Path) -> io::Result<File> {
        let file = open_buffered(fd, path)?;
        fcntl_nocache(&file, true)?;
        Ok(file)
    }

    pub fn stop_direct(file: &File) -> io::Result<()> {
        Ok(fcntl_nocache(file, false)?)
    }

    /// Opening goes by name, which may refer to another file by now.
    pub fn open_buffered(fd: BorrowedFd<'_>, path: &Path) -> io::Result<File> {
        let file = File::open(path)?;
        let (ours, given) = (
            file.metadata()?,
            File::from(fd.try_clone_to_owned()?).metadata()?,
        );
        if (ours.dev(), ours.ino()) != (given.dev(), given.ino()) {
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok(file)
    }

    /// Whether the owner set F_NOCACHE cannot be asked, and unaligned reads work either way.
    pub fn is_direct(_: &File) -> bool {
        false
    }

    /// Unaligned reads succeed through the cache, so that trying them tells nothing.
    pub fn stated_alignment(_: &File) -> Option<usize> {
        Some(4096)
    }
}
