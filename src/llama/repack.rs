//! Experts in the order that suits the processor, as stock llama.cpp has them in memory.
//!
//! llama.cpp rewrites the weights of some types when it loads them ("repacks": the rows of a matrix are interleaved by 4, 8
//! or 16), and computes these by other code, which is faster and sums in another order. What is streamed is rewritten when
//! it has been read, by the code that llama.cpp has for that: a tensor of the buffer type `CPU_REPACK` is given the rows
//! of a chunk, and writes them to its address. Where stock llama.cpp would have put a tensor is its own choice: the hook
//! is told of it when the tensor is bound.

use super::device_list;
use super::repack_trial::{self, Trial};
use super::sys::{
    GGML_BACKEND_BUFFER_USAGE_WEIGHTS, GGML_BACKEND_DEVICE_TYPE_CPU, ggml_backend_buffer_free,
    ggml_backend_buffer_init_tensor, ggml_backend_buffer_set_usage, ggml_backend_buffer_t,
    ggml_backend_buffer_type_t, ggml_backend_buft_alloc_buffer, ggml_backend_buft_get_device,
    ggml_backend_buft_is_host, ggml_backend_buft_name, ggml_backend_dev_type,
    ggml_backend_tensor_set, ggml_tensor, ggml_type, ggml_type_name, ggml_type_size,
};
use crate::config::Repack;
use crate::engine::Rewrite;
use crate::report;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{CStr, c_void};
use std::num::NonZero;
use std::thread;

/// The only one of llama.cpp's buffer types of which parts of a tensor can be rewritten one by one.
const REPACKS: &CStr = c"CPU_REPACK";
/// About so many bytes are rewritten at a time: they and their copy stay in the cache of one core.
const CHUNK_BYTES: usize = 32 << 10;
/// No layout interleaves more rows.
const ROWS: usize = 16;

/// A tensor that is streamed.
#[derive(Debug, Clone, Copy)]
pub struct Streamed {
    /// Its address.
    pub weights: *mut ggml_tensor,
    /// Where stock llama.cpp would have it.
    pub stock: ggml_backend_buffer_type_t,
}

// SAFETY: these are addresses of what lives as long as the model; who uses them has the model.
unsafe impl Send for Streamed {}

impl Streamed {
    /// Whether stock llama.cpp would rewrite it.
    pub(super) fn is_repacked_by_stock(&self) -> bool {
        // SAFETY: a buffer type has a name.
        let name = |of| unsafe { CStr::from_ptr(ggml_backend_buft_name(of)) };
        !self.stock.is_null() && name(self.stock) == REPACKS
    }
}

/// A buffer without room, which says of the tensors that are in it how they are computed.
pub(super) struct Buffer(ggml_backend_buffer_t);

// SAFETY: it is not changed any more, and llama.cpp reads it from any thread.
unsafe impl Send for Buffer {}
// SAFETY: the same.
unsafe impl Sync for Buffer {}

impl Buffer {
    /// Of this type. `None` if there is none.
    ///
    /// # Safety
    ///
    /// A buffer type of llama.cpp's.
    pub(super) unsafe fn new(of: ggml_backend_buffer_type_t) -> Option<Self> {
        // SAFETY: a few bytes, which nobody uses.
        let buffer = Self(unsafe { ggml_backend_buft_alloc_buffer(of, 1) });
        if buffer.0.is_null() {
            return None;
        }
        // SAFETY: a new buffer.
        unsafe { ggml_backend_buffer_set_usage(buffer.0, GGML_BACKEND_BUFFER_USAGE_WEIGHTS) };
        Some(buffer)
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: no graph uses it, because its model goes.
        unsafe { ggml_backend_buffer_free(self.0) };
    }
}

/// Rewrites the experts of a model.
pub struct Repacker {
    buffer: Buffer,
    /// Whether the file has them rewritten already.
    pub is_packed: bool,
    /// By layer and part: the tensor, if it is rewritten.
    tensors: Vec<Vec<Option<Shape>>>,
}

/// What a chunk of a tensor is made of.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    type_: ggml_type,
    n_columns: i64,
    row_bytes: usize,
    /// Of a chunk.
    n_rows: usize,
    /// llama.cpp's code for it.
    extra: usize,
}

impl Repacker {
    /// What rewrites `tensors`, with their layers and parts, as far as stock llama.cpp would and it pays when `share` of their
    /// bytes is in memory. From now on llama.cpp computes these tensors as its own repacked ones.
    ///
    /// # Safety
    ///
    /// The tensors live as long as what is returned, and nothing is computed with them yet.
    pub unsafe fn choose(
        tensors: &[Streamed],
        places: &[(usize, usize)],
        when: Repack,
        share: f64,
    ) -> Option<Self> {
        if when == Repack::Off {
            return None;
        }
        say_left_out(tensors);
        let wanted: Vec<usize> = (0..tensors.len())
            .filter(|&i| tensors[i].is_repacked_by_stock())
            .collect();
        let stock = tensors[*wanted.first()?].stock;
        if has_device() {
            report::say(
                "hotset: experts are not repacked for the processor: devices take them as the file has them",
            );
            return None;
        }
        // SAFETY: of a tensor of the caller's.
        let tensor = |i: usize| unsafe { &*tensors[i].weights };
        let mut trials = BTreeMap::new();
        for &i in wanted.iter().filter(|_| when == Repack::Auto) {
            let tensor = tensor(i);
            // SAFETY: a type and a buffer type of llama.cpp's.
            let try_it = || unsafe { repack_trial::run(tensor.type_, tensor.ne, stock) };
            trials.entry(tensor.type_).or_insert_with(try_it);
        }
        let n_cores = thread::available_parallelism().map_or(1, NonZero::get);
        let pays_by =
            |trial: &Option<Trial>| trial.as_ref().is_some_and(|t| t.pays(share, n_cores));
        for (&type_, trial) in &trials {
            report::say(&line(type_, trial.as_ref(), pays_by(trial)));
        }
        let pays = |type_| match trials.get(&type_) {
            None => when == Repack::On,
            Some(trial) => pays_by(trial),
        };
        // SAFETY: a buffer type of llama.cpp's.
        let buffer = unsafe { Buffer::new(stock) }?;
        let n_layers = places.iter().map(|place| place.0 + 1).max().unwrap_or(0);
        let mut shapes = vec![Vec::new(); n_layers];
        for (i, &(layer, part)) in places.iter().enumerate() {
            let is_chosen = wanted.contains(&i) && pays(tensor(i).type_);
            let weights = tensors[i].weights;
            // SAFETY: the caller lets us have them.
            let shape = is_chosen.then(|| unsafe { Shape::bind(&mut *weights, &buffer) });
            shapes[layer].resize(part + 1, None);
            shapes[layer][part] = shape.flatten();
        }
        let is_any = shapes.iter().flatten().any(Option::is_some);
        is_any.then_some(Self {
            buffer,
            is_packed: false,
            tensors: shapes,
        })
    }

    /// Whether a part of the experts of a layer, as they are numbered, is computed repacked.
    pub fn is_for(&self, (layer, part): (usize, usize)) -> bool {
        self.tensors[layer][part].is_some()
    }
}

impl Shape {
    /// Makes llama.cpp compute `tensor` as one of `buffer`, if it has code for it.
    ///
    /// # Safety
    ///
    /// Nothing is computed with it yet, and the buffer lives as long.
    pub(super) unsafe fn bind(tensor: &mut ggml_tensor, buffer: &Buffer) -> Option<Self> {
        let before = (tensor.buffer, tensor.extra);
        tensor.buffer = buffer.0;
        // SAFETY: this looks for the code, and sets `extra`.
        unsafe { ggml_backend_buffer_init_tensor(buffer.0, tensor) };
        if tensor.extra.is_null() {
            (tensor.buffer, tensor.extra) = before;
            return None;
        }
        let row_bytes = tensor.nb[1];
        let n_rows = (CHUNK_BYTES / row_bytes).max(1).next_multiple_of(ROWS);
        Some(Self {
            type_: tensor.type_,
            n_columns: tensor.ne[0],
            row_bytes,
            n_rows,
            extra: tensor.extra.expose_provenance(),
        })
    }

    /// Rewrites some rows at `address`, which nobody else uses meanwhile, for the processor to compute them with `buffer`.
    pub(super) fn rewrite(&self, buffer: &Buffer, address: usize, n_bytes: usize) {
        thread_local! {
            static COPY: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
        }
        let data = std::ptr::with_exposed_provenance_mut::<u8>(address);
        let n_rows = (n_bytes / self.row_bytes) as i64;
        let nb = [0, 1, n_rows as usize, n_rows as usize].map(|n| n * self.row_bytes);
        let mut rows = ggml_tensor {
            type_: self.type_,
            buffer: buffer.0,
            ne: [self.n_columns, n_rows, 1, 1],
            // SAFETY: a type of llama.cpp's.
            nb: [unsafe { ggml_type_size(self.type_) }, nb[1], nb[2], nb[3]],
            data: data.cast::<c_void>(),
            extra: std::ptr::with_exposed_provenance_mut(self.extra),
            ..ggml_tensor::default()
        };
        COPY.with_borrow_mut(|copy| {
            copy.clear();
            // SAFETY: the caller lets us have these bytes.
            copy.extend_from_slice(unsafe { std::slice::from_raw_parts(data, n_bytes) });
            // SAFETY: a tensor of so many bytes at that address, and its rows.
            unsafe { ggml_backend_tensor_set(&mut rows, copy.as_ptr().cast(), 0, n_bytes) };
        });
    }
}

impl Rewrite for Repacker {
    fn chunk_bytes(&self, layer: usize, part: usize) -> usize {
        let shape = self.tensors[layer][part].filter(|_| !self.is_packed);
        shape.map_or(0, |shape| shape.n_rows * shape.row_bytes)
    }

    fn rewrite(&self, layer: usize, part: usize, address: usize, n_bytes: usize) {
        let shape = self.tensors[layer][part].expect("it has chunks");
        shape.rewrite(&self.buffer, address, n_bytes);
    }
}

/// Says which other layouts stock llama.cpp would have experts in: AMX and KleidiAI rewrite tensors as a whole.
fn say_left_out(tensors: &[Streamed]) {
    // SAFETY: buffer types, which have names.
    let special = |of: ggml_backend_buffer_type_t| unsafe {
        (!of.is_null() && !ggml_backend_buft_is_host(of) && is_of_processor(of))
            .then(|| CStr::from_ptr(ggml_backend_buft_name(of)))
    };
    let names = tensors.iter().filter_map(|tensor| special(tensor.stock));
    let left_out: BTreeSet<_> = names.filter(|name| *name != REPACKS).collect();
    for name in left_out {
        report::say(&format!(
            "hotset: stock llama.cpp has experts in {}, which is not for parts of a tensor: streamed ones are computed as with --no-repack",
            name.to_string_lossy()
        ));
    }
}

/// Whether what is in buffers of a type is for the processor.
///
/// # Safety
///
/// It is a buffer type.
pub(super) unsafe fn is_of_processor(of: ggml_backend_buffer_type_t) -> bool {
    // SAFETY: as the caller says; it may have a device.
    unsafe {
        let device = ggml_backend_buft_get_device(of);
        !device.is_null() && ggml_backend_dev_type(device) == GGML_BACKEND_DEVICE_TYPE_CPU
    }
}

/// Whether there is a device that may take experts from memory.
pub(super) fn has_device() -> bool {
    device_list::all().any(|device| device.is_gpu() || device.is_integrated())
}

/// What is done with experts of a type, and why.
fn line(type_: ggml_type, trial: Option<&Trial>, pays: bool) -> String {
    // SAFETY: a type has a name, which lives for ever.
    let name = unsafe { CStr::from_ptr(ggml_type_name(type_)) }.to_string_lossy();
    let Some(trial) = trial else {
        return format!(
            "hotset: {name} experts are not repacked for the processor: there is no memory to try it"
        );
    };
    let what = match pays {
        true => "are",
        false => "are not",
    };
    let [cost, saved] = [trial.cost, trial.saved()].map(|seconds| seconds * 1e6);
    format!(
        "hotset: {name} experts {what} repacked for the processor (HOTSET_REPACK): once read that takes {cost:.0} us a MiB, \
         and saves {saved:.0} us each time they are computed"
    )
}
