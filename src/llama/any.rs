//! What a cache of experts on devices needs of its model, whether that streams or not.

use super::model::Model;
use super::record::Observer;
use super::workload::Workload;
use crate::device::Cache;
use crate::drafts::Batch;
use crate::error::Result;
use crate::trace::Picks;
use std::sync::Arc;

/// A loaded model with experts in memory or on disk.
#[derive(Clone)]
pub enum AnyModel {
    /// One that streams.
    Streamed(Arc<Model>),
    /// One that does not.
    Loaded(Arc<Observer>),
}

impl AnyModel {
    /// Saves what was learnt so far, if a profile is saved.
    pub fn save(&self) -> Result<()> {
        match self {
            Self::Streamed(model) => model.save_profile(),
            Self::Loaded(observer) => observer.save_profile(),
        }
    }

    /// What is known and learnt of its workload.
    pub fn workload(&self) -> Option<&Workload> {
        match self {
            Self::Streamed(model) => model.workload(),
            Self::Loaded(observer) => observer.workload(),
        }
    }

    /// The blocks of its layers, ascending.
    pub fn blocks(&self) -> &[u32] {
        match self {
            Self::Streamed(model) => &model.blocks,
            Self::Loaded(observer) => &observer.blocks,
        }
    }

    /// Experts that a token uses of a layer, at most.
    pub fn n_used(&self) -> u32 {
        match self {
            Self::Streamed(model) => model.n_used(),
            Self::Loaded(observer) => observer.n_used,
        }
    }

    /// A layer was computed on a device. Of models that stream neither trace nor profile hear of that.
    pub fn see(&self, layer: usize, picks: Picks, batch: &Batch) {
        if let Self::Loaded(observer) = self {
            observer.see(layer, picks, batch);
        }
    }

    /// Devices hold experts of it.
    pub fn note_pools(&self, cache: &Cache) {
        if let Self::Loaded(observer) = self {
            observer.note_pools(&cache.specs(observer.blocks.len()));
        }
    }
}
