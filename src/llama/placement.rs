//! What goes to devices where nobody has chosen: all that each token needs, and as many experts as there is room for.
//!
//! Programs let llama.cpp fit what they are about to load to the memory of devices. There hotset is asked first
//! (`fit_shim.cpp`), with the very parameters of the model and of its context, a draft model and what is reserved for images
//! among them. What these take is measured as llama.cpp measures it, by making both without allocating.

use super::device_list::{self, Device};
use super::loaded::loaded_models;
use super::overrides::{self, END, EXPERTS, listed};
use super::sys::{
    LLAMA_SPLIT_MODE_LAYER, ggml_backend_dev_name, ggml_backend_dev_t, llama_context_params,
    llama_max_devices, llama_model_params, llama_model_tensor_buft_override,
};
use super::unmoved;
use super::whole::{self, Placed};
use crate::config::{Choices, Config, Ram};
use crate::device::placement::{Contexts, MIB, Room, cache_bytes, fits};
use crate::gguf;
use crate::report;
use std::ffi::{CStr, OsStr, c_char, c_int, c_void};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, OnceLock};

/// llama.cpp knows no more devices than this.
const N_DEVICES_MAX: usize = 64;
/// llama.cpp rounds contexts to multiples of this.
const N_CTX_STEP: u32 = 256;

/// What a model is about to be loaded with.
#[repr(C)]
struct Fit {
    path: *const c_char,
    model: *mut llama_model_params,
    context: *mut llama_context_params,
    tensor_split: *mut f32,
    overrides: *mut llama_model_tensor_buft_override,
    margins: *const usize,
    n_ctx_min: u32,
    extra: *const c_void,
}

/// What a device has free, and what a model would take of it.
#[repr(C)]
#[derive(Clone, Copy)]
struct Need {
    device: ggml_backend_dev_t,
    free: u64,
    model: u64,
    context: u64,
    compute: u64,
}

#[repr(C)]
#[derive(Default)]
struct Shape {
    n_ctx_train: u32,
    n_expert: u32,
    n_layer: u32,
    /// Bytes of weights in host memory.
    host: u64,
}

type Place = unsafe extern "C" fn(*const Fit) -> bool;
type Load = unsafe extern "C" fn(*const c_char, *mut llama_model_params);

unsafe extern "C" {
    fn hotset_fit_ask(place: Option<Place>, load: Option<Load>);
    fn hotset_fit_measure(
        fit: *const Fit,
        needs: *mut Need,
        n_max: usize,
        shape: *mut Shape,
    ) -> c_int;
}

/// What was measured.
struct Measured {
    rooms: Vec<Room>,
    shape: Shape,
}

/// How this process was started.
struct Start {
    /// Whether something is chosen where nobody has.
    chooses: bool,
    /// Whether the size of the cache is, where all else was chosen by somebody.
    sizes: bool,
    choices: Choices,
    ram_text: String,
}

static START: OnceLock<Start> = OnceLock::new();

/// Whether experts of the model that is about to be loaded are streamed, as far as that is known, or are in host memory.
static IS_SPLIT: AtomicBool = AtomicBool::new(false);

/// What was said last of a model: one that comes back is not told of again.
static SAID: Mutex<String> = Mutex::new(String::new());

/// What programs of llama.cpp load from now on is looked at, and what nobody has chosen is chosen if `chooses`, or if
/// the settings ask for it.
pub fn begin(config: &Config, chooses: bool) {
    // The first model of a router would leave nothing to the others.
    let sizes = config.sizes_device && config.routed.is_none();
    let chooses = chooses || sizes;
    if !config.enabled || (config.ram.is_none() && !chooses) {
        return;
    }
    IS_SPLIT.store(is_fixed(config.ram), Relaxed);
    unmoved::watch(config.choices.clone());
    let start = Start {
        chooses,
        sizes,
        choices: config.choices.clone(),
        ram_text: config.ram_text.clone(),
    };
    if START.set(start).is_ok() {
        // SAFETY: the functions live for ever, and are called while a model is loaded.
        unsafe { hotset_fit_ask(Some(place), Some(load)) };
    }
}

/// Whether a model streams whatever there is room for.
fn is_fixed(ram: Option<Ram>) -> bool {
    ram.is_some_and(|ram| ram != Ram::IfNeeded)
}

/// # Safety
///
/// The shim passes what llama.cpp will load, and nobody else uses it meanwhile.
unsafe extern "C" fn place(fit: *const Fit) -> bool {
    // SAFETY: as the shim promises.
    let asked = unsafe {
        let fit = &*fit;
        Asked {
            fit,
            model: &mut *fit.model,
            context: &mut *fit.context,
        }
    };
    let start = START.get().expect("it was set before the shim knew us");
    asked.decide(start)
}

/// # Safety
///
/// The shim passes a path, and parameters that are its own.
unsafe extern "C" fn load(path: *const c_char, model: *mut llama_model_params) {
    if unmoved::is_aside() {
        return;
    }
    // SAFETY: as the shim promises.
    let (path, model) = unsafe { (CStr::from_ptr(path), &mut *model) };
    // SAFETY: the parameters are good for loading.
    unmoved::watch_tensors(unsafe { overrides::patterns(model) });
    if !IS_SPLIT.load(Relaxed) {
        return;
    }
    // SAFETY: the parameters are good for loading.
    let is_pipelined = unsafe { listed(model).is_empty() && n_gpus(model.devices) > 1 };
    let path = Path::new(OsStr::from_bytes(path.to_bytes()));
    if is_pipelined && gguf::read(path).is_ok() {
        // llama.cpp computes batches in a pipeline of devices, with four times the buffers, unless anything is
        // overridden. Where experts are in host memory each layer waits for it, so there is nothing to gain.
        model.tensor_buft_overrides = overrides::nothing();
    }
}

/// GPUs among the devices of a list that ends with NULL, or of all devices.
///
/// # Safety
///
/// NULL or such a list.
unsafe fn n_gpus(devices: *mut ggml_backend_dev_t) -> usize {
    if devices.is_null() {
        return device_list::all().filter(|device| device.is_gpu()).count();
    }
    // SAFETY: the list has an end, and before that devices.
    let of = |i| unsafe { *devices.add(i) };
    let listed = (0..).map(of).take_while(|device| !device.is_null());
    // SAFETY: the same.
    listed
        .filter(|&device| unsafe { Device::new(device) }.is_gpu())
        .count()
}

/// What llama.cpp asks to be fitted.
struct Asked<'a> {
    fit: &'a Fit,
    model: &'a mut llama_model_params,
    context: &'a mut llama_context_params,
}

impl Asked<'_> {
    /// Decides, or returns false to leave that to llama.cpp.
    fn decide(mut self, start: &Start) -> bool {
        whole::place(None);
        let ram = loaded_models().config.ram;
        IS_SPLIT.store(is_fixed(ram), Relaxed);
        // SAFETY: the parameters are good for loading.
        if unsafe { n_gpus(self.model.devices) } == 0 {
            return false;
        }
        let stock = unmoved::aside(|| self.measure());
        let Some(stock) = stock.filter(|measured| measured.shape.n_expert > 0) else {
            return false;
        };
        if self.fits_whole(&stock) {
            if !is_fixed(ram) {
                whole::place(Some(Placed::Whole));
                return false;
            }
            say(report::whole_line(&stock.rooms, &start.ram_text));
            unmoved::hush();
        }
        IS_SPLIT.store(ram.is_some(), Relaxed);
        let is_placed = self.is_placed(&start.choices);
        let is_asked = match is_placed {
            false => start.chooses,
            true => start.sizes && !self.is_sized(&start.choices),
        };
        is_asked && unmoved::aside(|| self.choose(&stock, is_placed))
    }

    /// Whether somebody has chosen where weights go.
    fn is_placed(&self, choices: &Choices) -> bool {
        // What a file of llama.cpp's own settings says is here, too.
        // SAFETY: the parameters are good for loading.
        let is_overridden = unsafe { !listed(self.model).is_empty() };
        !choices.all.is_empty()
            || is_overridden
            || self.model.n_gpu_layers >= 0
            || self.is_sized(choices)
    }

    /// Whether somebody has chosen a cache, or how it is to be shared by devices.
    fn is_sized(&self, choices: &Choices) -> bool {
        // SAFETY: NULL, or as many as there may be devices.
        let is_split = unsafe {
            let split = self.model.tensor_split;
            !split.is_null() && (0..llama_max_devices()).any(|device| *split.add(device) != 0.0)
        };
        choices.has_cache
            || self.context.moe_cache_size > 0
            || is_split
            || self.model.split_mode != LLAMA_SPLIT_MODE_LAYER
    }

    /// What the model and its context take, as they are now; `None` if that is not known.
    fn measure(&self) -> Option<Measured> {
        let none = Need {
            device: std::ptr::null_mut(),
            free: 0,
            model: 0,
            context: 0,
            compute: 0,
        };
        let mut needs = [none; N_DEVICES_MAX];
        let mut shape = Shape::default();
        // SAFETY: both places are written to, and the parameters are good for loading.
        let n =
            unsafe { hotset_fit_measure(self.fit, needs.as_mut_ptr(), needs.len(), &mut shape) };
        let needs = &needs[..usize::try_from(n).ok().filter(|n| *n > 0)?];
        // SAFETY: a device of the model has a type; there is a margin for each.
        let room = |(i, need): (usize, &Need)| unsafe {
            // One that shares the memory of the host takes from it what it gives.
            let is_gpu = Device::new(need.device).is_gpu();
            let name = CStr::from_ptr(ggml_backend_dev_name(need.device));
            let room = Room {
                device: name.to_string_lossy().into_owned(),
                free: need.free,
                dense: need.model,
                context: need.context,
                compute: need.compute,
                reserve: *self.fit.margins.add(i) as u64,
            };
            is_gpu.then(|| room.in_mib())
        };
        let rooms: Option<_> = needs.iter().enumerate().map(room).collect();
        Some(Measured {
            rooms: rooms?,
            shape,
        })
    }

    /// Whether llama.cpp, without streaming, puts the whole model on devices: as it is, or with a shorter context if
    /// nobody has chosen one.
    fn fits_whole(&mut self, stock: &Measured) -> bool {
        let n_all = stock.shape.n_layer as i32 + 1;
        let takes_all = self.model.n_gpu_layers < 0 || self.model.n_gpu_layers >= n_all;
        // SAFETY: the parameters are good for loading.
        if !takes_all || unsafe { !listed(self.model).is_empty() } {
            return false;
        }
        if fits(&stock.rooms) {
            return true;
        }
        let Some([least, _]) = self.contexts(&stock.shape) else {
            return false;
        };
        self.context.n_ctx = least;
        let shortest = unmoved::aside(|| self.measure());
        self.context.n_ctx = 0;
        shortest.is_some_and(|shortest| fits(&shortest.rooms))
    }

    /// The shortest and the longest context that may be chosen; `None` if somebody has chosen one.
    fn contexts(&self, shape: &Shape) -> Option<[u32; 2]> {
        let most = shape.n_ctx_train.saturating_mul(self.n_streams());
        let least = self.fit.n_ctx_min.saturating_mul(self.n_streams());
        (self.context.n_ctx == 0).then_some([least.min(most), most])
    }

    /// Sequences that have a part of the context for themselves.
    fn n_streams(&self) -> u32 {
        match self.context.kv_unified {
            true => 1,
            false => self.context.n_seq_max.max(1),
        }
    }

    /// Gives the cache what is left on devices beside all else, which is the dense part if nobody has placed it. Returns
    /// false if that is too much, or if there is nothing to add to what was chosen.
    fn choose(&mut self, stock: &Measured, is_placed: bool) -> bool {
        let before = (self.model.tensor_buft_overrides, self.context.n_ctx);
        let mut list = overrides::of(EXPERTS).to_vec();
        self.model.tensor_buft_overrides = match is_placed {
            false => {
                // SAFETY: there is room for more than two.
                unsafe {
                    std::ptr::copy_nonoverlapping(list.as_ptr(), self.fit.overrides, list.len())
                };
                self.fit.overrides
            }
            // What streams is in host memory, wherever it was to go.
            true if is_fixed(loaded_models().config.ram) => {
                // SAFETY: the parameters are good for loading.
                list.splice(1..1, unsafe { listed(self.model) }.iter().copied());
                list.as_ptr()
            }
            true => before.0,
        };
        let chosen = self.choose_context(&stock.shape, is_placed).and_then(|()| {
            let dense = self.measure()?;
            if !fits(&dense.rooms) {
                say(report::no_room_line(&dense.rooms, is_placed));
                return None;
            }
            Some(self.choose_cache(dense))
        });
        if is_placed {
            self.model.tensor_buft_overrides = before.0;
        }
        let Some(rooms) = chosen.filter(|_| !is_placed || self.context.moe_cache_size > 0) else {
            (self.model.tensor_buft_overrides, self.context.n_ctx) = before;
            if !is_placed {
                // SAFETY: the same.
                unsafe { *self.fit.overrides = END };
            }
            return false;
        };
        let mut options = Vec::new();
        if !is_placed {
            options.push("-ngl all --cpu-moe".to_string());
        }
        if before.1 == 0 {
            options.push(format!("-c {}", self.context.n_ctx));
        }
        if self.context.moe_cache_size > 0 {
            let n_mib = self.context.moe_cache_size as u64 / MIB;
            options.push(format!("--moe-cache-mib {n_mib}"));
        }
        say(report::placement_line(&options.join(" "), &rooms));
        whole::place(Some(Placed::Dense(rooms.iter().map(Room::taken).sum())));
        true
    }

    /// Chooses a context if nobody has. `None` if the shortest does not fit.
    fn choose_context(&mut self, shape: &Shape, is_placed: bool) -> Option<()> {
        let Some([least, most]) = self.contexts(shape) else {
            return Some(());
        };
        self.context.n_ctx = least;
        let shortest = self.measure()?;
        if !fits(&shortest.rooms) {
            say(report::no_room_line(&shortest.rooms, is_placed));
            return None;
        }
        self.context.n_ctx = most;
        let longest = self.measure()?;
        let contexts = Contexts {
            least: (least, &shortest.rooms),
            most: (most, &longest.rooms),
            multiple: N_CTX_STEP * self.n_streams(),
        };
        self.context.n_ctx = contexts.choose();
        Some(())
    }

    /// Chooses the size of the cache, beside what was measured, and returns that with what computing with it takes.
    fn choose_cache(&mut self, without: Measured) -> Vec<Room> {
        let Measured { mut rooms, shape } = without;
        // For each pool of slots llama.cpp adds one, and a pool has a layer's experts at least. Some of what is in host
        // memory are no experts, for which it makes no slots.
        let most = shape.host + shape.host / u64::from(shape.n_expert.max(1)) + MIB;
        self.context.moe_cache_size = cache_bytes(&rooms, most) as usize;
        if self.context.moe_cache_size == 0 {
            return rooms;
        }
        // Graphs are others with a cache, and not all devices need have layers with experts.
        let with = self.measure().map_or(Vec::new(), |with| with.rooms);
        let mut keeping = Vec::new();
        for (room, with) in rooms.iter_mut().zip(&with) {
            room.compute = room.compute.max(with.compute);
            keeping.extend((with.context > room.context).then(|| room.clone()));
        }
        let size = match fits(&rooms) {
            true => cache_bytes(&keeping, most),
            false => 0,
        };
        self.context.moe_cache_size = size as usize;
        rooms
    }
}

/// Says what is new.
fn say(line: String) {
    let mut said = SAID.lock().expect("no thread panics with it");
    if *said != line {
        report::say(&line);
        *said = line;
    }
}
