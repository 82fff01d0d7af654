//! The tensors each architecture needs, under the names llama.cpp looks for.

use super::gguf::{Model, Tensor};
use super::meta::{self, N_VOCAB};
use super::{Spec, Type};

/// Width of a head where the architecture does not say otherwise.
pub const HEAD: usize = 64;
/// Width of a head in layers with a sliding window, gemma4 only.
pub const HEAD_WINDOW: usize = 32;
/// Hidden size of dense and shared feed-forward networks.
pub const N_FF: usize = 256;
/// Deepseek2: rank of the compressed queries, and of the compressed keys and values.
pub const RANK: usize = 64;
/// Deepseek2: what of a head's key turns with the position.
pub const ROPE: usize = 32;

/// An architecture of llama.cpp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arch {
    Qwen3Moe,
    /// With a shared expert.
    Qwen2Moe,
    Olmoe,
    /// With biases on router and experts, attention sinks, a window in every other layer.
    GptOss,
    /// With sigmoid routing and a selection bias, a shared expert, a dense first layer.
    Deepseek2,
    /// With gate and up in one tensor and a scale for each expert, a window in all layers but the
    /// last.
    Gemma4,
    /// With experts as in Mixtral, or dense.
    Llama,
}

impl Arch {
    /// Its name in a GGUF file.
    pub fn name(self) -> &'static str {
        match self {
            Arch::Qwen3Moe => "qwen3moe",
            Arch::Qwen2Moe => "qwen2moe",
            Arch::Olmoe => "olmoe",
            Arch::GptOss => "gpt-oss",
            Arch::Deepseek2 => "deepseek2",
            Arch::Gemma4 => "gemma4",
            Arch::Llama => "llama",
        }
    }

    /// How many of the first layers have no experts.
    pub fn n_layer_dense(self) -> usize {
        usize::from(self == Arch::Deepseek2)
    }
}

impl Spec {
    /// Heads of queries.
    pub fn n_head(&self) -> usize {
        self.n_embd / HEAD
    }

    /// Heads of keys and values.
    pub fn n_head_kv(&self) -> usize {
        match self.arch {
            // One compressed head serves all.
            Arch::Deepseek2 => 1,
            // Its key norm is as wide as the embedding.
            Arch::Olmoe => self.n_head(),
            _ => 2,
        }
    }
}

/// How the weights of a tensor are stored and spread.
#[derive(Clone, Copy)]
enum Fill {
    /// About 1.
    Norm,
    /// About 0, and small.
    Bias,
    /// As large as what the layers add to it.
    Embedding,
    /// Keeps the size of what it multiplies.
    Matrix,
    /// Makes logits that favour few experts, others for each token.
    Router,
    /// Undoes gemma4's division of the router's input by the root of its width.
    RouterScale,
    /// A matrix for each expert.
    Experts(Type),
}

impl Fill {
    /// Type, mean and standard deviation for rows of `n_row` weights.
    fn spread(self, n_row: usize) -> (Type, f32, f32) {
        let gain = 1.0 / (n_row as f32).sqrt();
        match self {
            Fill::Norm => (Type::F32, 1.0, 0.1),
            Fill::Bias => (Type::F32, 0.0, 0.1),
            Fill::Embedding => (Type::F16, 0.0, 1.0),
            Fill::Matrix => (Type::Q8_0, 0.0, gain),
            Fill::Router => (Type::F32, 0.0, 2.0 * gain),
            Fill::RouterScale => (Type::F32, 1.0 / gain, 0.1 / gain),
            Fill::Experts(ty) => (ty, 0.0, gain),
        }
    }
}

/// Adds tensors to a model; `prefix` is empty or that of a layer.
struct Builder<'a> {
    spec: &'a Spec,
    prefix: String,
    tensors: Vec<Tensor>,
}

/// The metadata and tensors of `spec`.
pub fn model(spec: &Spec) -> Model {
    let n_embd = spec.n_embd;
    let mut b = Builder {
        spec,
        prefix: String::new(),
        tensors: Vec::new(),
    };
    // Gemma4 multiplies its embedding by the root of its width, and uses it for the output too.
    if spec.arch == Arch::Gemma4 {
        b.add("token_embd.weight", &[n_embd, N_VOCAB], Fill::Matrix);
        b.add("rope_freqs.weight", &[HEAD / 2], Fill::Norm);
    } else {
        b.add("token_embd.weight", &[n_embd, N_VOCAB], Fill::Embedding);
        b.add("output.weight", &[n_embd, N_VOCAB], Fill::Matrix);
    }
    b.norms(&["output_norm"], n_embd);
    for layer in 0..spec.n_layer {
        b.prefix = format!("blk.{layer}.");
        b.norms(&["attn_norm"], n_embd);
        match spec.arch {
            Arch::Deepseek2 => b.latent_attention(),
            _ => b.attention(layer),
        }
        b.feed_forward(layer);
    }
    Model {
        meta: meta::of(spec),
        tensors: b.tensors,
    }
}

impl Builder<'_> {
    fn add(&mut self, name: &str, shape: &[usize], fill: Fill) {
        let (ty, mean, std) = fill.spread(shape[0]);
        self.tensors.push(Tensor {
            name: format!("{}{name}", self.prefix),
            shape: shape.to_vec(),
            ty,
            mean,
            std,
        });
    }

    fn norms(&mut self, names: &[&str], n: usize) {
        for name in names {
            self.add(&format!("{name}.weight"), &[n], Fill::Norm);
        }
    }

    /// A matrix of `n_out` rows of `n_in`, and its bias if it has one.
    fn linear(&mut self, name: &str, n_in: usize, n_out: usize, bias: bool) {
        self.add(&format!("{name}.weight"), &[n_in, n_out], Fill::Matrix);
        if bias {
            self.add(&format!("{name}.bias"), &[n_out], Fill::Bias);
        }
    }

    fn attention(&mut self, layer: usize) {
        let &Spec { arch, n_embd, .. } = self.spec;
        let (n_head, n_head_kv) = (self.spec.n_head(), self.spec.n_head_kv());
        let head = match arch {
            Arch::Gemma4 if meta::has_window(self.spec, layer) => HEAD_WINDOW,
            _ => HEAD,
        };
        let bias = matches!(arch, Arch::Qwen2Moe | Arch::GptOss);
        self.linear("attn_q", n_embd, n_head * head, bias);
        self.linear("attn_k", n_embd, n_head_kv * head, bias);
        self.linear("attn_v", n_embd, n_head_kv * head, bias);
        let out_bias = arch == Arch::GptOss;
        self.linear("attn_output", n_head * head, n_embd, out_bias);
        match arch {
            Arch::Qwen3Moe | Arch::Gemma4 => self.norms(&["attn_q_norm", "attn_k_norm"], head),
            Arch::Olmoe => self.norms(&["attn_q_norm", "attn_k_norm"], n_embd),
            Arch::GptOss => self.add("attn_sinks.weight", &[n_head], Fill::Bias),
            _ => {}
        }
    }

    /// Deepseek2's attention over compressed keys and values.
    fn latent_attention(&mut self) {
        let (n_embd, n_head) = (self.spec.n_embd, self.spec.n_head());
        self.linear("attn_q_a", n_embd, RANK, false);
        self.norms(&["attn_q_a_norm"], RANK);
        self.linear("attn_q_b", RANK, n_head * HEAD, false);
        self.linear("attn_kv_a_mqa", n_embd, RANK + ROPE, false);
        self.norms(&["attn_kv_a_norm"], RANK);
        let shape = [HEAD - ROPE, RANK, n_head];
        self.add("attn_k_b.weight", &shape, Fill::Matrix);
        self.add("attn_v_b.weight", &[RANK, HEAD, n_head], Fill::Matrix);
        self.linear("attn_output", n_head * HEAD, n_embd, false);
    }

    fn feed_forward(&mut self, layer: usize) {
        let &Spec {
            arch,
            n_embd,
            n_expert,
            ..
        } = self.spec;
        match arch {
            Arch::GptOss => self.norms(&["post_attention_norm"], n_embd),
            Arch::Gemma4 => self.norms(
                &[
                    "post_attention_norm",
                    "ffn_norm",
                    "post_ffw_norm",
                    "pre_ffw_norm_2",
                    "post_ffw_norm_1",
                    "post_ffw_norm_2",
                ],
                n_embd,
            ),
            _ => self.norms(&["ffn_norm"], n_embd),
        }
        let dense = n_expert == 0 || layer < arch.n_layer_dense();
        if dense || arch == Arch::Gemma4 {
            self.gated("", N_FF);
        }
        if dense {
            return;
        }
        match arch {
            Arch::Qwen2Moe => {
                self.gated("_shexp", N_FF);
                self.add("ffn_gate_inp_shexp.weight", &[n_embd], Fill::Bias);
            }
            Arch::Deepseek2 => {
                self.gated("_shexp", self.spec.n_ff);
                self.add("exp_probs_b.bias", &[n_expert], Fill::Bias);
            }
            Arch::Gemma4 => self.add("ffn_gate_inp.scale", &[n_embd], Fill::RouterScale),
            _ => {}
        }
        self.add("ffn_gate_inp.weight", &[n_embd, n_expert], Fill::Router);
        self.experts(layer);
    }

    /// A feed-forward network that every token passes.
    fn gated(&mut self, suffix: &str, n_ff: usize) {
        let n_embd = self.spec.n_embd;
        self.linear(&format!("ffn_gate{suffix}"), n_embd, n_ff, false);
        self.linear(&format!("ffn_up{suffix}"), n_embd, n_ff, false);
        self.linear(&format!("ffn_down{suffix}"), n_ff, n_embd, false);
    }

    fn experts(&mut self, layer: usize) {
        let &Spec {
            arch,
            n_embd,
            n_expert,
            n_ff,
            types,
            ..
        } = self.spec;
        let [gate, up, down] = types[layer % types.len()].map(Fill::Experts);
        if arch == Arch::Gemma4 {
            let shape = [n_embd, 2 * n_ff, n_expert];
            self.add("ffn_gate_up_exps.weight", &shape, gate);
            self.add("ffn_down_exps.scale", &[n_expert], Fill::Norm);
        } else {
            self.add("ffn_gate_exps.weight", &[n_embd, n_ff, n_expert], gate);
            self.add("ffn_up_exps.weight", &[n_embd, n_ff, n_expert], up);
        }
        self.add("ffn_down_exps.weight", &[n_ff, n_embd, n_expert], down);
        if arch == Arch::GptOss {
            self.add("ffn_gate_inp.bias", &[n_expert], Fill::Bias);
            self.add("ffn_gate_exps.bias", &[n_ff, n_expert], Fill::Bias);
            self.add("ffn_up_exps.bias", &[n_ff, n_expert], Fill::Bias);
            self.add("ffn_down_exps.bias", &[n_embd, n_expert], Fill::Bias);
        }
    }
}
