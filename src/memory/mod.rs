//! How much memory this process may still take.
//!
//! What the machine has is not the answer in a container: every control group above the process
//! may set a limit, and memory that holds clean file pages counts as used there although the
//! kernel gives it back when asked.

pub mod auto_size;
mod buffers;
pub mod division;
#[cfg(not(target_os = "linux"))]
mod elsewhere;
pub mod fits;
pub(crate) mod groups;
mod limit;
#[cfg(target_os = "linux")]
mod linux;
mod mapped;
#[cfg(target_os = "linux")]
mod promises;
pub mod terms;
pub mod turns;

use crate::error::{Error, Result};
pub use buffers::{Noted, noted};
pub use limit::{Available, Bound};
pub use mapped::{Mapped, mapped};
use bytesize::ByteSize;
#[cfg(not(target_os = "linux"))]
use elsewhere as system;
#[cfg(target_os = "linux")]
use linux as system;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};

/// The least of what the machine and, on Linux, every control group above this process and its own limits leave.
pub fn available() -> Available {
    system::available()
}

/// What may be mapped for use later: bytes, or what the limits of this process leave of addresses.
pub fn addresses() -> Available {
    system::addresses()
}

/// What the system promises to this process beyond what that has mapped, used or not.
pub fn promised() -> Available {
    system::promised()
}

/// Fails if a budget of `n_bytes` for experts is more than this process may still take.
pub fn check(n_bytes: u64) -> Result<()> {
    let Available { bytes, why } = available();
    if n_bytes <= bytes {
        return Ok(());
    }
    let size = |n| ByteSize(n).display().iec();
    Err(Error::setting("HOTSET_RAM", size(n_bytes).to_string(), format!("only {} are available ({why}); try auto", size(bytes))))
}

/// The same of a budget that becomes `n_bytes`, of which experts have `n_bytes_now`, touched or not.
pub fn check_more(n_bytes: u64, n_bytes_now: u64) -> Result<()> {
    let left = u64::try_from(spare()).unwrap_or(0).min(promised().bytes);
    if n_bytes.saturating_sub(n_bytes_now) <= left {
        return Ok(());
    }
    let size = |n| ByteSize(n).display().iec();
    let why = available().why;
    let allowed = format!(
        "experts have {}, and only {} more are available ({why}); try auto",
        size(n_bytes_now),
        size(left)
    );
    Err(Error::setting("HOTSET_RAM", size(n_bytes).to_string(), allowed))
}

/// Memory that this process has allocated, has not touched yet and will touch: it will still grow by about
/// this. That is [`Expected`], and what was [noted](note_buffer); all else that is mapped, as the stacks of
/// threads, may stay empty for ever.
pub fn committed_untouched() -> u64 {
    expected() + buffers::untouched()
}

/// All that is [`Expected`].
pub fn expected() -> u64 {
    EXPECTED.load(Relaxed).max(0) as u64
}

/// A buffer of `n_bytes` at `address` was allocated and will be filled; with 0 bytes, it is about to be freed.
pub fn note_buffer(address: usize, n_bytes: usize) {
    buffers::note(address, n_bytes);
}

/// What the machine and its control groups leave of memory, whatever this process may map.
pub fn room() -> u64 {
    system::room().max(0) as u64
}

/// The same where pages of files are not free that some process has mapped, as the weights of a model: whoever takes
/// them has them read again and again.
pub fn room_beside_mapped() -> u64 {
    system::room_beside_mapped().max(0) as u64
}

/// What this process needs of what counts as available: it has allocated that and not touched it yet, or mapped it.
pub fn needed() -> u64 {
    committed_untouched() + mapped()
}

/// What this process may take beyond all it has allocated: what is available less what is [`needed`]. Negative when
/// it is above a limit, or will be.
pub fn spare() -> i64 {
    measure().spare()
}

/// What there is at one moment.
#[derive(Debug, Clone, Copy)]
pub struct Measure {
    /// What the machine and its control groups leave; negative above a limit.
    pub room: i64,
    /// What this process needs of that.
    pub needed: u64,
}

impl Measure {
    /// See [`spare`].
    pub fn spare(&self) -> i64 {
        self.room - self.needed as i64
    }
}

/// Looks at both.
pub fn measure() -> Measure {
    Measure {
        needed: needed(),
        room: system::room(),
    }
}

/// What the tightest limit is and leaves: of the machine or a control group.
pub fn tightest() -> Bound {
    system::tightest()
}

/// A name of the control group whose memory this process shares with others: the nearest one above it with less than
/// the machine has. Processes of one machine whose names are the same see the same memory.
pub fn group() -> String {
    system::group().unwrap_or_else(|| "machine".into())
}

/// Which of the noted buffers have weights: those with something at these addresses.
pub fn note_weights(addresses: &[usize]) {
    buffers::note_weights(addresses);
}

/// What is expected in this process.
static EXPECTED: AtomicI64 = AtomicI64::new(0);

/// Bytes that will be touched, until this is dropped.
#[derive(Debug, Default)]
pub struct Expected(AtomicI64);

impl Expected {
    /// Now they are `n_bytes` more, or fewer. Adding and taking away may come in any order.
    pub fn add(&self, n_bytes: i64) {
        self.0.fetch_add(n_bytes, Relaxed);
        EXPECTED.fetch_add(n_bytes, Relaxed);
    }
}

impl Drop for Expected {
    fn drop(&mut self) {
        EXPECTED.fetch_sub(*self.0.get_mut(), Relaxed);
    }
}
