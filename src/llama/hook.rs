//! The callbacks behind llama.cpp's expert hook, and the models they serve.
//!
//! State belongs to a model and is found by the address of a tensor: a draft model or a second
//! model has its own, and freeing a model frees what belongs to it. The table of tensors is
//! replaced as a whole when a model comes or goes, so that compute threads read it without a lock.

use super::sys::{ggml_expert_hook, ggml_set_expert_hook, ggml_tensor};
use crate::config::{Config, Ram, StatsTo};
use crate::engine::layout::Tensor;
use crate::error::{Error, Result};
use crate::llama::model::Model;
use crate::report;
use crate::stats::Stats;
use crate::store::ModelFile;
use arc_swap::ArcSwap;
use once_cell::sync::Lazy;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

/// A tensor that hotset reads for llama.cpp.
struct Bound {
    model: Arc<Model>,
    layer: usize,
    part: usize,
}

/// A model that is being loaded: the streamed tensors seen so far.
struct Loading {
    key: usize,
    addresses: Vec<usize>,
    tensors: Vec<Tensor>,
    /// The files, with the descriptors llama.cpp knows them by.
    files: Vec<(c_int, ModelFile)>,
    error: Option<Error>,
}

/// What the load-time callbacks share.
struct Registry {
    config: Config,
    loading: Option<Loading>,
    models: Vec<(usize, Arc<Model>)>,
    /// Keeps the text that `ready` returned.
    why: CString,
}

static REGISTRY: Lazy<Mutex<Registry>> = Lazy::new(|| {
    Mutex::new(Registry {
        config: Config::default(),
        loading: None,
        models: Vec::new(),
        why: CString::default(),
    })
});

/// Sorted by the address of the tensor.
static BOUND: Lazy<ArcSwap<Vec<(usize, Arc<Bound>)>>> = Lazy::new(ArcSwap::default);

/// Whether a report could not be written.
static REPORT_FAILED: AtomicBool = AtomicBool::new(false);

/// The table is only read, and `user_data` is not used.
struct Table(ggml_expert_hook);

// SAFETY: see above.
unsafe impl Sync for Table {}

static TABLE: Table = Table(ggml_expert_hook {
    user_data: std::ptr::null_mut(),
    wants: Some(wants),
    bind: Some(bind),
    ready: Some(ready),
    unbind: Some(unbind),
    warmup: Some(warmup),
    find: Some(find),
    route: Some(route),
    acquire: Some(acquire),
});

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
    registry().config = config;
    // SAFETY: the table is static.
    unsafe { ggml_set_expert_hook(&TABLE.0) };
    Ok(())
}

/// Removes the hook. Call it while no model is loaded.
pub fn uninstall() {
    // SAFETY: NULL is allowed, and the caller says that no model is loaded.
    unsafe { ggml_set_expert_hook(std::ptr::null()) };
}

/// Reports on the models that are still loaded; for the end of a program that does not free them.
///
/// Returns false if any report of this process could not be written.
pub fn finish() -> bool {
    // A lock that is held belongs to a thread that the end of the process interrupted.
    if let Ok(mut registry) = REGISTRY.try_lock() {
        let models = std::mem::take(&mut registry.models);
        for (_, model) in models {
            report_on(&model, &registry.config.stats);
        }
    }
    !REPORT_FAILED.load(Ordering::Relaxed)
}

/// The counters of every loaded model.
pub fn stats() -> Vec<Stats> {
    let models = registry().models.clone();
    models.iter().filter_map(|(_, m)| m.stats()).collect()
}

fn registry() -> MutexGuard<'static, Registry> {
    REGISTRY.lock().expect("no thread panics with the registry")
}

/// Says what happened and ends the process: a wrong token is worse than none.
fn fatal(error: &Error) -> ! {
    eprintln!("hotset: error: {error}");
    // SAFETY: both are plain libc calls. Destructors must not run: other threads still compute.
    unsafe {
        libc::fflush(std::ptr::null_mut());
        libc::_exit(1)
    }
}

fn report_on(model: &Model, to: &StatsTo) {
    let Some(stats) = model.stats() else { return };
    let result = match to {
        StatsTo::Off => Ok(()),
        StatsTo::Exit | StatsTo::Every(_) => {
            eprint!("{}", report::text(&stats));
            Ok(())
        }
        StatsTo::Json(path) => report::write_json(&stats, path),
    };
    if let Err(error) = result {
        eprintln!("hotset: error: {error}");
        REPORT_FAILED.store(true, Ordering::Relaxed);
    }
}

/// Splits `blk.7.ffn_up_exps.weight` into block and part; `None` for any other tensor.
fn parse_name(name: &str) -> Option<(u32, usize)> {
    // In the order in which graphs use them, which is the order in which parts are read.
    const PARTS: [&str; 4] = ["gate_up", "up", "gate", "down"];
    let (block, rest) = name.strip_prefix("blk.")?.split_once('.')?;
    let part = rest.strip_prefix("ffn_")?.strip_suffix("_exps.weight")?;
    Some((block.parse().ok()?, PARTS.iter().position(|p| *p == part)?))
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
    let registry = registry();
    let has_budget = match registry.config.ram {
        None => false,
        Some(Ram::Bytes(n)) => registry.used_bytes() < n,
        Some(Ram::Percent(_) | Ram::Auto) => true,
    };
    // SAFETY: llama.cpp passes NULL or a tensor.
    let is_expert = || unsafe { name_of(weights) }.is_some_and(|n| parse_name(n).is_some());
    has_budget && (weights.is_null() || is_expert())
}

unsafe extern "C" fn bind(
    _: *mut c_void,
    model: *const c_void,
    weights: *const ggml_tensor,
    fd: c_int,
    offset: u64,
) {
    let mut registry = registry();
    let key = model as usize;
    if registry.loading.as_ref().is_none_or(|l| l.key != key) {
        registry.loading = Some(Loading::new(key));
    }
    // SAFETY: llama.cpp passes a tensor.
    let (name, tensor) = unsafe { (name_of(weights), &*weights) };
    let Some((name, (block, _))) = name.and_then(|n| Some((n, parse_name(n)?))) else {
        return;
    };
    if fd < 0 {
        return;
    }
    let loading = registry.loading.as_mut().expect("set above");
    let file = match loading.file(fd) {
        Ok(file) => file,
        Err(error) => {
            loading.error.get_or_insert(error);
            return;
        }
    };
    loading.addresses.push(weights as usize);
    loading.tensors.push(Tensor {
        name: name.to_string(),
        block,
        n_experts: tensor.ne[2] as u32,
        n_bytes: tensor.nb[2],
        file,
        offset,
    });
}

unsafe extern "C" fn ready(_: *mut c_void, model: *const c_void, n_used: u32) -> *const c_char {
    let mut registry = registry();
    match registry.start(model as usize, n_used) {
        Ok(()) => std::ptr::null(),
        Err(error) => {
            // llama.cpp prints the text through its own log.
            registry.why = CString::new(format!("hotset: {error}")).unwrap_or_default();
            registry.why.as_ptr()
        }
    }
}

unsafe extern "C" fn unbind(_: *mut c_void, model: *const c_void) {
    let mut registry = registry();
    let key = model as usize;
    if registry.loading.as_ref().is_some_and(|l| l.key == key) {
        registry.loading = None;
    }
    if let Some(at) = registry.models.iter().position(|(k, _)| *k == key) {
        let (_, model) = registry.models.remove(at);
        let table = BOUND.load();
        let kept = table.iter().cloned();
        let kept = kept.filter(|(_, b)| !Arc::ptr_eq(&b.model, &model));
        BOUND.store(Arc::new(kept.collect()));
        report_on(&model, &registry.config.stats);
    }
}

unsafe extern "C" fn warmup(_: *mut c_void, model: *const c_void, begin: bool) -> bool {
    let registry = registry();
    let key = model as usize;
    match registry.models.iter().find(|(k, _)| *k == key) {
        Some((_, model)) => {
            model.set_warmup(begin);
            false
        }
        None => true,
    }
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
    n_tokens: i64,
    n_rows: *const i64,
) {
    // SAFETY: `find` returned it for a tensor that is in use, so its model is loaded.
    let bound = unsafe { &*bound.cast::<Bound>() };
    let result = bound.model.engine().and_then(|engine| {
        let n_experts = engine.layout().layers[bound.layer].n_experts as usize;
        // SAFETY: one count per expert, written by this thread just before.
        let n_rows = unsafe { std::slice::from_raw_parts(n_rows, n_experts) };
        engine.route(
            bound.layer,
            bound.part,
            lane as usize,
            n_threads as u32,
            n_tokens as u32,
            n_rows,
        )
    });
    if let Err(error) = result {
        fatal(&error);
    }
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

impl Loading {
    fn new(key: usize) -> Self {
        Self {
            key,
            addresses: Vec::new(),
            tensors: Vec::new(),
            files: Vec::new(),
            error: None,
        }
    }

    /// The number of the file behind `fd`, opened on first sight.
    fn file(&mut self, fd: c_int) -> Result<u32> {
        if let Some(at) = self.files.iter().position(|(known, _)| *known == fd) {
            return Ok(at as u32);
        }
        // SAFETY: llama.cpp keeps the file open until the tensors are bound.
        let file = unsafe { BorrowedFd::borrow_raw(fd) };
        self.files.push((fd, ModelFile::open(file)?));
        Ok(self.files.len() as u32 - 1)
    }
}

impl Registry {
    /// Bytes that the loaded models' arenas take.
    fn used_bytes(&self) -> u64 {
        self.models.iter().map(|(_, m)| m.arena_bytes()).sum()
    }

    /// Turns the loading model into a streaming one and lets compute threads find its tensors.
    fn start(&mut self, key: usize, n_used: u32) -> Result<()> {
        let Some(mut loading) = self.loading.take().filter(|l| l.key == key) else {
            return Ok(());
        };
        if let Some(error) = loading.error.take() {
            return Err(error);
        }
        if loading.tensors.is_empty() {
            if self.config.ram.is_some() {
                eprintln!("hotset: inactive: the model has no experts that can be streamed");
            }
            return Ok(());
        }
        let mut order: Vec<usize> = (0..loading.tensors.len()).collect();
        order.sort_by_key(|&i| parse_name(&loading.tensors[i].name));
        let tensors = order.iter().map(|&i| loading.tensors[i].clone()).collect();
        let files = loading.files.into_iter().map(|(_, file)| file).collect();
        let model = Arc::new(Model::new(
            tensors,
            files,
            &self.config,
            self.used_bytes(),
            n_used,
        )?);
        let mut table = BOUND.load().to_vec();
        for &i in &order {
            let (layer, part) = model.place(&loading.tensors[i].name);
            let bound = Bound {
                model: model.clone(),
                layer,
                part,
            };
            table.push((loading.addresses[i], Arc::new(bound)));
        }
        table.sort_by_key(|(address, _)| *address);
        BOUND.store(Arc::new(table));
        self.models.push((key, model));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::parse_name;

    #[test]
    fn only_routed_expert_weights_are_streamed() {
        assert_eq!(parse_name("blk.12.ffn_up_exps.weight"), Some((12, 1)));
        assert_eq!(parse_name("blk.0.ffn_gate_up_exps.weight"), Some((0, 0)));
        for other in [
            "blk.0.ffn_up_exps.bias",
            "blk.0.ffn_down_exps.scale",
            "blk.0.ffn_up_shexp.weight",
            "blk.0.ffn_up.weight",
            "blk.x.ffn_up_exps.weight",
            "blk.0.ffn_up_exps.weight.lora_a",
        ] {
            assert_eq!(parse_name(other), None, "{other}");
        }
    }
}
