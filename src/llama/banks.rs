//! The slots of a device, and the uploads into them: from host memory, or of a model that streams through the
//! memory of its engine.

use super::bound::bound;
use super::loaded_model::LoadedModel;
use super::sys::{
    ggml_backend_dev_name, ggml_backend_get_device, ggml_backend_t, ggml_backend_tensor_set,
    ggml_backend_tensor_set_async, ggml_tensor,
};
use super::workload::Workload;
use crate::device::{DeviceCache, PoolOf};
use crate::draft_tokens::Batch;
use crate::engine::{Engine, Loan, Piece, Wanted, Warmed};
use crate::error::Result;
use crate::expert::Shape;
use crate::pooled::Given;
use crate::report::{self, Progress};
use crate::residency::Plan;
use crate::trace::Picks;
use std::ffi::CStr;
use std::sync::Mutex;
use std::time::Instant;

/// The experts of a layer in host memory, one of them for each part.
pub struct Source {
    weights: *const ggml_tensor,
    /// Its part in the engine of a model that streams.
    part: Option<usize>,
}

impl Source {
    /// Of a tensor of the model.
    pub fn new(weights: *const ggml_tensor) -> Self {
        let part = bound(weights as usize).map(|bound| bound.part);
        Self { weights, part }
    }

    /// Bytes of one expert.
    fn n_bytes(&self) -> usize {
        // SAFETY: a tensor of the model, which outlives its caches.
        unsafe { (*self.weights).nb[2] }
    }

    /// Where an expert lies, if nothing streams it.
    fn address(&self, expert: u32) -> usize {
        // SAFETY: as above.
        unsafe { (*self.weights).data as usize + expert as usize * self.n_bytes() }
    }
}

/// A layer that is in the cache.
pub struct BankLayer {
    /// Its number in the model.
    pub number: usize,
    /// Its experts.
    pub n_experts: u32,
    /// What llama.cpp looks up: the slot of each expert, or -1.
    pub slots: *mut i32,
    /// Where its experts come from, by part.
    pub sources: Vec<Source>,
}

/// The slots that layers of one layout share on one device.
pub struct Bank {
    /// The device.
    pub backend: ggml_backend_t,
    /// How many there are.
    pub n_slots: u32,
    /// One for each part.
    pub tensors: Vec<*mut ggml_tensor>,
    /// The layers.
    pub layers: Vec<BankLayer>,
    /// It has a layer that is not known: all of it is llama.cpp's.
    pub is_left: bool,
    /// What the device may still be taking from the engine's memory.
    pub loan: Mutex<Loan>,
}

/// What a cache of which all layers are known is made of.
pub struct Made {
    /// What is decided.
    pub cache: DeviceCache,
    /// As the pools of the cache.
    pub banks: Vec<Bank>,
    /// What is computed.
    pub model: LoadedModel,
}

// SAFETY: the tensors and the backend live while the cache is used, and their pointers are only followed by the
// one thread that llama.cpp uses the cache from.
unsafe impl Send for Made {}
// SAFETY: the same; other threads look at the counters alone, which have a lock.
unsafe impl Sync for Made {}

impl Bank {
    /// What its pool is made for.
    pub fn pool(&self) -> PoolOf {
        let n_experts: Vec<u32> = self.layers.iter().map(|l| l.n_experts).collect();
        let bytes: Vec<u64> = self.layers.iter().map(BankLayer::expert_bytes).collect();
        // SAFETY: a backend of the context has a device, whose name lives as long as the program.
        let name =
            unsafe { CStr::from_ptr(ggml_backend_dev_name(ggml_backend_get_device(self.backend))) };
        PoolOf {
            device: name.to_string_lossy().into_owned(),
            layers: self.layers.iter().map(|l| l.number).collect(),
            shape: Shape::with_bytes(&n_experts, &bytes),
            n_slots: self.n_slots,
        }
    }

    /// Writes where the experts of a plan will be.
    fn set_slots(&self, plan: &Plan) {
        for fill in &plan.fills {
            if let Some(victim) = fill.victim {
                self.layers[victim.layer as usize].set_slot(victim.expert, None);
            }
            self.layers[plan.layer as usize].set_slot(fill.expert, Some(fill.slot));
        }
    }

    /// Uploads the experts of a plan from host memory: of all parts, or of those that nothing streams. Returns the
    /// bytes.
    fn upload(&self, plan: &Plan, streams: bool) -> u64 {
        let mut n_uploaded = 0;
        let sources = self.layers[plan.layer as usize].sources.iter();
        let sources = self.tensors.iter().zip(sources);
        for (&tensor, source) in sources.filter(|(_, s)| !streams || s.part.is_none()) {
            let n_bytes = source.n_bytes();
            // What is one piece here and there goes at once.
            let pieces = plan
                .fills
                .chunk_by(|a, b| (a.expert + 1, a.slot + 1) == (b.expert, b.slot));
            for piece in pieces {
                let data = source.address(piece[0].expert);
                let offset = piece[0].slot as usize * n_bytes;
                let n = piece.len() * n_bytes;
                // SAFETY: the bank has these slots, and the layer these experts, of this size. They stay where they
                // are until the model goes, and the device computes before it takes what is uploaded later.
                unsafe {
                    ggml_backend_tensor_set_async(self.backend, tensor, data as _, offset, n)
                };
                n_uploaded += n as u64;
            }
        }
        n_uploaded
    }

    /// Uploads a piece that the engine shows to `slot`, if it is of a tensor that the device keeps. Returns the
    /// bytes.
    fn take(&self, layer: &BankLayer, piece: Piece, slot: u32) -> u64 {
        let is_it = |source: &Source| source.part == Some(piece.part);
        let Some(at) = layer.sources.iter().position(is_it) else {
            return 0;
        };
        let n = layer.sources[at].n_bytes();
        // SAFETY: the bank has the slot, and the engine shows as many bytes. If they stay, it is until the loan is
        // ended, which waits for the device. Nothing that it computes reads this slot.
        unsafe { send(self.backend, self.tensors[at], slot, piece, n) };
        n as u64
    }

    fn end_loan(&self, engine: &Engine) -> Result<()> {
        engine.end_loan(&mut self.loan.lock().expect(LOAN))
    }
}

/// Uploads a piece of `n` bytes to `place`, counted in such pieces, of a tensor.
///
/// # Safety
///
/// The tensor is on this device and has the place, which nothing reads that the device computes now. If the piece stays,
/// it is there until the device is waited for.
pub unsafe fn send(
    backend: ggml_backend_t,
    tensor: *mut ggml_tensor,
    place: u32,
    piece: Piece,
    n: usize,
) {
    let (data, offset) = (piece.address as *const _, place as usize * n);
    // SAFETY: as the caller promises; the piece is there for the call.
    unsafe {
        match piece.stays {
            true => ggml_backend_tensor_set_async(backend, tensor, data, offset, n),
            false => ggml_backend_tensor_set(tensor, data, offset, n),
        }
    }
}

const LOAN: &str = "no thread panics with it";

impl BankLayer {
    /// Bytes of one expert.
    fn expert_bytes(&self) -> u64 {
        self.sources.iter().map(|s| s.n_bytes() as u64).sum()
    }

    /// Writes where an expert is.
    fn set_slot(&self, expert: u32, slot: Option<u32>) {
        assert!(expert < self.n_experts);
        // SAFETY: there is a number for each expert; llama.cpp reads them after this call, in the same thread.
        unsafe { *self.slots.add(expert as usize) = slot.map_or(-1, |slot| slot as i32) };
    }

    /// The experts that are on the device, ascending.
    fn held(&self) -> impl Iterator<Item = (usize, u32)> + '_ {
        // SAFETY: as above.
        let is_held = |expert: &u32| unsafe { *self.slots.add(*expert as usize) } >= 0;
        let held = (0..self.n_experts).filter(is_held);
        held.map(|expert| (self.number, expert))
    }
}

impl Made {
    /// The router of a layer picked experts: brings them to the device, which has taken all that it was told to
    /// before. Returns how many it lacked.
    pub fn plan(&self, number: usize, picks: Picks, batch: &Batch) -> Result<usize> {
        let is_it = |bank: &&Bank| bank.layers.iter().any(|l| l.number == number);
        let bank = self.banks.iter().find(is_it);
        let bank = bank.expect("the layer is in the cache");
        let engine = self.model.engine()?;
        if let Some(engine) = engine {
            let mut same = self.banks.iter().filter(|b| b.backend == bank.backend);
            same.try_for_each(|bank| bank.end_loan(engine))?;
        }
        self.cache.plan(number, picks, batch, |plan| {
            bank.set_slots(plan);
            let uploaded = bank.upload(plan, engine.is_some());
            match engine {
                Some(engine) => Ok(uploaded + lend(engine, bank, plan, picks, batch)?),
                None => Ok(uploaded),
            }
        })
    }

    /// Uploads what is known to be hottest, for as long as `workload` says at most.
    pub fn warm(&self, workload: &Workload) -> Result<()> {
        let limit = workload.prewarm;
        let Some(known) = workload.known().filter(|_| !limit.is_zero()) else {
            return Ok(());
        };
        let engine = self.model.engine()?;
        let begin = Instant::now();
        let places = self.cache.fill_hottest(&known);
        let size = |bank: usize| self.banks[bank].layers[0].expert_bytes();
        let bar = Progress::of_bytes(places.iter().map(|place| size(place.pool)).sum());
        let mut warmed = Warmed {
            n_experts: 0,
            n_bytes: 0,
            took: begin.elapsed(),
            n_left: 0,
        };
        for Given {
            pool: at, id, slot, ..
        } in places
        {
            if begin.elapsed() >= limit {
                self.cache.unfill(at, id);
                warmed.n_left += 1;
                continue;
            }
            let bank = &self.banks[at];
            let layer = &bank.layers[id.layer as usize];
            for (&tensor, source) in bank.tensors.iter().zip(&layer.sources) {
                if engine.is_some() && source.part.is_some() {
                    continue;
                }
                let n_bytes = source.n_bytes();
                let (data, offset) = (source.address(id.expert), slot as usize * n_bytes);
                // SAFETY: the bank has the slot, and the layer the expert; both have this size.
                unsafe { ggml_backend_tensor_set(tensor, data as _, offset, n_bytes) };
            }
            if let Some(engine) = engine {
                engine.lend_in_advance(layer.number, id.expert, |piece| {
                    bank.take(layer, piece, slot);
                })?;
            }
            layer.set_slot(id.expert, Some(slot));
            self.cache.note_warm(at, size(at));
            warmed.n_experts += 1;
            warmed.n_bytes += size(at);
            bar.set(warmed.n_bytes);
        }
        bar.finish();
        warmed.took = begin.elapsed();
        report::say(&report::warm_line(&known.name, &warmed));
        Ok(())
    }

    /// The experts of a layer that a device holds, ascending.
    pub fn held(&self, number: usize, backend: ggml_backend_t) -> Vec<u32> {
        let banks = self.banks.iter().filter(|b| b.backend == backend);
        let mut layers = banks.flat_map(|b| &b.layers);
        let layer = layers.find(|l| l.number == number);
        layer.map_or(Vec::new(), |l| l.held().map(|(_, expert)| expert).collect())
    }

    /// The devices hold nothing any more. llama.cpp has waited for them before it frees a cache.
    pub fn end(&self) -> Result<()> {
        let Some(engine) = self.model.made_engine() else {
            return Ok(());
        };
        for bank in &self.banks {
            bank.end_loan(engine)?;
            let held: Vec<_> = bank.layers.iter().flat_map(BankLayer::held).collect();
            engine.keep(&held);
        }
        Ok(())
    }
}

/// Uploads what a plan says through the engine's memory. Returns the bytes.
fn lend(engine: &Engine, bank: &Bank, plan: &Plan, picks: Picks, batch: &Batch) -> Result<u64> {
    let layer = &bank.layers[plan.layer as usize];
    let missing: Vec<u32> = plan.fills.iter().map(|fill| fill.expert).collect();
    let victims = plan.fills.iter().filter_map(|fill| fill.victim);
    let number = |layer: u32| bank.layers[layer as usize].number;
    let victims: Vec<_> = victims.map(|v| (number(v.layer), v.expert)).collect();
    let wanted = Wanted {
        picks,
        batch,
        missing: &missing,
        victims: &victims,
        is_kept: true,
    };
    let mut n_uploaded = 0;
    let mut loan = bank.loan.lock().expect(LOAN);
    engine.lend(layer.number, &wanted, &mut loan, |piece| {
        let at = missing.binary_search(&piece.expert);
        let slot = plan.fills[at.expect("it is missing")].slot;
        n_uploaded += bank.take(layer, piece, slot);
    })?;
    Ok(n_uploaded)
}
