//! Recording the routing of a model: where it goes, what its header says, and models of which
//! nothing is streamed.

use super::sys::{ggml_tensor, llama_model, llama_model_meta_val_str};
use crate::engine::layout::{Layer, Layout, Tensor};
use crate::gguf::expert_part;
use crate::report;
use crate::trace::{Header, Picks, PoolSpec, Recorder};
use arc_swap::ArcSwap;
use once_cell::sync::Lazy;
use std::ffi::c_char;
use std::path::PathBuf;
use std::sync::Arc;

/// Where the routing of a model is to be recorded.
pub struct Target {
    /// The file.
    pub path: PathBuf,
    /// The model's name, if it has one.
    pub model: Option<String>,
    /// Experts that a token uses of a layer.
    pub n_used: u32,
    /// Layers with experts, whether they can be recorded or not.
    pub n_layers: usize,
}

impl Target {
    /// Starts to record a model with streamed experts; `preloaded` says that all are resident from the
    /// start.
    pub fn record_pools(&self, layout: &Layout, preloaded: bool) -> Recorder {
        let bytes = |l: &Layer| layout.pools[l.pool].expert_bytes as u64;
        let n_experts = layout.layers.iter().map(|l| l.n_experts);
        let header = Header {
            expert_bytes: layout.layers.iter().map(bytes).collect(),
            pools: pools(layout, preloaded),
            ..self.header(layout.layers.len(), n_experts.max())
        };
        self.record(header)
    }

    /// Starts to record a model whose tensors, sorted by block, are loaded as usual.
    fn record_tensors(&self, tensors: &[Tensor]) -> Recorder {
        let layers = || tensors.chunk_by(|a, b| a.block == b.block);
        let bytes = |parts: &[Tensor]| parts.iter().map(|t| t.n_bytes as u64).sum();
        let n_experts = tensors.iter().map(|t| t.n_experts);
        let header = Header {
            expert_bytes: layers().map(bytes).collect(),
            ..self.header(layers().count(), n_experts.max())
        };
        self.record(header)
    }

    fn header(&self, n_layers: usize, n_experts: Option<u32>) -> Header {
        Header {
            n_layers: n_layers as u32,
            n_experts: n_experts.unwrap_or(0),
            top_k: self.n_used,
            model: self.model.clone(),
            phase: Some("mixed".to_string()),
            ranked: true,
            batched: true,
            ..Header::default()
        }
    }

    fn record(&self, header: Header) -> Recorder {
        report::say(&format!(
            "hotset: the routing of {} of {} layers is recorded in {}",
            header.n_layers,
            self.n_layers,
            self.path.display()
        ));
        Recorder::new(self.path.clone(), header)
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
            n_slots: pool.n_slots,
            preloaded,
        })
        .collect()
}

/// The name that a model gives itself.
///
/// # Safety
///
/// `model` is a model of which at least the metadata is loaded.
pub unsafe fn name_of_model(model: *const llama_model) -> Option<String> {
    let mut text = [0u8; 256];
    // SAFETY: the caller promises the model; the key is a C string, and the buffer has this size.
    let n = unsafe {
        llama_model_meta_val_str(
            model,
            c"general.name".as_ptr(),
            text.as_mut_ptr().cast::<c_char>(),
            text.len(),
        )
    };
    let n = usize::try_from(n).ok()?.min(text.len() - 1);
    Some(String::from_utf8_lossy(&text[..n]).into_owned())
}

/// A tensor whose operations tell the routing of its layer.
struct Observed {
    recorder: Arc<Recorder>,
    layer: u32,
}

/// One tensor for each recorded layer, sorted by their addresses.
type Table = Vec<(usize, Arc<Observed>)>;

/// Those of all models of which nothing is streamed.
static OBSERVED: Lazy<ArcSwap<Table>> = Lazy::new(ArcSwap::default);

/// Records the routing of a model that is loaded as usual: of its `tensors` at `addresses`.
pub fn observe(target: &Target, addresses: &[usize], tensors: &[Tensor]) -> Arc<Recorder> {
    let mut order: Vec<usize> = (0..tensors.len()).collect();
    order.sort_by_key(|&i| expert_part(&tensors[i].name));
    let sorted: Vec<_> = order.iter().map(|&i| tensors[i].clone()).collect();
    let recorder = Arc::new(target.record_tensors(&sorted));
    let firsts = order.chunk_by(|&a, &b| tensors[a].block == tensors[b].block);
    let mut table = OBSERVED.load().to_vec();
    for (layer, parts) in (0..).zip(firsts) {
        let recorder = recorder.clone();
        let observed = Observed { recorder, layer };
        table.push((addresses[parts[0]], Arc::new(observed)));
    }
    table.sort_by_key(|(address, _)| *address);
    OBSERVED.store(Arc::new(table));
    recorder
}

/// Ends what [`observe`] began.
pub fn end(recorder: &Arc<Recorder>) {
    let mut table = OBSERVED.load().to_vec();
    table.retain(|(_, observed)| !Arc::ptr_eq(&observed.recorder, recorder));
    OBSERVED.store(Arc::new(table));
    recorder.finish();
}

/// The router has picked experts for an operation on the weights at `address`.
///
/// # Safety
///
/// As [`picks`].
pub unsafe fn record(address: usize, ids: &ggml_tensor) {
    let table = OBSERVED.load();
    if let Ok(at) = table.binary_search_by_key(&address, |(address, _)| *address) {
        let observed = &table[at].1;
        // SAFETY: passed on from our caller.
        observed
            .recorder
            .record(observed.layer, unsafe { picks(ids) });
    }
}

/// What a tensor of ids says.
///
/// # Safety
///
/// `ids` is a matrix of 32-bit numbers in memory, a column for each token, and lives as long as the
/// result.
pub unsafe fn picks(ids: &ggml_tensor) -> Picks<'_> {
    const ID_BYTES: usize = size_of::<i32>();
    let [n_used, n_tokens] = [ids.ne[0] as usize, ids.ne[1] as usize];
    assert!(
        ids.nb[0] == ID_BYTES && ids.nb[1].is_multiple_of(ID_BYTES),
        "the ids of one token follow each other"
    );
    let stride = ids.nb[1] / ID_BYTES;
    let n_ids = (n_tokens - 1) * stride + n_used;
    // SAFETY: the caller promises that the tensor lies there, and operations have at least one token.
    let ids = unsafe { std::slice::from_raw_parts(ids.data.cast::<i32>(), n_ids) };
    Picks::new(ids, n_used, stride)
}
