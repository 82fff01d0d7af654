//! Streams the experts of one model: from a routing event to addresses of weights.
//!
//! The compute side calls two functions. [`Engine::route`] is called by thread 0 of a lane at the
//! start of each expert operation, while the other threads wait at a barrier: it plans the layer's
//! event once, starts all reads of the layer at its first operation, and writes the lane's list.
//! [`Engine::acquire`] is called by every thread for each entry of the list; it takes no lock for an
//! expert that is there. For what a device computes it calls [`Engine::lend`] instead, see `lend.rs`.
//!
//! What makes this correct:
//! - A slot's experts are pinned from the plan of an event until the same lane's next event, or
//!   until all operations of the event are finished; what a device takes, until its loan has ended. Only
//!   unpinned slots are reused.
//! - A slot's arrival bits are cleared under the state lock before the reads that change its bytes
//!   are submitted, and set after the bytes have arrived.
//! - A staging place is read into again only after every thread has left the entry that used it, or its read has
//!   ended and nobody needs it any more.
//! - The ring belongs to one operation of one lane at a time; operations always finish. Nobody waits for one that has
//!   not begun.

mod ahead;
mod arrivals;
mod core;
mod event_life;
mod flight;
mod foresight;
mod governor;
mod io;
mod lane;
pub mod layout;
mod learning;
mod lend;
mod look_ahead;
mod meter;
mod operation;
mod populate;
pub mod predict;
mod progress;
mod prompt;
mod pulse;
mod reading;
mod resize;
mod rewrite;
mod rewriting;
mod ring;
mod route;
mod run;
mod sizing;
mod spending;
mod stall;
mod thinking;
mod waiting;
mod warm;
mod words;

pub use self::core::{Engine, Totals};
pub use crate::draft_tokens::{Batch, Drafts, Sure, Token};
pub use foresight::{AheadTally, Foresight, Inputs, Likely};
pub use governor::When;
pub use lend::{Loan, Piece, Wanted};
pub use meter::{Meter, Spent};
pub use pulse::Pulse;
pub use rewriting::Rewrite;
pub use run::Routing;
pub use sizing::Size;
pub use warm::Warmed;
