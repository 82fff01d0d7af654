//! Packed experts: a file of the experts of one model, in the order in which they are read and as one processor
//! computes them.
//!
//! It begins with a line of JSON, [`Head`], that is filled up to a multiple of 4 KiB with zeros. Then come the
//! layers, in each of them its experts, and of each expert its parts side by side, filled up in the same way. So the whole
//! of an expert is one span of the file, and of a read nothing is wasted on alignment.

mod head;
mod source;
mod write;

pub use head::{Head, PLAIN, Packed, PackedExpert, beside};
pub use source::{Stamp, samples, stamps};
pub use write::{Writer, target_of};
