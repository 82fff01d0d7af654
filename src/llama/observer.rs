//! Models of which nothing is streamed: their routing is recorded, and profiles learn from it.

use super::lives::{self, Life};
use super::picks::picks;
use super::sys::ggml_tensor;
use super::target::Target;
use super::workload::Workload;
use crate::engine::layout::Tensor;
use crate::engine::{Batch, Drafts, Sure};
use crate::gguf::expert_part;
use crate::profile::Lesson;
use crate::sync::lock_soon;
use crate::trace::{Picks, PoolSpec, Recording};
use crate::tracker::Phase;
use arc_swap::ArcSwap;
use std::sync::{Arc, LazyLock, Mutex};

/// What becomes of the routing of a model that is loaded as usual.
pub struct Observer {
    /// The model's name, if it has one.
    pub name: Option<String>,
    /// As that of a model that streams.
    pub life: Life,
    /// Experts that a token uses of a layer.
    pub top_k: u32,
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
    fn learn(&mut self, layer: usize, picks: Picks, batch: &Batch) {
        while let Some(sure) = self.drafts.settle(layer, batch) {
            self.count(&sure);
        }
        match self.drafts.sort(layer, picks, batch) {
            Some(sure) => self.count(&sure),
            None => {
                let phase = Phase::new(batch.is_prefill(picks.n_tokens()));
                let counts = &mut self.lesson.layers[layer][phase as usize];
                picks
                    .rows()
                    .flatten()
                    .for_each(|&id| counts[id as usize] += 1);
                self.count_tokens(layer, phase, picks.n_tokens());
            }
        }
    }

    fn count(&mut self, sure: &Sure) {
        let phase = Phase::Decode;
        let counts = &mut self.lesson.layers[sure.layer][phase as usize];
        for (&expert, &rows) in sure.picked.experts.iter().zip(&sure.picked.rows) {
            counts[expert as usize] += u64::from(rows);
        }
        self.count_tokens(sure.layer, phase, sure.n_tokens);
    }

    /// The last layer computes only what a prompt's output needs, which looks like generation: the first
    /// one has all tokens.
    fn count_tokens(&mut self, layer: usize, phase: Phase, n_tokens: u32) {
        if layer == 0 {
            *self.lesson.tokens.of_mut(phase) += u64::from(n_tokens);
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
    pub fn learn(&self, layer: usize, picks: Picks, batch: &Batch) {
        if let Some(recording) = &self.recording {
            let spots = batch.spots(picks.n_tokens());
            recording.record(layer as u32, picks, spots, batch.is_aside());
        }
        if let Some(watch) = &self.watch {
            watch.lock().expect(WATCHED).learn(layer, picks, batch);
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
        if let (Some(workload), Some(lesson)) = (&self.workload, self.lesson()) {
            workload.learn(&lesson);
        }
    }

    /// All that was picked, by layer, if it is counted. `None` as there.
    pub fn lesson(&self) -> Option<Lesson> {
        let watch = self.watch.as_ref()?;
        Some(lock_soon(watch)?.lesson.clone())
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
/// which a token uses `top_k` experts a layer: records it to `target`, and learns the profile of `workload`.
pub fn observe(
    name: Option<String>,
    top_k: u32,
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
        life: lives::next(),
        top_k,
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
    observer.learn(*layer as usize, picks, batch);
    Some((*layer as usize, picks))
}

/// Tokens are dropped from the memory of a context, see [`Drafts::drop_tokens`].
pub fn drop_tokens(memory: usize, seq: i32, begin: i32, end: i32) {
    for (_, observed) in OBSERVED.load().iter().filter(|(_, o)| o.layer == 0) {
        observed.observer.drop_tokens(memory, seq, begin, end);
    }
}
