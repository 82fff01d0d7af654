//! Which memory of this process has been touched.

// mincore has no safe form.
#![allow(unsafe_code)]

use std::io;
use std::ops::Range;

use super::arena::page_size;

/// Bytes of the whole pages inside `range` of addresses, and of those that are in memory.
///
/// Fails if the range is not mapped, or the system does not know.
#[cfg(target_os = "linux")]
pub fn resident_bytes(range: Range<usize>) -> io::Result<(usize, usize)> {
    let page = page_size();
    let end = range.end - range.end % page;
    let begin = range.start.checked_next_multiple_of(page);
    let Some(begin) = begin.filter(|&begin| begin < end) else {
        return Ok((0, 0));
    };
    let mut pages = vec![0u8; (end - begin) / page];
    let at = std::ptr::with_exposed_provenance_mut(begin);
    // SAFETY: nothing is read at the addresses, whatever is there; there is a byte for each page.
    if unsafe { libc::mincore(at, end - begin, pages.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // The other bits are for later versions of the system.
    let n_resident = pages.iter().filter(|&&bits| bits & 1 != 0).count();
    Ok((end - begin, n_resident * page))
}

/// As on Linux, where it is not known for memory without a file.
#[cfg(not(target_os = "linux"))]
pub fn resident_bytes(_: Range<usize>) -> io::Result<(usize, usize)> {
    Err(io::ErrorKind::Unsupported.into())
}
