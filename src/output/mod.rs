//! Files that programs leave behind: counters, profiles, traces, reports. One rule for all of them.
//!
//! A file is written whole or stays as it was: the bytes go to a temporary file beside it, which then takes its
//! name. A new file has the mode that the umask leaves. Of one that is there, mode, owner, group and links stay.
//! Where that cannot be (a file that is mounted by itself, a folder that takes no files, an owner who cannot be
//! named, several hard links), the file is written in place, and a write that fails puts its old bytes back; what is too large
//! for that is refused instead ([`Draft::whole`]). What is no regular file, a pipe or `/dev/null`, is written to.

mod check;
mod draft;
mod lock;
pub mod names;
mod pace;
mod place;
#[cfg(test)]
mod tests;

pub use check::{Identity, check, check_all, identity};
pub use draft::{Draft, Growing, write};
pub use lock::{Lock, lock};
pub use names::{model_path, numbered};
pub use pace::Pace;
pub use place::Place;
