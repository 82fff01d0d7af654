//! Which experts are resident, and in which slot: the slots of one pool and the policy that ranks
//! what is in them. It moves no bytes: a [`Plan`] says what to read where.
//!
//! A lane (one threadpool) plans an event, which makes room and pins every slot that the event reads or
//! fills, commits it, which counts it, and releases it once no thread reads the slots any more. Plans of
//! several lanes may be committed at a time and are released in any order. A plan whose fills were not
//! read is rolled back instead. The steps are types: see [`Planned`], [`Committed`], and [`Hold`] for what
//! is read before it is picked.

mod ahead;
mod counts;
mod events;
mod plan;
pub mod pools;
mod resize;
mod slots;
mod spares;
mod warm;

pub use ahead::{Abandoned, Hold};
pub use counts::{Counts, Tally};
pub use plan::{Buffers, Committed, Fill, Plan, Planned, check};
pub use slots::Residency;
