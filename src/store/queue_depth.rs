//! How much is given to the system at once: enough to keep a disk busy, and no more.
//!
//! A disk that is given many reads works on all of them, and all of them end late. What is computed
//! first needs its bytes first, so reads are cut into pieces, of which only so many are under way as
//! it takes to reach the disk's speed. `way.rs` finds out how many.

use std::fmt;

use bytesize::ByteSize;

/// How much is given to the system at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueDepth {
    /// Pieces under way at once, at least 1. More may be submitted; they wait.
    pub depth: u32,
    /// Bytes of a piece at most, at least 1. Rounded up to the alignment of the file.
    pub piece_bytes: usize,
    /// Whether reads that are under way at once end at once: then what is needed first is read before what is needed
    /// next, and not beside it.
    pub ends_together: bool,
    /// Pieces that may be under way when one more is begun of what is read ahead, and this one. Where all end at once it
    /// is begun alone: whoever needs a piece that was under way before would wait for it as well.
    pub ahead_depth: u32,
    /// Why reads are done as they are.
    pub why: Why,
}

/// Why reads are done as they are, for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// There is nothing to say.
    Usual,
    /// With io_uring more reads at once bring nothing on this file system, and with threads they do.
    RingIsSerial,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Self::Usual => "",
            Self::RingIsSerial => " (io_uring reads one by one here)",
        })
    }
}

impl Default for QueueDepth {
    /// What suits most disks.
    fn default() -> Self {
        Self {
            depth: 8,
            piece_bytes: 1 << 20,
            ends_together: false,
            ahead_depth: 1,
            why: Why::Usual,
        }
    }
}

impl fmt::Display for QueueDepth {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let piece = ByteSize(self.piece_bytes as u64);
        let parts = match self.ends_together {
            true => ", part by part",
            false => "",
        };
        write!(
            f,
            "{} pieces of {} at once{parts}",
            self.depth,
            piece.display().iec_short()
        )
    }
}
