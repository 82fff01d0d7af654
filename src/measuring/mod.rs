//! The benchmark: what is measured of a run, and what that says. `cli/bench` runs it.
//!
//! A *row* is a workload under a memory limit in one variant: stock llama.cpp, or hotset with a policy and
//! a setting of reading ahead. A row is run several times, each time in a process of its own.

pub mod amount;
pub mod bound;
pub mod disk;
pub mod host;
pub mod limited;
pub mod record;
pub mod run;
pub mod spread;
pub mod summary;
pub mod times;

pub use amount::Amount;
pub use bound::{Binds, Bound};
pub use record::{COMPUTE, Difference, Record, STOCK, differences};
pub use run::{Phase, Run, Together};
pub use spread::Spread;
pub use summary::{ALL, Summary, Traced, summarize};
pub use times::Times;
