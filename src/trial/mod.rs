//! Whether something pays: how long batches take with it and without.
//!
//! A trial computes some batches on one side and some on the other, and compares what is typical of both. What it
//! compares, how long, and by which bar is a policy's: `engine/governor.rs` asks so of reading ahead, and
//! `device/guard.rs` of the cache on a device. Common to them is here:
//!
//! - `times.rs`: how long a batch took ([`Stopwatch`]), the latest times of a side ([`Latest`]), and what they say
//!   ([`Verdict`], of [`typical`](crate::statistics::typical) times: pauses of the system are left out);
//! - `waits.rs`: how long it is until something is tried again ([`Wait`]);
//! - `turns.rs`: trials that run at once ([`Turn`]). One of them compares at a time, and what the others measure
//!   meanwhile does not count.
//!
//! There is no clock here: whoever asks says what time it is.

mod times;
mod turns;
mod waits;

pub use times::{Latest, Side, Stopwatch, Verdict};
pub use turns::{Turn, Turns};
pub use waits::Wait;
