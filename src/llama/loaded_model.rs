//! A loaded model, for what does not depend on whether it streams.

use super::model::Model;
use super::observer::Observer;
use super::workload::Workload;
use crate::device::DeviceCache;
use crate::draft_tokens::Batch;
use crate::engine::Engine;
use crate::error::Result;
use crate::trace::Picks;
use std::sync::Arc;
use std::time::Instant;

/// A loaded model with experts in memory or on disk.
#[derive(Clone)]
pub enum LoadedModel {
    /// One that streams.
    Streamed(Arc<Model>),
    /// One that does not.
    Loaded(Arc<Observer>),
}

impl LoadedModel {
    /// Saves what was learnt so far, if a profile is saved.
    pub fn save(&self) {
        match self {
            Self::Streamed(model) => model.save_profile(),
            Self::Loaded(observer) => observer.save_profile(),
        }
    }

    /// Ends the recording of the routing, if there is one.
    pub fn end_recording(&self) {
        let recording = match self {
            Self::Streamed(model) => model.made_engine().and_then(Engine::recording),
            Self::Loaded(observer) => observer.recording(),
        };
        if let Some(recording) = recording {
            recording.finish();
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
    pub fn top_k(&self) -> u32 {
        match self {
            Self::Streamed(model) => model.top_k(),
            Self::Loaded(observer) => observer.top_k,
        }
    }

    /// What reads its experts, if it streams; made on the first call.
    pub fn engine(&self) -> Result<Option<&Engine>> {
        match self {
            Self::Streamed(model) => model.engine().map(Some),
            Self::Loaded(_) => Ok(None),
        }
    }

    /// What reads its experts, if it streams and that is made.
    pub fn made_engine(&self) -> Option<&Engine> {
        match self {
            Self::Streamed(model) => model.made_engine(),
            Self::Loaded(_) => None,
        }
    }

    /// Which of the models of this process it is.
    pub fn life(&self) -> u64 {
        match self {
            Self::Streamed(model) => model.life.number,
            Self::Loaded(observer) => observer.life.number,
        }
    }

    /// When it was loaded.
    pub fn loaded_at(&self) -> Instant {
        match self {
            Self::Streamed(model) => model.life.begin,
            Self::Loaded(observer) => observer.life.begin,
        }
    }

    /// Whether it streams.
    pub fn streams(&self) -> bool {
        matches!(self, Self::Streamed(_))
    }

    /// A layer was computed on a device. If it streams, its engine knows from what the device asked of it.
    pub fn learn(&self, layer: usize, picks: Picks, batch: &Batch) {
        if let Self::Loaded(observer) = self {
            observer.learn(layer, picks, batch);
        }
    }

    /// Devices hold experts of it.
    pub fn note_devices(&self, cache: &DeviceCache) {
        let pools = cache.specs(self.blocks().len());
        match self {
            Self::Streamed(model) => model.note_devices(pools),
            Self::Loaded(observer) => observer.note_devices(&pools),
        }
    }
}
