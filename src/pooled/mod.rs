//! Pools of slots with all that is known of their layers: who is told what of a routing event, and in which order.
//!
//! The streamed experts of a model (`engine`), those on a device (`device`) and those of other engines (`cache`) are pools
//! of this kind. They add where the bytes are.

mod pool;
mod pools;

pub use pool::Pooled;
pub use pools::{Given, Place, Places, Pools};
