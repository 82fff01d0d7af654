//! A few bytes from all over a file, to tell whether it still has its content when its times say nothing: `touch`,
//! backups and some file systems change them and nothing else.
//!
//! Whoever writes another model over a file, or copies or downloads it once more, changes it everywhere, so that any
//! of these blocks would tell. A few bytes that are edited are noticed where the kernel tells of it (`watch.rs`).

use std::fs::File;
use std::hash::{DefaultHasher, Hasher};
use std::io;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

/// Blocks of a sample: the first, the last, and as far apart as can be between them.
const N_BLOCKS: u32 = 64;
/// Blocks that are read however long it takes.
const N_BLOCKS_MIN: usize = 8;
/// When no more are read: some 64 of a solid-state drive.
const DEADLINE: Duration = Duration::from_millis(5);
const BLOCK_BYTES: usize = 4096;

/// What some blocks of a file held.
#[derive(Debug)]
pub(super) struct Sample {
    /// Of the file when it was taken.
    len: u64,
    /// Alignment of the file's reads.
    align: usize,
    /// A hash of each block, in the order in which they are read.
    hashes: Vec<u64>,
}

impl Sample {
    /// Reads the blocks of a file of `len` bytes, as many as there is time for.
    pub fn take(file: &File, len: u64, align: usize) -> io::Result<Self> {
        let begin = Instant::now();
        let mut sample = Self {
            len,
            align,
            hashes: Vec::new(),
        };
        for number in 0..N_BLOCKS {
            if sample.hashes.len() >= N_BLOCKS_MIN && begin.elapsed() > DEADLINE {
                break;
            }
            sample.hashes.push(sample.hash(file, number)?);
        }
        Ok(sample)
    }

    /// Whether the blocks still hold the same.
    pub fn is_of(&self, file: &File) -> io::Result<bool> {
        for (number, &hash) in (0..).zip(&self.hashes) {
            if self.hash(file, number)? != hash {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Where the block begins that is read as the `number`-th: each as far from those before it as can be, so that
    /// few are spread like many.
    fn offset(&self, number: u32) -> u64 {
        let block = self.block_bytes() as u64;
        let n_blocks = self.len.div_ceil(block).max(1);
        let step = match number {
            0 => 0,
            1 => N_BLOCKS - 1,
            n => (n - 1).reverse_bits() >> (u32::BITS - N_BLOCKS.ilog2()),
        };
        let at = u128::from(n_blocks - 1) * u128::from(step) / u128::from(N_BLOCKS - 1);
        at as u64 * block
    }

    fn block_bytes(&self) -> usize {
        BLOCK_BYTES.next_multiple_of(self.align)
    }

    fn hash(&self, file: &File, number: u32) -> io::Result<u64> {
        let block = self.block_bytes();
        let align = block.next_power_of_two();
        let mut memory = vec![0; block + align];
        let at = memory.as_ptr().align_offset(align);
        let n = loop {
            match file.read_at(&mut memory[at..at + block], self.offset(number)) {
                Err(cause) if cause.kind() == io::ErrorKind::Interrupted => {}
                read => break read?,
            }
        };
        let mut hasher = DefaultHasher::new();
        hasher.write(&memory[at..at + n]);
        Ok(hasher.finish())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn blocks_are_all_over_the_file_and_the_first_of_them_too() {
        let of = |len| Sample {
            len,
            align: 512,
            hashes: Vec::new(),
        };
        let sample = of(1 << 40);
        let offsets = |n| {
            let mut offsets: Vec<u64> = (0..n).map(|i| sample.offset(i)).collect();
            offsets.sort_unstable();
            offsets
        };
        let widest = |offsets: &[u64]| offsets.windows(2).map(|w| w[1] - w[0]).max().unwrap();
        let (all, few) = (offsets(N_BLOCKS), offsets(N_BLOCKS_MIN as u32));
        assert_eq!((all[0], all[63]), (0, (1 << 40) - 4096));
        assert!(all.iter().all(|offset| offset % 4096 == 0));
        assert!(widest(&all) <= (1 << 40) / 31, "{all:?}");
        assert!(widest(&few) <= (1 << 40) / 4 + (1 << 35), "{few:?}");
        assert!((0..64).all(|i| of(100).offset(i) == 0));
    }

    #[test]
    fn another_content_of_the_same_length_is_told() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&vec![7; 1_000_001]).unwrap();
        let sample = Sample::take(&file, 1_000_001, 1).unwrap();
        assert!(sample.is_of(&file).unwrap());
        file.write_all_at(&[8], 1_000_000).unwrap();
        assert!(!sample.is_of(&file).unwrap());
    }
}
