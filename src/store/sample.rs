//! What a file held, to tell whether it still has its content when its times say nothing: `touch`, backups and some
//! file systems change them and nothing else.
//!
//! Of a small file that is all of it, if there is time. Of others it is a few bytes from all over: whoever writes
//! another model over a file, or copies or downloads it once more, changes it everywhere, so that any of these
//! blocks would tell. A few bytes that are edited are noticed where the kernel tells of it (`watch.rs`).

use super::patience::patiently;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

/// Blocks of a few bytes: the first, the last, and as far apart as can be between them.
const N_BLOCKS: u32 = 64;
/// Blocks that are read however long it takes.
const N_BLOCKS_MIN: u32 = 8;
/// When no more are read: some 64 of a solid-state drive.
const DEADLINE: Duration = Duration::from_millis(5);
const BLOCK_BYTES: usize = 4096;
/// Of a file up to this size all blocks are read: through the page cache, where the one who has just loaded or
/// written it finds it, in some 5 ms.
const WHOLE_BYTES_MAX: u64 = 32 << 20;
/// When a few blocks must do after all: most disks deliver that many bytes in less, and busy machines find the time.
const WHOLE_DEADLINE: Duration = Duration::from_millis(250);
const WHOLE_BLOCK_BYTES: usize = 256 << 10;

/// Opens a file again so that it is read through the page cache.
pub(super) type Cached<'a> = &'a dyn Fn() -> io::Result<File>;

/// What some blocks of a file held, or all of them.
#[derive(Debug)]
pub(super) struct Sample {
    /// Of the file when it was taken.
    len: u64,
    block_bytes: usize,
    is_whole: bool,
    /// A hash of each block, in the order in which they are read.
    hashes: Vec<u64>,
}

impl Sample {
    /// Reads the blocks of a file of `len` bytes, whose reads are aligned to `align`, as many as there is time for.
    pub fn take(file: &File, cached: Cached<'_>, len: u64, align: usize) -> io::Result<Self> {
        let of = |block_bytes: usize, is_whole| Self {
            len,
            block_bytes: block_bytes.next_multiple_of(align),
            is_whole,
            hashes: Vec::new(),
        };
        let mut whole = of(WHOLE_BLOCK_BYTES, true);
        if len <= WHOLE_BYTES_MAX && whole.read(&reader(file, cached)?, 0, WHOLE_DEADLINE)? {
            return Ok(whole);
        }
        let mut few = of(BLOCK_BYTES, false);
        few.read(file, N_BLOCKS_MIN, DEADLINE)?;
        Ok(few)
    }

    /// Reads as many blocks as there is time for, and `n_min` at least. Returns whether that is all there are.
    fn read(&mut self, file: &File, n_min: u32, deadline: Duration) -> io::Result<bool> {
        let begin = Instant::now();
        let mut block = Block::new(self.block_bytes);
        for number in 0..self.n_blocks() {
            if number >= n_min && begin.elapsed() > deadline {
                return Ok(false);
            }
            self.hashes.push(block.hash(file, self.offset(number))?);
        }
        Ok(true)
    }

    /// Whether the blocks still hold the same.
    pub fn is_of(&self, file: &File, cached: Cached<'_>) -> io::Result<bool> {
        let cached = self.is_whole.then(|| reader(file, cached)).transpose()?;
        let file = cached.as_ref().unwrap_or(file);
        let mut block = Block::new(self.block_bytes);
        for (number, &hash) in (0..).zip(&self.hashes) {
            if block.hash(file, self.offset(number))? != hash {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether it is of every byte.
    pub fn is_whole(&self) -> bool {
        self.is_whole
    }

    fn n_blocks(&self) -> u32 {
        match self.is_whole {
            true => self.len.div_ceil(self.block_bytes as u64) as u32,
            false => N_BLOCKS,
        }
    }

    /// Where the block begins that is read as the `number`-th. Where not all are: each as far from those before it
    /// as can be, so that few are spread like many.
    fn offset(&self, number: u32) -> u64 {
        let block = self.block_bytes as u64;
        if self.is_whole {
            return u64::from(number) * block;
        }
        let n_blocks = self.len.div_ceil(block).max(1);
        let step = match number {
            0 => 0,
            1 => N_BLOCKS - 1,
            n => (n - 1).reverse_bits() >> (u32::BITS - N_BLOCKS.ilog2()),
        };
        let at = u128::from(n_blocks - 1) * u128::from(step) / u128::from(N_BLOCKS - 1);
        at as u64 * block
    }
}

/// What a whole file is read by: its own descriptor if there is no other.
fn reader(file: &File, cached: Cached<'_>) -> io::Result<File> {
    cached().or_else(|_| file.try_clone())
}

/// Memory for a block, aligned for direct reads.
struct Block {
    memory: Vec<u8>,
    at: usize,
    n_bytes: usize,
}

impl Block {
    fn new(n_bytes: usize) -> Self {
        let align = n_bytes.next_power_of_two();
        let memory = vec![0; n_bytes + align];
        let at = memory.as_ptr().align_offset(align);
        Self {
            memory,
            at,
            n_bytes,
        }
    }

    /// Of the block of `file` at `offset`; of what there is of it, at the end.
    fn hash(&mut self, file: &File, offset: u64) -> io::Result<u64> {
        let memory = &mut self.memory[self.at..self.at + self.n_bytes];
        let n = patiently(|| file.read_at(memory, offset))?;
        Ok(hash(&memory[..n]))
    }
}

/// Another number for any other bytes, but for a chance of nearly none; as fast as they are read. Each word goes one
/// way into one of four sums, so that one word that differs always makes a difference.
fn hash(bytes: &[u8]) -> u64 {
    const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
    let mix = |sum: u64, word: u64| {
        let product = (sum ^ word).wrapping_mul(ODD);
        product ^ product >> 32
    };
    let word = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().expect("eight bytes"));
    let mut sums = [1, 2, 3, 4];
    let mut rounds = bytes.chunks_exact(32);
    for round in &mut rounds {
        for (sum, bytes) in sums.iter_mut().zip(round.chunks_exact(8)) {
            *sum = mix(*sum, word(bytes));
        }
    }
    let rest = rounds.remainder().iter().map(|&byte| u64::from(byte));
    let all = sums.into_iter().chain(rest);
    all.fold(bytes.len() as u64, mix)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn blocks_are_all_over_the_file_and_the_first_of_them_too() {
        let of = |len| Sample {
            len,
            block_bytes: BLOCK_BYTES,
            is_whole: false,
            hashes: Vec::new(),
        };
        let sample = of(1 << 40);
        let offsets = |n| {
            let mut offsets: Vec<u64> = (0..n).map(|i| sample.offset(i)).collect();
            offsets.sort_unstable();
            offsets
        };
        let widest = |offsets: &[u64]| offsets.windows(2).map(|w| w[1] - w[0]).max().unwrap();
        let (all, few) = (offsets(N_BLOCKS), offsets(N_BLOCKS_MIN));
        assert_eq!((all[0], all[63]), (0, (1 << 40) - 4096));
        assert!(all.iter().all(|offset| offset % 4096 == 0));
        assert!(widest(&all) <= (1 << 40) / 31, "{all:?}");
        assert!(widest(&few) <= (1 << 40) / 4 + (1 << 35), "{few:?}");
        assert!((0..64).all(|i| of(100).offset(i) == 0));
    }

    #[test]
    fn another_content_of_the_same_length_is_told() {
        for (len, is_whole) in [(1_000_001, true), (WHOLE_BYTES_MAX + 1001, false)] {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(&vec![7; len as usize]).unwrap();
            let cached = || Err(io::ErrorKind::NotFound.into());
            let sample = Sample::take(&file, &cached, len, 1).unwrap();
            assert_eq!(sample.is_whole(), is_whole);
            let is_of = || sample.is_of(&file, &cached).unwrap();
            assert!(is_of());
            file.write_all_at(&[8], len - 1).unwrap();
            assert!(!is_of());
            // Of a small file every byte counts.
            file.write_all_at(&[7], len - 1).unwrap();
            file.write_all_at(&[8], 600_001).unwrap();
            assert_eq!(is_of(), !is_whole);
        }
    }

    #[test]
    fn every_bit_makes_another_hash() {
        let mut bytes = vec![0; 100];
        let mut seen: Vec<u64> = vec![hash(&bytes), hash(&bytes[1..])];
        for at in 0..bytes.len() {
            for bit in 0..8 {
                bytes[at] = 1 << bit;
                seen.push(hash(&bytes));
            }
            bytes[at] = 0;
        }
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), 802);
    }
}
