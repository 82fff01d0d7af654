//! One block of memory that holds every slot.

// mmap has no safe form.
#![allow(unsafe_code)]

use std::io;
use std::ops::Range;
use std::ptr;
use std::sync::Mutex;

use crate::error::{Error, Result};

/// Size and alignment of a huge page on x86-64, and on ARM with 4 KiB pages.
const HUGE_PAGE: usize = 2 << 20;

/// An anonymous private mapping, unmapped on drop.
///
/// The system commits a page when it is first written, so an arena may be larger than the memory
/// there is. Nothing here hands out a reference: the bytes are written by the kernel and read by C
/// through raw pointers, and who may touch which part when is the promise of the arena's user.
#[derive(Debug)]
pub struct Arena {
    addr: usize,
    len: usize,
    /// Whether parts of it were given back. Held while memory is found in advance, so that none of what is
    /// given back comes again.
    has_holes: Mutex<bool>,
}

impl Arena {
    /// Maps `n_bytes`, rounded up to whole pages and filled with zeros.
    ///
    /// From 2 MiB on the base is aligned to 2 MiB and huge pages are asked for: a read then pins
    /// a few pages instead of hundreds. A child of this process does not get it: the bytes of a read that is
    /// under way while pages are shared with one may go to the wrong side. Nor does a core file.
    pub fn map(n_bytes: usize) -> Result<Self> {
        let arena = Self::reserve(n_bytes)?;
        arena
            .open(0..arena.len)
            .map_err(|cause| refused(n_bytes, cause))?;
        Ok(arena)
    }

    /// Does the same, but takes addresses only: nobody may touch what was not [opened](Self::open). So much may
    /// be reserved that will probably never be used, also where the system promises no more memory than it has.
    pub fn reserve(n_bytes: usize) -> Result<Self> {
        let too_large = || refused(n_bytes, io::Error::from_raw_os_error(libc::ENOMEM));
        let len = n_bytes
            .checked_next_multiple_of(page_size())
            .ok_or_else(too_large)?;
        if len < HUGE_PAGE {
            let addr = map_anonymous(len).map_err(|cause| refused(n_bytes, cause))?;
            return Ok(Self::mapped(addr, len));
        }
        // mmap promises page alignment only: map more, and give back both ends.
        let mapped = len.checked_add(HUGE_PAGE).ok_or_else(too_large)?;
        let start = map_anonymous(mapped).map_err(|cause| refused(n_bytes, cause))?;
        let addr = start.next_multiple_of(HUGE_PAGE);
        unmap(start, addr - start);
        unmap(addr + len, start + mapped - (addr + len));
        let arena = Self::mapped(addr, len);
        #[cfg(target_os = "linux")]
        arena.advise(libc::MADV_HUGEPAGE);
        Ok(arena)
    }

    /// Lets `range`, counted from the arena's beginning, be used, in whole pages around it. Does nothing where
    /// that is so already.
    ///
    /// Fails if the system promises no more memory. Panics if `range` leaves the arena.
    pub fn open(&self, range: Range<usize>) -> io::Result<()> {
        let (at, len) = self.pages_around(range);
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: the pages are inside the mapping, and those that are in use stay as they are.
        match unsafe { libc::mprotect(at, len, access) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Says how all of it is to be mapped. Failure, on a kernel without huge pages, changes nothing but
    /// speed.
    #[cfg(target_os = "linux")]
    fn advise(&self, advice: libc::c_int) {
        // SAFETY: the range is the mapping, and no byte of it changes.
        unsafe {
            libc::madvise(
                ptr::with_exposed_provenance_mut(self.addr),
                self.len,
                advice,
            );
        }
    }

    fn mapped(addr: usize, len: usize) -> Self {
        let arena = Self {
            addr,
            len,
            has_holes: Mutex::default(),
        };
        #[cfg(target_os = "linux")]
        for advice in [libc::MADV_DONTFORK, libc::MADV_DONTDUMP] {
            arena.advise(advice);
        }
        arena
    }

    fn check_range(&self, range: &Range<usize>) {
        assert!(
            range.start <= range.end && range.end <= self.len,
            "{range:?} of {}",
            self.len
        );
    }

    /// Address and length of the whole pages around `range`. Panics if `range` leaves the arena.
    fn pages_around(&self, range: Range<usize>) -> (*mut libc::c_void, usize) {
        self.check_range(&range);
        let page = page_size();
        let begin = range.start - range.start % page;
        let end = range.end.next_multiple_of(page);
        let at = ptr::with_exposed_provenance_mut(self.addr + begin);
        (at, end - begin)
    }

    /// Address of the first byte.
    pub fn addr(&self) -> usize {
        self.addr
    }

    /// Gives the memory of the whole pages inside `range`, counted from the arena's beginning, back to
    /// the system; they read as zeros until they are written again. Nobody may use these bytes meanwhile.
    /// From the first time on the arena gets no more huge pages: they would fill what was given back.
    ///
    /// Fails if the system keeps them: memory that is locked, for example. Panics if `range` leaves the
    /// arena.
    pub fn discard(&self, range: Range<usize>) -> io::Result<()> {
        self.check_range(&range);
        let page = page_size();
        let begin = range.start.next_multiple_of(page);
        let end = range.end - range.end % page;
        if begin >= end {
            return Ok(());
        }
        self.stop_commits();
        let at = ptr::with_exposed_provenance_mut(self.addr + begin);
        // A huge page that `range` has a part of would be kept whole, and be charged to us, until the
        // system is short of memory. This call splits it first. It is advice, and may fail.
        #[cfg(target_os = "linux")]
        // SAFETY: the range is inside the mapping, and no byte of it changes.
        unsafe {
            libc::madvise(at, end - begin, libc::MADV_COLD);
        }
        // SAFETY: the range is inside the mapping, and the caller says that nobody uses its bytes.
        match unsafe { libc::madvise(at, end - begin, libc::MADV_DONTNEED) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// From now on memory is found only when it is used. Waits for a [commit](Self::commit) that is under way.
    fn stop_commits(&self) {
        let mut has_holes = self.has_holes.lock().expect("no thread panics with it");
        if !std::mem::replace(&mut *has_holes, true) {
            #[cfg(target_os = "linux")]
            self.advise(libc::MADV_NOHUGEPAGE);
        }
    }

    /// Lets the system find memory for the whole pages around `range`, counted from the arena's beginning, before
    /// it is used: that takes time, which a read would wait for. What is there stays as it is. False if the
    /// system does not know how, or some memory was given back: then it is not to be taken again.
    #[cfg(target_os = "linux")]
    pub fn commit(&self, range: Range<usize>) -> bool {
        let (at, len) = self.pages_around(range);
        let has_holes = self.has_holes.lock().expect("no thread panics with it");
        if *has_holes {
            return false;
        }
        // SAFETY: the pages are inside the mapping, and no byte of them changes.
        unsafe { libc::madvise(at, len, libc::MADV_POPULATE_WRITE) == 0 }
    }

    /// As on Linux, where the system does not know how.
    #[cfg(not(target_os = "linux"))]
    pub fn commit(&self, _: Range<usize>) -> bool {
        false
    }

    /// Bytes mapped.
    #[allow(clippy::len_without_is_empty)] // an empty mapping does not exist
    pub fn len(&self) -> usize {
        self.len
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        unmap(self.addr, self.len);
    }
}

fn refused(n_bytes: usize, cause: io::Error) -> Error {
    Error::Setting {
        name: "HOTSET_RAM".into(),
        value: n_bytes.to_string(),
        allowed: format!("the system does not map that many bytes: {cause}"),
    }
}

/// Bytes in a page of memory.
pub(super) fn page_size() -> usize {
    // SAFETY: sysconf reads a constant of the system.
    let n = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(n).expect("every system has a page size")
}

/// Maps addresses that nobody can use yet.
fn map_anonymous(len: usize) -> io::Result<usize> {
    // NORESERVE: memory is promised page by page, not for the whole budget at once.
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: without MAP_FIXED a new mapping replaces no other.
    let addr = unsafe { libc::mmap(ptr::null_mut(), len, libc::PROT_NONE, flags, -1, 0) };
    if addr == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    Ok(addr.expose_provenance())
}

/// Unmaps a part of a mapping made by `map_anonymous`.
fn unmap(addr: usize, len: usize) {
    if len > 0 {
        // SAFETY: the callers name a range of their own mapping which nobody uses any more.
        let status = unsafe { libc::munmap(ptr::with_exposed_provenance_mut(addr), len) };
        assert_eq!(status, 0, "munmap of {len} bytes at {addr:#x}");
    }
}
