//! The callbacks behind llama.cpp's expert hook.

use super::any::AnyModel;
use super::model::Model;
use super::record;
use super::registry::{BOUND, Bound, registry, try_registry};
use super::reports;
use super::signals;
use super::sys::{
    GGML_TYPE_F32, ggml_backend_buffer_is_host, ggml_expert_hook, ggml_set_expert_hook,
    ggml_tensor, llama_model,
};
use super::workload::Given;
use super::{device, device_hook};
use crate::config::{Config, Ram, StatsTo};
use crate::engine::layout::Tensor;
use crate::engine::{Batch, Inputs, Routing, Token};
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
    batch: Some(batch),
    trim: Some(trim),
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
    if let Some(Ram::Bytes(n)) = config.ram {
        crate::memory::check(n)?;
    }
    let given = Given::read(&config)?;
    if config.profile_save.is_some() {
        // Before any thread is started.
        signals::save_before_the_end();
    }
    if config.profile_save.is_some() || matches!(config.stats, StatsTo::Json(_)) {
        std::thread::spawn(|| save_every_few_minutes());
    }
    if let StatsTo::Every(interval) = config.stats {
        std::thread::spawn(move || reports::report_every(interval));
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
    save(&models);
    let workloads = models.iter().filter_map(AnyModel::workload);
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
    finish_with(Model::stats, usize::MAX)
}

/// As [`finish`], without the comparison with other policies: for where the time is short.
pub fn finish_quickly() -> bool {
    finish_with(Model::counters, 0)
}

fn finish_with(stats: fn(&Model) -> Option<Stats>, n_picks_max: usize) -> bool {
    reports::rest(stats, n_picks_max)
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

/// How often profiles are saved, and counters.
const SAVE_INTERVAL: Duration = Duration::from_secs(120);

/// Saves profiles and counters again and again; ends with the process.
fn save_every_few_minutes() -> ! {
    loop {
        std::thread::sleep(SAVE_INTERVAL);
        let models = registry().all();
        save(&models);
        reports::write_so_far();
    }
}

/// Saves the profiles of all models; what is in use by an interrupted thread stays as it was.
pub(super) fn save_profiles() {
    let models = try_registry().map(|registry| registry.all());
    save(&models.unwrap_or_default());
}

fn save(models: &[AnyModel]) {
    for error in models.iter().filter_map(|model| model.save().err()) {
        report::say(&format!("hotset: error: {error}"));
    }
}

/// Says what happened and ends the process: a wrong token is worse than none.
pub(super) fn fatal(error: &Error) -> ! {
    // Other threads of the lane may fail for the same reason: the first speaks, the others wait for
    // the end here.
    static FIRST: Mutex<()> = Mutex::new(());
    let _first = FIRST.lock();
    report::say(&format!("hotset: error: {error}"));
    // SAFETY: a plain libc call. Destructors must not run, since other threads still compute; nor may
    // streams be flushed, since a thread that waits for input holds the lock of one.
    unsafe { libc::_exit(1) }
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
    (weights.is_null() || is_expert()) && registry().has_budget()
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

unsafe extern "C" fn ready(_: *mut c_void, model: *const c_void, n_used: u32) -> *const c_char {
    // SAFETY: llama.cpp passes the model that it is loading, after its metadata.
    let title = unsafe { record::title_of_model(model.cast::<llama_model>()) };
    match registry().start(model as usize, title, n_used) {
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
    reports::stop(model as usize);
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
            if engine.route(bound.layer, bound.part, lane, n_threads, &routing)? {
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
        // SAFETY: the ids of an operation on the weights, in memory.
        let seen = unsafe { record::record(weights as usize, &*ids, batch) };
        let heard = seen.map(|(layer, picks)| device::overhear(layer, picks, &[], batch));
        if let Some(Err(error)) = heard {
            fatal(&error);
        }
    });
}

unsafe extern "C" fn batch(
    _: *mut c_void,
    memory: *const c_void,
    n_tokens: u32,
    pos: *const i32,
    seq_id: *const *mut i32,
    output: *const i8,
) {
    let token = |i| {
        // SAFETY: there are so many tokens, and each is in one sequence at least.
        let (pos, seq, output) = unsafe { (*pos.add(i), **seq_id.add(i), *output.add(i)) };
        let is_output = output != 0;
        Token {
            seq,
            pos,
            is_output,
        }
    };
    let tokens = (0..n_tokens as usize).map(token);
    BATCH.with_borrow_mut(|batch| batch.begin(memory as usize, tokens));
    device_hook::begin_batch();
}

unsafe extern "C" fn trim(_: *mut c_void, memory: *const c_void, seq: i32, begin: i32, end: i32) {
    for (_, bound) in BOUND.load().iter() {
        // One tensor of each model.
        if (bound.layer, bound.part) == (0, 0) {
            bound.model.drop_tokens(memory as usize, seq, begin, end);
        }
    }
    record::drop_tokens(memory as usize, seq, begin, end);
    for cached in device::all() {
        cached.drop_tokens(memory as usize, seq, begin, end);
    }
}
