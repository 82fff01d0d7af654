//! The callbacks behind llama.cpp's expert hook.

use super::ending;
use super::loaded::{BOUND, Bound, registry};
use super::loaded_model::LoadedModel;
use super::loading;
use super::model::Model;
use super::record;
use super::reports;
use super::sys::{
    GGML_BACKEND_DEVICE_TYPE_CPU, GGML_TYPE_F32, ggml_backend_buffer, ggml_backend_buffer_get_type,
    ggml_backend_buffer_is_host, ggml_backend_buft_get_device, ggml_backend_dev_type,
    ggml_expert_hook, ggml_set_expert_hook, ggml_tensor, llama_model,
};
use super::workload::Given;
use super::{batch_hook, device, device_hook};
use super::{shares, signals};
use crate::config::{Config, Ram, StatsTo};
use crate::engine::layout::Tensor;
use crate::engine::{Batch, Inputs, Routing};
use crate::error::{Error, Result};
use crate::gguf::expert_part;
#[cfg(feature = "llama")]
use crate::profile::Profile;
use crate::report;
use crate::stats::Stats;
use std::cell::RefCell;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// The table is only read, and `user_data` is not used.
struct Hook(ggml_expert_hook);

// SAFETY: see above.
unsafe impl Sync for Hook {}

static HOOK: Hook = Hook(ggml_expert_hook {
    user_data: std::ptr::null_mut(),
    wants: Some(wants),
    bind: Some(bind),
    ready: Some(ready),
    unbind: Some(unbind),
    warmup: Some(warmup),
    find: Some(find),
    route: Some(route),
    acquire: Some(acquire),
    observe: Some(observe),
    buffer: Some(buffer),
    batch: Some(batch_hook::batch),
    trim: Some(batch_hook::trim),
    probe: Some(batch_hook::probe),
    end: Some(ends),
    cached: Some(device_hook::cached),
    plan: Some(device_hook::plan),
    use_: Some(device_hook::use_),
    close: Some(device_hook::close),
    copy: Some(device_hook::copy),
    uncached: Some(device_hook::uncached),
});

thread_local! {
    /// What this thread computes, or computed last.
    pub(super) static BATCH: RefCell<Batch> = RefCell::default();
}

/// Installs the hook with these settings; does nothing when they say off.
///
/// Call it while no model is loaded. Fails if the settings cannot hold on this machine.
pub fn install(config: Config) -> Result<()> {
    if !config.enabled {
        uninstall();
        return Ok(());
    }
    match (config.ram, &config.routed) {
        // What others of the router have, they give back when the model is loaded.
        (Some(Ram::Bytes(_)), Some(_)) => {}
        (Some(Ram::Bytes(n)), None) => crate::memory::check(n)?,
        _ => {}
    }
    config.check_files()?;
    if let Some(line) = config.named_files() {
        report::say(&line);
    }
    let given = Given::read(&config)?;
    let is_silent = config.stats == StatsTo::Off;
    ending::want(config.profile_save.is_some() || config.trace.is_some() || !is_silent);
    if let StatsTo::Every(interval) = config.stats {
        let thread = std::thread::Builder::new().name("hotset-stats".to_string());
        if let Err(cause) = thread.spawn(move || reports::report_every(interval)) {
            report::say(&format!(
                "hotset: warning: no thread for HOTSET_STATS: {cause}; it reports at the end only"
            ));
        }
    }
    registry().configure(config, given);
    // SAFETY: the table is static.
    unsafe { ggml_set_expert_hook(&HOOK.0) };
    Ok(())
}

/// As [`install`], and profiles are learnt whether they are saved or not.
#[cfg(feature = "llama")]
pub fn install_to_learn(config: Config) -> Result<()> {
    install(config)?;
    registry().learn();
    Ok(())
}

/// The profiles of all loaded models, where they are learnt.
#[cfg(feature = "llama")]
pub fn profiles() -> Vec<Profile> {
    let models = registry().all();
    save_all(&models);
    let workloads = models.iter().filter_map(LoadedModel::workload);
    workloads.filter_map(|workload| workload.learnt()).collect()
}

/// Removes the hook. Call it while no model is loaded.
pub fn uninstall() {
    // SAFETY: NULL is allowed, and the caller says that no model is loaded.
    unsafe { ggml_set_expert_hook(std::ptr::null()) };
}

/// Holds tables back until [`finish`], for programs that still have text to write when a model goes.
pub fn hold_tables() {
    registry().holds_tables = true;
}

/// Reports on the models that are still loaded; for the end of a program that does not free them.
///
/// Returns false if any report of this process could not be written.
pub fn finish() -> bool {
    ending::apart(|| finish_with(Model::stats, usize::MAX))
}

fn finish_with(stats: fn(&Model) -> Option<Stats>, n_picks_max: usize) -> bool {
    let is_reported = reports::rest(stats, n_picks_max);
    shares::leave();
    is_reported
}

/// The counters of every loaded model.
pub fn stats() -> Vec<Stats> {
    reports::stats(Model::stats, usize::MAX)
}

/// The same without the comparison with other policies, which takes time and memory.
#[cfg(feature = "llama")]
pub fn counters() -> Vec<Stats> {
    reports::stats(Model::counters, 0)
}

/// The end of the process: saves and reports all there is, but for the comparison with other policies. Locks that an
/// interrupted thread holds are given up after a while.
pub(super) fn end() {
    save_profiles();
    finish_with(Model::counters, 0);
    live().iter().for_each(LoadedModel::end_recording);
}

/// Saves what there is so far.
pub(super) fn save() {
    save_profiles();
    reports::write_so_far();
}

/// The models of which there may be something to save. The registry may be in use for long, by a model that is being
/// loaded; this needs no lock.
fn live() -> Vec<LoadedModel> {
    let table = BOUND.load();
    // One tensor of each model.
    let firsts = table.iter().filter(|(_, b)| (b.layer, b.part) == (0, 0));
    let streamed = firsts.map(|(_, bound)| LoadedModel::Streamed(bound.model.clone()));
    let loaded = record::observers().into_iter().map(LoadedModel::Loaded);
    streamed.chain(loaded).collect()
}

/// Saves the profiles of all models; what is in use by an interrupted thread stays as it was.
pub(super) fn save_profiles() {
    save_all(&live());
}

fn save_all(models: &[LoadedModel]) {
    models.iter().for_each(LoadedModel::save);
}

/// Says what happened and ends the process: a wrong token is worse than none.
pub(super) fn fatal(error: &Error) -> ! {
    // Other threads of the lane may fail for the same reason: the first speaks, the others wait for
    // the end here.
    static FIRST: Mutex<()> = Mutex::new(());
    let _first = FIRST.lock();
    say_soon(format!("hotset: error: {error}"));
    // SAFETY: a plain libc call. Destructors must not run, since other threads still compute; nor may
    // streams be flushed, since a thread that waits for input holds the lock of one.
    unsafe { libc::_exit(1) }
}

/// Says it, unless that takes long: a terminal may be stopped.
fn say_soon(text: String) {
    const LIMIT: Duration = Duration::from_secs(2);
    let (sender, receiver) = std::sync::mpsc::channel();
    let thread = std::thread::Builder::new().name("hotset-said".to_string());
    let said = text.clone();
    let speak = move || {
        report::say(&said);
        let _ = sender.send(());
    };
    match thread.spawn(speak) {
        Ok(_) => drop(receiver.recv_timeout(LIMIT)),
        // That there are no more threads may be what there is to say.
        Err(_) => report::say(&text),
    }
}

/// # Safety
///
/// `weights` is NULL or a tensor.
unsafe fn name_of<'a>(weights: *const ggml_tensor) -> Option<&'a str> {
    // SAFETY: a tensor's name is NUL-terminated and lives as long as the tensor.
    unsafe { weights.as_ref().map(|t| CStr::from_ptr(t.name.as_ptr())) }?
        .to_str()
        .ok()
}

unsafe extern "C" fn wants(_: *mut c_void, weights: *const ggml_tensor) -> bool {
    // SAFETY: llama.cpp passes NULL or a tensor.
    let is_expert = || unsafe { name_of(weights) }.is_some_and(|n| expert_part(n).is_some());
    // SAFETY: the same.
    match unsafe { weights.as_ref() } {
        None => registry().has_budget(),
        Some(tensor) => is_expert() && registry().wants(tensor.nb[2] as u64),
    }
}

unsafe extern "C" fn bind(
    _: *mut c_void,
    model: *const c_void,
    weights: *const ggml_tensor,
    fd: c_int,
    offset: u64,
) {
    let mut registry = registry();
    let loading = registry.loading(model as usize);
    // SAFETY: llama.cpp passes a tensor.
    let (name, tensor) = unsafe { (name_of(weights), &*weights) };
    let Some(name) = name else { return };
    let Some((block, _)) = expert_part(name) else {
        loading.routers.note(name, tensor);
        return;
    };
    loading.blocks.insert(block, tensor.ne[2] as u32);
    // SAFETY: a loaded tensor has a buffer.
    if fd < 0 && !unsafe { ggml_backend_buffer_is_host(tensor.buffer) } {
        // SAFETY: the same.
        if unsafe { is_of_processor(tensor.buffer) } {
            loading.repacked.insert(block);
        }
        return;
    }
    let tensor = Tensor {
        name: name.to_string(),
        block,
        n_experts: tensor.ne[2] as u32,
        n_bytes: tensor.nb[2],
        file: 0,
        offset,
    };
    if fd < 0 {
        loading.add_resident(weights as usize, tensor);
    } else {
        loading.add_streamed(weights as usize, tensor, fd);
    }
}

/// Whether a buffer is in the processor's memory, in whatever form.
///
/// # Safety
///
/// It is a buffer.
unsafe fn is_of_processor(buffer: *mut ggml_backend_buffer) -> bool {
    // SAFETY: a buffer has a type, which may have a device.
    unsafe {
        let device = ggml_backend_buft_get_device(ggml_backend_buffer_get_type(buffer));
        !device.is_null() && ggml_backend_dev_type(device) == GGML_BACKEND_DEVICE_TYPE_CPU
    }
}

unsafe extern "C" fn ready(_: *mut c_void, model: *const c_void, n_used: u32) -> *const c_char {
    // SAFETY: llama.cpp passes the model that it is loading, after its metadata.
    let title = unsafe { record::title_of_model(model.cast::<llama_model>()) };
    // The others have something to lose while this one is made.
    chain();
    let started = registry().start(model as usize, title, n_used);
    chain();
    loading::note_end(&started);
    match started {
        Ok(()) => std::ptr::null(),
        Err(error) => {
            // llama.cpp prints the text through its own log; it is leaked, once for a failed load.
            CString::new(format!("hotset: {error}"))
                .unwrap_or_default()
                .into_raw()
        }
    }
}

unsafe extern "C" fn unbind(_: *mut c_void, model: *const c_void) {
    let model = model as usize;
    ending::apart(|| reports::stop(model));
}

/// Sees to it that signals do not end the process before what the models leave is saved.
pub(super) fn chain() {
    if !BOUND.load().is_empty() || record::observes() || !device::all().is_empty() {
        signals::chain();
        ending::stand_first();
    }
}

unsafe extern "C" fn warmup(_: *mut c_void, model: *const c_void) -> bool {
    // It would read the whole model for nothing, and teach the policy and record what nobody asked for.
    !registry().is_known(model as usize)
}

unsafe extern "C" fn find(_: *mut c_void, weights: *const ggml_tensor) -> *mut c_void {
    let table = BOUND.load();
    match table.binary_search_by_key(&(weights as usize), |(address, _)| *address) {
        // The table of a loaded model keeps this alive until `unbind`, when no graph uses it.
        Ok(at) => Arc::as_ptr(&table[at].1) as *mut c_void,
        Err(_) => std::ptr::null_mut(),
    }
}

unsafe extern "C" fn route(
    bound: *mut c_void,
    lane: *const c_void,
    n_threads: c_int,
    op: *const ggml_tensor,
    n_rows: *const i64,
) {
    // SAFETY: `find` returned it for a tensor that is in use, so its model is loaded.
    let bound = unsafe { &*bound.cast::<Bound>() };
    let result = bound.model.engine().and_then(|engine| {
        let n_experts = engine.layout().layers[bound.layer].n_experts as usize;
        // SAFETY: one count per expert, written by this thread just before.
        let n_rows = unsafe { std::slice::from_raw_parts(n_rows, n_experts) };
        // SAFETY: an operation with weights, inputs and ids, which llama.cpp has just counted.
        let (picks, inputs) = unsafe {
            let sources = &(*op).src;
            (record::picks(&*sources[2]), inputs(&*sources[1]))
        };
        BATCH.with_borrow(|batch| {
            let routing = Routing {
                picks,
                n_rows,
                batch,
                inputs,
            };
            let (lane, n_threads) = (lane as usize, n_threads as u32);
            let begins = engine.route(bound.layer, bound.part, lane, n_threads, &routing)?;
            if begins && !batch.is_trial() {
                device::overhear(bound.layer, picks, &[], batch)?;
            }
            Ok(())
        })
    });
    if let Err(error) = result {
        fatal(&error);
    }
}

/// What the router saw of each token, if the operation reads the same.
///
/// # Safety
///
/// `tensor` is the input of an operation that is being computed.
unsafe fn inputs(tensor: &ggml_tensor) -> Inputs<'_> {
    const BYTES: usize = size_of::<f32>();
    let [width, n_each, n_tokens] = [0, 1, 2].map(|i| tensor.ne[i] as usize);
    // The last operation of a layer has an input for each expert of a token.
    let is_plain = tensor.type_ == GGML_TYPE_F32 && tensor.nb[0] == BYTES && n_each == 1;
    if !is_plain || !tensor.nb[2].is_multiple_of(BYTES) || n_tokens > Inputs::N_MAX {
        return Inputs::default();
    }
    let stride = tensor.nb[2] / BYTES;
    let n = (n_tokens - 1) * stride + width;
    // SAFETY: the operation before has written it to memory.
    let values = unsafe { std::slice::from_raw_parts(tensor.data.cast::<f32>(), n) };
    Inputs::new(values, width, stride)
}

unsafe extern "C" fn acquire(
    bound: *mut c_void,
    lane: *const c_void,
    ith: c_int,
    i: c_int,
    expert: *mut c_int,
) -> *const c_void {
    // SAFETY: as in `route`.
    let bound = unsafe { &*bound.cast::<Bound>() };
    let engine = bound.model.engine();
    match engine.and_then(|e| e.acquire(bound.layer, lane as usize, ith as u32, i as usize)) {
        Ok(Some((id, address))) => {
            // SAFETY: the caller passes a place for the id.
            unsafe { *expert = id as c_int };
            address as *const c_void
        }
        Ok(None) => std::ptr::null(),
        Err(error) => fatal(&error),
    }
}

unsafe extern "C" fn observe(_: *mut c_void, weights: *const ggml_tensor, ids: *const ggml_tensor) {
    BATCH.with_borrow(|batch| {
        if batch.is_trial() {
            return;
        }
        // SAFETY: the ids of an operation on the weights, in memory.
        let seen = unsafe { record::record(weights as usize, &*ids, batch) };
        let heard = seen.map(|(layer, picks)| device::overhear(layer, picks, &[], batch));
        if let Some(Err(error)) = heard {
            fatal(&error);
        }
    });
}

unsafe extern "C" fn buffer(_: *mut c_void, address: *const c_void, n_bytes: usize) {
    crate::memory::note_buffer(address as usize, n_bytes);
}

unsafe extern "C" fn ends(_: *mut c_void) {
    ending::finish();
}
