//! Policies to compare with: each is known from the literature or leaves out what `adaptive` has.

pub(super) mod classlru;
pub(super) mod echo;
pub(super) mod layered;
pub(super) mod lfu;
pub(super) mod lfuda;
pub(super) mod s3fifo;
pub(super) mod slru;
pub(super) mod r#static;
pub(super) mod tinylfu;
pub(super) mod window;

mod lists;
mod queued;
