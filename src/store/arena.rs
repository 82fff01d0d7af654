//! One block of memory that holds every slot.

// mmap has no safe form.
#![allow(unsafe_code)]

use rustix::io::Errno;
use rustix::mm::{Advice, MapFlags, MprotectFlags, ProtFlags};
use rustix::mm::{madvise, mmap_anonymous, mprotect, munmap};
use std::ffi::c_void;
use std::io;
use std::ops::Range;
use std::ptr;
use std::sync::Mutex;

use crate::error::{Error, Result};

/// Size and alignment of a huge page on x86-64, and on ARM with 4 KiB pages.
const HUGE_PAGE: usize = 2 << 20;

/// Takes memory back.
#[cfg(target_os = "linux")]
const DROP: Advice = Advice::LinuxDontNeed;
#[cfg(not(target_os = "linux"))]
const DROP: Advice = Advice::DontNeed;

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
        let too_large = || refused(n_bytes, Errno::NOMEM.into());
        let len = n_bytes
            .checked_next_multiple_of(page_size())
            .ok_or_else(too_large)?;
        if len < HUGE_PAGE {
            let addr = map(len).map_err(|cause| refused(n_bytes, cause))?;
            return Ok(Self::mapped(addr, len));
        }
        // mmap promises page alignment only: map more, and give back both ends.
        let mapped = len.checked_add(HUGE_PAGE).ok_or_else(too_large)?;
        let start = map(mapped).map_err(|cause| refused(n_bytes, cause))?;
        let addr = start.next_multiple_of(HUGE_PAGE);
        unmap(start, addr - start);
        unmap(addr + len, start + mapped - (addr + len));
        let arena = Self::mapped(addr, len);
        #[cfg(target_os = "linux")]
        arena.advise_all(Advice::LinuxHugepage);
        Ok(arena)
    }

    /// Lets `range`, counted from the arena's beginning, be used, in whole pages around it. Does nothing where
    /// that is so already.
    ///
    /// Fails if the system promises no more memory. Panics if `range` leaves the arena.
    pub fn open(&self, range: Range<usize>) -> io::Result<()> {
        let (at, len) = self.pages_around(range);
        if len == 0 {
            // Linux allows what concerns no page; qemu, which runs programs of other processors, does not.
            return Ok(());
        }
        let access = MprotectFlags::READ | MprotectFlags::WRITE;
        // SAFETY: the pages are inside the mapping, and those that are in use stay as they are.
        Ok(unsafe { mprotect(at, len, access) }?)
    }

    /// Says how all of it is to be mapped. Failure, on a kernel without huge pages, changes nothing but
    /// speed.
    #[cfg(target_os = "linux")]
    fn advise_all(&self, advice: Advice) {
        let _ = self.advise(0..self.len, advice);
    }

    fn advise(&self, range: Range<usize>, advice: Advice) -> io::Result<()> {
        let (at, len) = self.pages_around(range);
        // SAFETY: the pages are inside the mapping. No byte of them changes but by `DROP`, which only `discard`
        // says: its caller promises that nobody uses them.
        Ok(unsafe { madvise(at, len, advice) }?)
    }

    fn mapped(addr: usize, len: usize) -> Self {
        let arena = Self {
            addr,
            len,
            has_holes: Mutex::default(),
        };
        #[cfg(target_os = "linux")]
        for advice in [Advice::LinuxDontFork, Advice::LinuxDontDump] {
            arena.advise_all(advice);
        }
        arena
    }

    /// Lets the system take memory for it from all NUMA nodes in turns, because threads on all of them compute with each
    /// expert. Memory that is there already stays where it is.
    ///
    /// Fails where the system cannot, and then nothing has changed.
    #[cfg(target_os = "linux")]
    pub fn interleave(&self) -> io::Result<()> {
        let nodes = numa_nodes()?;
        // SAFETY: the mapping lives, no byte of it changes, and the mask has 64 bits: the call wants to know one more.
        let result = unsafe {
            libc::syscall(libc::SYS_mbind, self.addr, self.len, libc::MPOL_INTERLEAVE, &raw const nodes, 65, 0)
        };
        match result {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Fails: other systems place memory themselves.
    #[cfg(not(target_os = "linux"))]
    pub fn interleave(&self) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn check_range(&self, range: &Range<usize>) {
        assert!(
            range.start <= range.end && range.end <= self.len,
            "{range:?} of {}",
            self.len
        );
    }

    /// Address and length of the whole pages around `range`. Panics if `range` leaves the arena.
    fn pages_around(&self, range: Range<usize>) -> (*mut c_void, usize) {
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
        // A huge page that `range` has a part of would be kept whole, and be charged to us, until the
        // system is short of memory. This call splits it first. It is advice, and may fail.
        #[cfg(target_os = "linux")]
        let _ = self.advise(begin..end, Advice::LinuxCold);
        self.advise(begin..end, DROP)
    }

    /// Copies `from`, counted from the arena's beginning, to `to`. Nobody may write to either meanwhile, or read the
    /// latter.
    ///
    /// Panics if one leaves the arena or they overlap.
    pub fn copy(&self, from: Range<usize>, to: usize) {
        let n_bytes = from.len();
        self.check_range(&from);
        self.check_range(&(to..to + n_bytes));
        assert!(from.end <= to || to + n_bytes <= from.start, "{from:?} and {to} overlap");
        let at = |begin: usize| ptr::with_exposed_provenance_mut::<u8>(self.addr + begin);
        // SAFETY: both are inside the mapping, and apart.
        unsafe { ptr::copy_nonoverlapping(at(from.start).cast_const(), at(to), n_bytes) }
    }

    /// From now on memory is found only when it is used. Waits for a [commit](Self::commit) that is under way.
    fn stop_commits(&self) {
        let mut has_holes = self.has_holes.lock().expect("no thread panics with it");
        if !std::mem::replace(&mut *has_holes, true) {
            #[cfg(target_os = "linux")]
            self.advise_all(Advice::LinuxNoHugepage);
        }
    }

    /// Lets the system find memory for the whole pages around `range`, counted from the arena's beginning, before
    /// it is used: that takes time, which a read would wait for. What is there stays as it is. False if the
    /// system does not know how, or some memory was given back: then it is not to be taken again.
    #[cfg(target_os = "linux")]
    pub fn commit(&self, range: Range<usize>) -> bool {
        let has_holes = self.has_holes.lock().expect("no thread panics with it");
        !*has_holes && self.advise(range, Advice::LinuxPopulateWrite).is_ok()
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

/// A bit for each NUMA node, of the first 64, whose memory this process may have. Fails if it was told to take memory in
/// another way, as by numactl.
#[cfg(target_os = "linux")]
fn numa_nodes() -> io::Result<u64> {
    let mut mode: libc::c_int = 0;
    // SAFETY: there is room for one number, and no mask and no address are asked about.
    let result = unsafe { libc::syscall(libc::SYS_get_mempolicy, &raw mut mode, ptr::null::<u64>(), 0, 0, 0) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    if mode != libc::MPOL_DEFAULT {
        return Err(io::ErrorKind::ResourceBusy.into());
    }
    let status = std::fs::read_to_string("/proc/self/status")?;
    let masks = status.lines().find_map(|line| line.strip_prefix("Mems_allowed:"));
    // Groups of 32 bits, the lowest ones last.
    let mut groups = masks.unwrap_or_default().trim().rsplit(',');
    let mut group = || groups.next().and_then(|group| u64::from_str_radix(group, 16).ok()).unwrap_or(0);
    Ok(group() | group() << 32)
}

fn refused(n_bytes: usize, cause: io::Error) -> Error {
    Error::system(
        format!("HOTSET_RAM={n_bytes}: the system does not map that many bytes"),
        cause,
    )
}

/// Bytes in a page of memory.
pub(super) fn page_size() -> usize {
    rustix::param::page_size()
}

/// Maps addresses that nobody can use yet.
fn map(len: usize) -> io::Result<usize> {
    // NORESERVE: memory is promised page by page, not for the whole budget at once.
    let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
    // SAFETY: without FIXED a new mapping replaces no other.
    let addr = unsafe { mmap_anonymous(ptr::null_mut(), len, ProtFlags::empty(), flags) }?;
    Ok(addr.expose_provenance())
}

/// Unmaps a part of a mapping made by `map`.
fn unmap(addr: usize, len: usize) {
    if len > 0 {
        // SAFETY: the callers name a range of their own mapping which nobody uses any more.
        let unmapped = unsafe { munmap(ptr::with_exposed_provenance_mut(addr), len) };
        unmapped.unwrap_or_else(|cause| panic!("munmap of {len} bytes at {addr:#x}: {cause}"));
    }
}
