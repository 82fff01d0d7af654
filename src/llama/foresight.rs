//! What the router of a layer would say to a hidden state: its weights, where llama.cpp has them.

use super::sys::{GGML_TYPE_F32, ggml_backend_buffer_is_host, ggml_tensor};
use crate::engine::Foresight;
use std::collections::BTreeMap;

/// A vector or a matrix of a loaded model, in memory. The model outlives it.
#[derive(Clone, Copy)]
struct Weights {
    address: usize,
    n_columns: usize,
    n_rows: usize,
}

impl Weights {
    /// The weights of `tensor`, if they are floats in memory.
    fn of(tensor: &ggml_tensor) -> Option<Self> {
        // SAFETY: a loaded tensor has a buffer.
        let is_host = unsafe { ggml_backend_buffer_is_host(tensor.buffer) };
        let is_plain = tensor.type_ == GGML_TYPE_F32
            && tensor.nb[0] == size_of::<f32>()
            && tensor.nb[1] == tensor.nb[0] * tensor.ne[0] as usize;
        (is_host && is_plain).then(|| Self {
            address: tensor.data.expose_provenance(),
            n_columns: tensor.ne[0] as usize,
            n_rows: tensor.ne[1] as usize,
        })
    }

    fn values(&self) -> &[f32] {
        let data = std::ptr::with_exposed_provenance(self.address);
        // SAFETY: floats of a model that is loaded, which nobody writes to.
        unsafe { std::slice::from_raw_parts(data, self.n_columns * self.n_rows) }
    }
}

/// The tensors that choose the experts of a block, as far as they are seen.
#[derive(Default, Clone, Copy)]
struct Router {
    weight: Option<Weights>,
    /// Added to the scores.
    bias: Option<Weights>,
    /// Added to the sigmoids of the scores.
    sigmoid_bias: Option<Weights>,
}

/// The routers of a model, by block.
#[derive(Default)]
pub struct Routers(BTreeMap<u32, Router>);

impl Routers {
    /// Notes a loaded tensor, if it belongs to a router.
    pub fn note(&mut self, name: &str, tensor: &ggml_tensor) {
        let Some((block, part)) = name.strip_prefix("blk.").and_then(|n| n.split_once('.')) else {
            return;
        };
        let Ok(block) = block.parse() else { return };
        let weights = Weights::of(tensor);
        match part {
            "ffn_gate_inp.weight" => self.0.entry(block).or_default().weight = weights,
            "ffn_gate_inp.bias" => self.0.entry(block).or_default().bias = weights,
            "exp_probs_b.bias" => self.0.entry(block).or_default().sigmoid_bias = weights,
            _ => {}
        }
    }

    /// The routers of `blocks`, in this order.
    pub fn of_blocks(&self, blocks: impl Iterator<Item = u32>) -> LayerRouters {
        let router = |block| self.0.get(&block).copied().unwrap_or_default();
        LayerRouters {
            layers: blocks.map(router).collect(),
            arch: pulp::Arch::new(),
        }
    }
}

/// The routers of a model, by layer of its engine.
pub struct LayerRouters {
    layers: Vec<Router>,
    arch: pulp::Arch,
}

impl Foresight for LayerRouters {
    fn scores(&self, layer: usize, input: &[f32], scores: &mut Vec<f32>) -> bool {
        let router = &self.layers[layer];
        let Some(weight) = router.weight.filter(|w| w.n_columns == input.len()) else {
            return false;
        };
        scores.clear();
        self.arch.dispatch(Product {
            rows: weight.values(),
            input,
            scores,
        });
        if let Some(bias) = router.bias {
            for (score, bias) in scores.iter_mut().zip(bias.values()) {
                *score += bias;
            }
        }
        if let Some(bias) = router.sigmoid_bias {
            for (score, bias) in scores.iter_mut().zip(bias.values()) {
                *score = 1.0 / (1.0 + (-*score).exp()) + bias;
            }
        }
        true
    }
}

/// A matrix times a vector, compiled for the vector units there are.
struct Product<'a> {
    rows: &'a [f32],
    input: &'a [f32],
    scores: &'a mut Vec<f32>,
}

impl pulp::WithSimd for Product<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(self, _: S) {
        let Self {
            rows,
            input,
            scores,
        } = self;
        scores.extend(rows.chunks_exact(input.len()).map(|row| dot(row, input)));
    }
}

/// The sum of products, in many sums side by side: additions in a row wait for each other.
#[inline(always)]
fn dot(a: &[f32], b: &[f32]) -> f32 {
    const N: usize = 32;
    let mut sums = [0.0f32; N];
    let (chunks_a, rest_a) = a.as_chunks::<N>();
    let (chunks_b, rest_b) = b.as_chunks::<N>();
    for (x, y) in chunks_a.iter().zip(chunks_b) {
        for i in 0..N {
            sums[i] += x[i] * y[i];
        }
    }
    let rest: f32 = rest_a.iter().zip(rest_b).map(|(x, y)| x * y).sum();
    sums.iter().sum::<f32>() + rest
}
