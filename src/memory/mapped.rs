//! Weights that a model has mapped from its file and that each token reads.
//!
//! Their pages are the kernel's to drop, so that what says how much memory is free counts them as free, resident or
//! not. Whoever takes that memory has them read again for each token. So they are told, and all that can be dropped
//! of them counts as needed: not what is locked, and not files in memory, which count as used anyway.

use std::fs;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// File systems whose files are memory: tmpfs, ramfs, and one of huge pages.
const IN_MEMORY: [u32; 3] = [0x0102_1994, 0x8584_58f6, 0x9584_58f6];

static MAPPED: AtomicU64 = AtomicU64::new(0);

/// Mapped bytes that will be read again and again, until this is dropped.
#[derive(Debug)]
pub struct Mapped(u64);

impl Mapped {
    /// What of `spans`, addresses of weights, is mapped from files and may be dropped.
    pub fn of(spans: Vec<Range<usize>>) -> Self {
        let mapped = Self(droppable(spans, &mappings()));
        MAPPED.fetch_add(mapped.0, Relaxed);
        mapped
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        MAPPED.fetch_sub(self.0, Relaxed);
    }
}

/// Bytes of all [`Mapped`] of this process.
pub fn mapped() -> u64 {
    MAPPED.load(Relaxed)
}

/// Addresses where files are mapped whose pages the kernel may drop.
fn mappings() -> Vec<Range<usize>> {
    let read = |name: &str| fs::read_to_string(Path::new("/proc/self").join(name)).ok();
    // Which are locked is slow to ask for, and mostly none are.
    let is_locked = crate::proc::field(Path::new("/proc/self/status"), "VmLck:") != Some(0);
    let text = read(if is_locked { "smaps" } else { "maps" });
    parse(&text.unwrap_or_default(), is_in_memory)
}

fn is_in_memory(path: &Path) -> bool {
    rustix::fs::statfs(path).is_ok_and(|fs| IN_MEMORY.contains(&(fs.f_type as u32)))
}

/// Reads `maps`, lines as `7f00-7f80 r--s 00000000 fd:00 1234 /path`, or `smaps`, where each has others after it,
/// the flags of the mapping among them.
fn parse(text: &str, is_in_memory: impl Fn(&Path) -> bool) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut is_found = false;
    for line in text.lines() {
        if let Some((range, path)) = mapping(line) {
            is_found = !path.as_os_str().is_empty() && !is_in_memory(path);
            found.extend(is_found.then_some(range));
        } else if let Some(flags) = line.strip_prefix("VmFlags:")
            && is_found
            && flags.split_whitespace().any(|flag| flag == "lo")
        {
            found.pop();
        }
    }
    found
}

/// A line about a mapping: where it is, and the file if it has one.
fn mapping(line: &str) -> Option<(Range<usize>, &Path)> {
    let mut words = line.splitn(6, ' ');
    let (begin, end) = words.next()?.split_once('-')?;
    let address = |text| usize::from_str_radix(text, 16).ok();
    let range = address(begin)?..address(end)?;
    let inode = words.nth(3)?;
    let path = words.next().unwrap_or("").trim_start();
    Some((range, Path::new(if inode == "0" { "" } else { path })))
}

/// Bytes of `spans`, which may overlap, that lie in `mappings`.
fn droppable(mut spans: Vec<Range<usize>>, mappings: &[Range<usize>]) -> u64 {
    spans.sort_by_key(|span| span.start);
    let mut end = 0;
    let mut n_bytes = 0;
    for span in spans {
        let rest = span.start.max(end)..span.end;
        end = end.max(span.end);
        let within = |mapping: &Range<usize>| {
            let common = rest.start.max(mapping.start)..rest.end.min(mapping.end);
            common.len() as u64
        };
        n_bytes += mappings.iter().map(within).sum::<u64>();
    }
    n_bytes
}

#[cfg(test)]
// Mostly there is one span.
#[allow(clippy::single_range_in_vec_init)]
mod tests {
    use super::*;

    const MAPS: &str = "\
1000-3000 r--s 00000000 fd:00 77                         /models/a b.gguf
3000-4000 rw-p 00000000 00:00 0
4000-6000 r--s 00001000 fd:00 77                         /models/a b.gguf
7000-8000 r--s 00000000 00:19 5                          /dev/shm/m.gguf
8000-9000 rw-p 00000000 00:00 0                          [heap]
";
    const SMAPS: &str = "\
1000-3000 r--s 00000000 fd:00 77   /models/a.gguf
Size:                  8 kB
VmFlags: rd mr me ms
3000-5000 r--s 00000000 fd:00 77   /models/a.gguf
Locked:                8 kB
VmFlags: rd mr me ms lo
5000-6000 rw-p 00000000 00:00 0
VmFlags: rd wr mr mw me ac lo
";

    #[test]
    fn files_that_the_kernel_may_drop_are_found() {
        let in_memory = |path: &Path| path.starts_with("/dev/shm");
        assert_eq!(parse(MAPS, in_memory), [0x1000..0x3000, 0x4000..0x6000]);
        let locked = parse(SMAPS, in_memory);
        assert_eq!(locked.len(), 1);
        assert_eq!(locked[0], 0x1000..0x3000);
        assert!(parse("", in_memory).is_empty());
    }

    #[test]
    fn each_byte_of_a_mapping_counts_once() {
        let mappings = parse(MAPS, |_| false);
        for (spans, n_bytes) in [
            (vec![], 0),
            (vec![0x1000..0x1800], 0x800),
            // As output weights that are the embedding.
            (vec![0x1800..0x2000, 0x1000..0x1800, 0x1000..0x1800], 0x1000),
            (vec![0x1000..0x2000, 0x1800..0x2800], 0x1800),
            // From one mapping to the next, with memory between.
            (vec![0x2000..0x5000], 0x2000),
            (vec![0x3000..0x4000, 0x8000..0x9000, 0x9000..0xa000], 0),
        ] {
            assert_eq!(droppable(spans.clone(), &mappings), n_bytes, "{spans:x?}");
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_program_is_a_file_that_is_mapped() {
        let code = droppable as *const () as usize;
        let span = code..code + 16;
        assert_eq!(Mapped::of(vec![span.clone(), span]).0, 16);
        let own = Box::new([0u8; 64]);
        let address = own.as_ptr() as usize;
        assert_eq!(Mapped::of(vec![address..address + 64]).0, 0);
    }
}
