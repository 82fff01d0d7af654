//! The tensors that hotset reads for llama.cpp, found by their addresses.
//!
//! The table is replaced as a whole when a model comes or goes, so that compute threads read it without a lock.

use super::model::Model;
use arc_swap::ArcSwap;
use std::sync::{Arc, LazyLock};

/// A tensor that hotset reads for llama.cpp.
pub struct Bound {
    /// Its model.
    pub model: Arc<Model>,
    /// Its layer in the model's engine.
    pub layer: usize,
    /// Its part of the layer's experts.
    pub part: usize,
}

/// Bound tensors, sorted by their addresses.
pub type Table = Vec<(usize, Arc<Bound>)>;

/// The tensors of all loaded models.
pub static BOUND: LazyLock<ArcSwap<Table>> = LazyLock::new(ArcSwap::default);

/// The tensor at `address`, if hotset reads it.
pub fn bound(address: usize) -> Option<Arc<Bound>> {
    let table = BOUND.load();
    let at = table.binary_search_by_key(&address, |(address, _)| *address);
    at.ok().map(|at| table[at].1.clone())
}

/// Calls `then` with each model that streams.
pub fn each_model(mut then: impl FnMut(&Model)) {
    for (_, bound) in BOUND.load().iter() {
        // One tensor of each.
        if (bound.layer, bound.part) == (0, 0) {
            then(&bound.model);
        }
    }
}
