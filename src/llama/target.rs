//! Where the routing of a model is recorded, and what the header of its file says.

use super::speaker;
use crate::engine::layout::{Layer, Layout, Tensor};
use crate::report;
use crate::trace::{Header, PoolSpec, Recording};
use once_cell::sync::OnceCell;
use std::path::PathBuf;
use std::sync::Arc;

/// A recording that is begun when the shape of its model is known.
pub type Reel = Arc<OnceCell<Arc<Recording>>>;

/// Where the routing of a model is to be recorded.
pub struct Target {
    /// The file.
    pub path: PathBuf,
    /// The model's name, if it has one.
    pub model: Option<String>,
    /// Experts that a token uses of a layer.
    pub top_k: u32,
    /// Layers with experts, whether they can be recorded or not.
    pub n_layers: usize,
    /// What was recorded before of the same model, if anything was.
    pub reel: Reel,
}

impl Target {
    /// Starts to record a model with streamed experts; `preloaded` says that all are resident from the
    /// start.
    pub fn record_pools(self, layout: &Layout, preloaded: bool) -> Arc<Recording> {
        let bytes = |l: &Layer| layout.pools[l.pool].expert_bytes as u64;
        let n_experts = layout.layers.iter().map(|l| l.n_experts);
        let header = Header {
            expert_bytes: layout.layers.iter().map(bytes).collect(),
            pools: pools(layout, preloaded),
            ..self.header(layout.layers.len(), n_experts.max())
        };
        self.record(header)
    }

    /// The header of a recording of a model whose tensors, sorted by block, are loaded as usual.
    pub fn header_of_tensors(&self, tensors: &[Tensor]) -> Header {
        let layers = || tensors.chunk_by(|a, b| a.block == b.block);
        let bytes = |parts: &[Tensor]| parts.iter().map(|t| t.n_bytes as u64).sum();
        let n_experts = tensors.iter().map(|t| t.n_experts);
        Header {
            expert_bytes: layers().map(bytes).collect(),
            ..self.header(layers().count(), n_experts.max())
        }
    }

    fn header(&self, n_layers: usize, n_experts: Option<u32>) -> Header {
        Header {
            n_layers: n_layers as u32,
            n_experts: n_experts.unwrap_or(0),
            top_k: self.top_k,
            model: self.model.clone(),
            phase: Some("mixed".to_string()),
            ranked: true,
            batched: true,
            ..Header::default()
        }
    }

    /// Goes on, or begins with `header`.
    pub fn record(self, header: Header) -> Arc<Recording> {
        let begin = || {
            report::say(&format!(
                "hotset: the routing of {} of {} layers is recorded in {}",
                header.n_layers,
                self.n_layers,
                self.path.display()
            ));
            let recording = Recording::new(self.path, header);
            speaker::follow(recording.notices());
            Arc::new(recording)
        };
        self.reel.get_or_init(begin).clone()
    }
}

fn pools(layout: &Layout, preloaded: bool) -> Vec<PoolSpec> {
    let layers = |pool: usize| {
        let numbered = (0..).zip(&layout.layers);
        numbered
            .filter(move |(_, l)| l.pool == pool)
            .map(|(i, _)| i)
    };
    let pools = layout.pools.iter().enumerate();
    pools
        .map(|(i, pool)| PoolSpec {
            layers: layers(i).collect(),
            n_slots: pool.n_slots_start,
            preloaded,
            device: false,
        })
        .collect()
}
