//! Recording the routing of a model: where it goes, what its header says, and models of which
//! nothing is streamed, whose routing teaches a profile too.

use super::loaded::Title;
use super::sys::{ggml_tensor, llama_model, llama_model_meta_val_str};
use super::tapes::Reel;
use super::workload::Workload;
use crate::engine::layout::{Layer, Layout, Tensor};
use crate::engine::{Batch, Drafts, Sure};
use crate::gguf::expert_part;
use crate::profile::Lesson;
use crate::report;
use crate::sync::lock_soon;
use crate::trace::{Header, Picks, PoolSpec, Recording};
use crate::tracker::Phase;
use arc_swap::ArcSwap;
use std::ffi::{CStr, c_char};
use std::path::PathBuf;
use std::sync::{Arc, LazyLock, Mutex};

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
    fn header_of_tensors(&self, tensors: &[Tensor]) -> Header {
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
            top_k: self.n_used,
            model: self.model.clone(),
            phase: Some("mixed".to_string()),
            ranked: true,
            batched: true,
            ..Header::default()
        }
    }

    /// Goes on, or begins with `header`.
    fn record(self, header: Header) -> Arc<Recording> {
        let begin = || {
            report::say(&format!(
                "hotset: the routing of {} of {} layers is recorded in {}",
                header.n_layers,
                self.n_layers,
                self.path.display()
            ));
            Arc::new(Recording::new(self.path, header))
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

/// What a model says of itself.
///
/// # Safety
///
/// `model` is a model of which at least the metadata is loaded.
pub unsafe fn title_of_model(model: *const llama_model) -> Title {
    let value = |key: &CStr| {
        let mut text = [0u8; 256];
        // SAFETY: the caller promises the model; the key is a C string, and the buffer has this size.
        let n = unsafe {
            llama_model_meta_val_str(
                model,
                key.as_ptr(),
                text.as_mut_ptr().cast::<c_char>(),
                text.len(),
            )
        };
        let n = usize::try_from(n).ok()?.min(text.len() - 1);
        Some(String::from_utf8_lossy(&text[..n]).into_owned())
    };
    Title {
        name: value(c"general.name"),
        architecture: value(c"general.architecture"),
    }
}

/// What becomes of the routing of a model that is loaded as usual.
pub struct Observer {
    /// The model's name, if it has one.
    pub name: Option<String>,
    /// Experts that a token uses of a layer.
    pub n_used: u32,
    /// The blocks of its layers.
    pub blocks: Vec<u32>,
    recording: Option<Arc<Recording>>,
    workload: Option<Workload>,
    watch: Option<Mutex<Watch>>,
}

/// What has been picked.
struct Watch {
    lesson: Lesson,
    drafts: Drafts,
}

impl Watch {
    /// A layer was computed for tokens, which may be taken back.
    fn see(&mut self, layer: usize, picks: Picks, batch: &Batch) {
        while let Some(sure) = self.drafts.settle(layer, batch) {
            self.count(&sure);
        }
        match self.drafts.sort(layer, picks, batch) {
            Some(sure) => self.count(&sure),
            None => {
                let phase = Phase::of_batch(picks.n_tokens());
                let counts = &mut self.lesson.layers[layer][phase as usize];
                picks
                    .rows()
                    .flatten()
                    .for_each(|&id| counts[id as usize] += 1);
                self.count_tokens(layer, picks.n_tokens());
            }
        }
    }

    fn count(&mut self, sure: &Sure) {
        let phase = Phase::of_batch(sure.n_tokens);
        let counts = &mut self.lesson.layers[sure.layer][phase as usize];
        for (&expert, &rows) in sure.picked.experts.iter().zip(&sure.picked.rows) {
            counts[expert as usize] += u64::from(rows);
        }
        self.count_tokens(sure.layer, sure.n_tokens);
    }

    /// The last layer computes only what a prompt's output needs, which looks like generation: the first
    /// one has all tokens.
    fn count_tokens(&mut self, layer: usize, n_tokens: u32) {
        if layer == 0 {
            *self.lesson.tokens.of_mut(Phase::of_batch(n_tokens)) += u64::from(n_tokens);
        }
    }
}

impl Observer {
    /// Whether anybody wants to know.
    pub fn is_awake(&self) -> bool {
        self.recording.is_some() || self.watch.is_some()
    }

    /// What records the routing.
    pub fn recording(&self) -> Option<&Recording> {
        self.recording.as_deref()
    }

    /// A layer, by its number in `blocks`, was computed.
    pub fn see(&self, layer: usize, picks: Picks, batch: &Batch) {
        if let Some(recording) = &self.recording {
            recording.record(layer as u32, picks, batch.is_aside());
        }
        if let Some(watch) = &self.watch {
            watch.lock().expect(WATCHED).see(layer, picks, batch);
        }
    }

    /// Devices hold experts of it. What is recorded describes those of its first context.
    pub fn note_devices(&self, pools: &[PoolSpec]) {
        if let Some(recording) = &self.recording {
            recording.note_devices(pools);
        }
    }

    /// As [`Drafts::drop_tokens`].
    fn drop_tokens(&self, memory: usize, seq: i32, begin: i32, end: i32) {
        if let Some(watch) = &self.watch {
            let mut watch = watch.lock().expect(WATCHED);
            watch.drafts.drop_tokens(memory, seq, begin, end);
        }
    }

    /// No tokens will be taken back any more.
    pub fn settle(&self) {
        if let Some(watch) = &self.watch {
            let mut watch = watch.lock().expect(WATCHED);
            for sure in watch.drafts.settle_all() {
                watch.count(&sure);
            }
        }
    }

    /// What is known and learnt of its workload.
    pub fn workload(&self) -> Option<&Workload> {
        self.workload.as_ref()
    }

    /// Saves what was learnt so far, if a profile is saved. Does nothing if an event is being counted and
    /// does not end.
    pub fn save_profile(&self) {
        let lesson = self.watch.as_ref().and_then(|watch| {
            let watch = lock_soon(watch)?;
            Some(watch.lesson.clone())
        });
        if let (Some(workload), Some(lesson)) = (&self.workload, lesson) {
            workload.learn(&lesson);
        }
    }
}

const WATCHED: &str = "no thread panics with it";

/// A tensor whose operations tell the routing of its layer.
struct Observed {
    observer: Arc<Observer>,
    layer: u32,
}

/// One tensor for each observed layer, sorted by their addresses.
type Table = Vec<(usize, Arc<Observed>)>;

/// Those of all models of which nothing is streamed.
static OBSERVED: LazyLock<ArcSwap<Table>> = LazyLock::new(ArcSwap::default);

/// Observes the routing of a model called `name` that is loaded as usual, of its `tensors` at `addresses`, of
/// which a token uses `n_used` experts a layer: records it to `target`, and learns the profile of `workload`.
pub fn observe(
    name: Option<String>,
    n_used: u32,
    target: Option<Target>,
    workload: Option<Workload>,
    addresses: &[usize],
    tensors: &[Tensor],
) -> Arc<Observer> {
    let mut order: Vec<usize> = (0..tensors.len()).collect();
    order.sort_by_key(|&i| expert_part(&tensors[i].name));
    let sorted: Vec<_> = order.iter().map(|&i| tensors[i].clone()).collect();
    let layers = || sorted.chunk_by(|a, b| a.block == b.block);
    let n_experts: Vec<u32> = layers().map(|parts| parts[0].n_experts).collect();
    let recording = |target: Target| {
        let header = target.header_of_tensors(&sorted);
        target.record(header)
    };
    let watch = || Watch {
        lesson: Lesson::new(&n_experts),
        drafts: Drafts::default(),
    };
    let learns = workload.as_ref().is_some_and(Workload::learns);
    let observer = Arc::new(Observer {
        name,
        n_used,
        blocks: layers().map(|parts| parts[0].block).collect(),
        recording: target.map(recording),
        watch: learns.then(|| Mutex::new(watch())),
        workload,
    });
    let firsts = order.chunk_by(|&a, &b| tensors[a].block == tensors[b].block);
    let mut table = OBSERVED.load().to_vec();
    for (layer, parts) in (0..).zip(firsts) {
        let observer = observer.clone();
        let observed = Observed { observer, layer };
        table.push((addresses[parts[0]], Arc::new(observed)));
    }
    table.sort_by_key(|(address, _)| *address);
    OBSERVED.store(Arc::new(table));
    observer
}

/// Whether anybody wants to know of any of them.
pub fn observes() -> bool {
    let table = OBSERVED.load();
    table
        .iter()
        .any(|(_, observed)| observed.observer.is_awake())
}

/// Those of all models of which nothing is streamed.
pub fn observers() -> Vec<Arc<Observer>> {
    let table = OBSERVED.load();
    let firsts = table.iter().filter(|(_, observed)| observed.layer == 0);
    firsts.map(|(_, first)| first.observer.clone()).collect()
}

/// Ends what [`observe`] began.
pub fn end(observer: &Arc<Observer>) {
    let mut table = OBSERVED.load().to_vec();
    table.retain(|(_, observed)| !Arc::ptr_eq(&observed.observer, observer));
    OBSERVED.store(Arc::new(table));
}

/// The router has picked experts for an operation of `batch` on the weights at `address`. Returns what it picked,
/// and the layer it was for, if the weights are of a model that is observed.
///
/// # Safety
///
/// As [`picks`].
pub unsafe fn record<'a>(
    address: usize,
    ids: &'a ggml_tensor,
    batch: &Batch,
) -> Option<(usize, Picks<'a>)> {
    let table = OBSERVED.load();
    let at = table.binary_search_by_key(&address, |(address, _)| *address);
    let Observed { observer, layer } = &*table[at.ok()?].1;
    // SAFETY: passed on from our caller.
    let picks = unsafe { picks(ids) };
    observer.see(*layer as usize, picks, batch);
    Some((*layer as usize, picks))
}

/// Tokens are dropped from the memory of a context, see [`Drafts::drop_tokens`].
pub fn drop_tokens(memory: usize, seq: i32, begin: i32, end: i32) {
    for (_, observed) in OBSERVED.load().iter().filter(|(_, o)| o.layer == 0) {
        observed.observer.drop_tokens(memory, seq, begin, end);
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
