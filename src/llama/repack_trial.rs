//! What it costs to repack experts, and what it saves.

use super::processor;
use super::sys::{
    GGML_BACKEND_BUFFER_USAGE_WEIGHTS, GGML_TYPE_F32, ggml_backend_alloc_ctx_tensors_from_buft,
    ggml_backend_buffer_clear, ggml_backend_buffer_free, ggml_backend_buffer_set_usage,
    ggml_backend_buffer_t, ggml_backend_buffer_type_t, ggml_backend_cpu_buffer_type,
    ggml_backend_free, ggml_backend_graph_compute, ggml_backend_t, ggml_backend_tensor_set,
    ggml_build_forward_expand, ggml_cgraph, ggml_context, ggml_free, ggml_graph_overhead,
    ggml_init, ggml_init_params, ggml_mul_mat, ggml_new_graph, ggml_new_tensor_2d, ggml_row_size,
    ggml_tensor, ggml_tensor_overhead, ggml_type,
};
use std::ffi::c_void;
use std::time::{Duration, Instant};

/// What is tried: some experts, more than the caches of a core hold.
const BYTES: usize = 24 << 20;
/// How often it is computed in each layout, in turns; the fastest counts.
const TURNS: usize = 3;
/// Such weights are ordinary numbers in every type: denormal ones take many times as long.
const ORDINARY: u8 = 0x3c;
/// What repacking may cost at most, of the time that computing takes otherwise: less is hardly measured, and the output is
/// that of stock llama.cpp by default.
const LOSS_MAX: f64 = 0.1;
/// What is read is waited for: what all cores repack while a fast disk (7 GB/s) reads as much costs next to no time, in seconds
/// for each MiB.
const HIDDEN_MAX: f64 = 150e-6;
/// Then it pays if it saves so much of the time that computing takes: less is hardly measured.
const GAIN_MIN: f64 = 0.1;
/// All of it takes no longer, but for what has begun.
const TIME_MAX: Duration = Duration::from_millis(200);

/// What one core takes, in seconds for each MiB of experts.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Trial {
    /// To repack it.
    pub cost: f64,
    /// To compute one token with it as the file has it.
    pub plain: f64,
    /// The same when it is repacked.
    pub repacked: f64,
}

impl Trial {
    /// Whether it pays on `n_cores` when `share` of the experts is in memory, or costs next to nothing.
    ///
    /// An expert that is used is repacked first if it was not there: about (1 - share)^2 of them are not, as routing is skewed
    /// (docs/runs/2026-11-29-deep: 2, 16 and 43 % at shares of 70, 40 and 20 %).
    pub fn pays(&self, share: f64, n_cores: usize) -> bool {
        let missed = (1.0 - share.clamp(0.0, 1.0)).powi(2);
        let is_hidden =
            self.cost < HIDDEN_MAX * n_cores as f64 && self.saved() > GAIN_MIN * self.plain;
        is_hidden || missed * self.cost - self.saved() < LOSS_MAX * self.plain
    }

    /// How much less computing takes.
    pub fn saved(&self) -> f64 {
        self.plain - self.repacked
    }
}

/// A matrix of `rows` rows in a buffer of its own, a vector, and the graph of their product.
struct Product {
    context: *mut ggml_context,
    weights: *mut ggml_tensor,
    graph: *mut ggml_cgraph,
    buffers: [ggml_backend_buffer_t; 2],
}

impl Drop for Product {
    fn drop(&mut self) {
        // SAFETY: made by `new`, and nothing is computed any more.
        unsafe {
            self.buffers
                .iter()
                .for_each(|buffer| ggml_backend_buffer_free(*buffer));
            ggml_free(self.context);
        }
    }
}

impl Product {
    /// With its weights in a buffer of type `of`. `None` if there is no memory.
    ///
    /// # Safety
    ///
    /// A type and a buffer type of llama.cpp's.
    unsafe fn new(
        type_: ggml_type,
        [n_columns, n_rows]: [i64; 2],
        of: ggml_backend_buffer_type_t,
    ) -> Option<Self> {
        // SAFETY: as the headers say; a context of tensors without data, which gets all of them at once.
        unsafe {
            let params = |n| ggml_init_params {
                mem_size: n * ggml_tensor_overhead() + ggml_graph_overhead(),
                mem_buffer: std::ptr::null_mut(),
                no_alloc: true,
            };
            let context = ggml_init(params(3));
            let weights = ggml_new_tensor_2d(context, type_, n_columns, n_rows);
            let weights_buffer = ggml_backend_alloc_ctx_tensors_from_buft(context, of);
            let input = ggml_new_tensor_2d(context, GGML_TYPE_F32, n_columns, 1);
            let graph = ggml_new_graph(context);
            ggml_build_forward_expand(graph, ggml_mul_mat(context, weights, input));
            let others =
                ggml_backend_alloc_ctx_tensors_from_buft(context, ggml_backend_cpu_buffer_type());
            let product = Self {
                context,
                weights,
                graph,
                buffers: [weights_buffer, others],
            };
            if product.buffers.iter().any(|buffer| buffer.is_null()) {
                return None;
            }
            ggml_backend_buffer_set_usage(weights_buffer, GGML_BACKEND_BUFFER_USAGE_WEIGHTS);
            ggml_backend_buffer_clear(others, 0);
            Some(product)
        }
    }

    fn fill(&mut self, bytes: &[u8]) {
        // SAFETY: so many bytes are in the tensor.
        unsafe {
            ggml_backend_tensor_set(
                self.weights,
                bytes.as_ptr().cast::<c_void>(),
                0,
                bytes.len(),
            )
        };
    }

    fn compute(&mut self, backend: ggml_backend_t) {
        // SAFETY: a graph whose tensors are in memory.
        unsafe { ggml_backend_graph_compute(backend, self.graph) };
    }
}

/// Tries experts of `ne` columns and rows. `None` if there is no memory for it.
///
/// # Safety
///
/// A type and a buffer type of llama.cpp's.
pub unsafe fn run(
    type_: ggml_type,
    ne: [i64; 4],
    repacked: ggml_backend_buffer_type_t,
) -> Option<Trial> {
    // SAFETY: a type of llama.cpp's.
    let row_bytes = unsafe { ggml_row_size(type_, ne[0]) };
    let n_experts = (BYTES / (row_bytes * ne[1] as usize)).max(1);
    let shape = [ne[0], ne[1] * n_experts as i64];
    let n_bytes = row_bytes * shape[1] as usize;
    let mib = n_bytes as f64 / f64::from(1 << 20);
    let source = vec![ORDINARY; n_bytes];
    // SAFETY: as the caller says.
    let [mut plain, mut fast] = unsafe {
        let host = ggml_backend_cpu_buffer_type();
        [
            Product::new(type_, shape, host)?,
            Product::new(type_, shape, repacked)?,
        ]
    };
    let backend = processor::with_one_thread()?;
    let begin = Instant::now();
    let time = |f: &mut dyn FnMut()| {
        let begin = Instant::now();
        f();
        begin.elapsed().as_secs_f64() / mib
    };
    // Memory is touched first.
    plain.fill(&source);
    fast.fill(&source);
    let mut best = Trial {
        cost: f64::INFINITY,
        plain: f64::INFINITY,
        repacked: f64::INFINITY,
    };
    for turn in 0..TURNS {
        if turn > 0 && begin.elapsed() > TIME_MAX {
            break;
        }
        best.cost = best.cost.min(time(&mut || fast.fill(&source)));
        best.plain = best.plain.min(time(&mut || plain.compute(backend)));
        best.repacked = best.repacked.min(time(&mut || fast.compute(backend)));
    }
    // SAFETY: made above.
    unsafe { ggml_backend_free(backend) };
    Some(best)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missed_often_has_to_save_more() {
        let trial = Trial {
            cost: 300e-6,
            plain: 100e-6,
            repacked: 50e-6,
        };
        assert!(trial.pays(1.0, 1) && trial.pays(0.6, 1));
        assert!(!trial.pays(0.5, 1) && !trial.pays(0.0, 1));
        // More cores rewrite it while the disk reads.
        assert!(!trial.pays(0.0, 2) && trial.pays(0.0, 3));
        let equal = Trial {
            repacked: 105e-6,
            ..trial
        };
        assert!(equal.pays(1.0, 1) && !equal.pays(0.7, 64));
        let loss = Trial {
            repacked: 120e-6,
            ..trial
        };
        assert!(!loss.pays(1.0, 64));
    }
}
