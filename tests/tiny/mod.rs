//! Tiny random mixture-of-experts models, written by the tests that need them.
//!
//! Each has the tensors of a real architecture, a byte-level tokenizer and weights that keep the
//! logits finite and spread the routing over most experts. The bytes depend on the [`Spec`] alone:
//! the same seed gives the same tensors on any machine, in one file or in several.

// Every test target that says `mod tiny` is a crate of its own and uses some of this.
#![allow(dead_code)]

mod arch;
mod gguf;
pub mod lora;
mod meta;
mod weights;

use std::io::{self, Write};
use std::path::{Path, PathBuf};

pub use arch::Arch;
pub use weights::Type;

use Type::{F16, Iq4Nl, Mxfp4, Q4_0, Q4K, Q6K, Q8_0};

/// Token ids are below this. Those below 256 are bytes, the last one ends the text.
pub const N_VOCAB: usize = meta::N_VOCAB;

/// What a model looks like.
#[derive(Debug, Clone, Copy)]
pub struct Spec {
    /// File name without `.gguf`.
    pub name: &'static str,
    /// Whose tensors and metadata it has.
    pub arch: Arch,
    /// Layers; [`Arch::n_layer_dense`] of them have no experts.
    pub n_layer: usize,
    /// Width of the embedding; a multiple of 256, as the rows of `Q4K` and `Q6K` are.
    pub n_embd: usize,
    /// Experts of each layer; 0 for a dense model, which only [`Arch::Llama`] has.
    pub n_expert: usize,
    /// Experts each token is routed to.
    pub top_k: usize,
    /// Hidden size of one expert; a multiple of 256, as the rows of `Q4K` and `Q6K` are.
    pub n_ff: usize,
    /// Types of gate, up and down; layer `i` has `types[i % types.len()]`. Where gate and up are
    /// one tensor, it has gate's.
    pub types: &'static [[Type; 3]],
    /// Chooses the weights.
    pub seed: u64,
    /// Files; tensor `i` is in file `i % splits`, so that gate, up and down of a layer are apart.
    pub splits: usize,
}

/// Eight experts of which two are used, as in Mixtral.
const LLAMA: Spec = Spec {
    name: "llama-q6k-q4k",
    arch: Arch::Llama,
    n_layer: 3,
    n_embd: 256,
    n_expert: 8,
    top_k: 2,
    n_ff: 512,
    types: &[[Q6K; 3], [Q4K, Q4K, Q6K]],
    seed: 7,
    splits: 1,
};

/// Every model with experts: each architecture once, and one that is split and mixes all types.
pub fn all() -> Vec<Spec> {
    let qwen3moe = Spec {
        name: "qwen3moe-q4k-q6k",
        arch: Arch::Qwen3Moe,
        n_layer: 3,
        n_embd: 256,
        n_expert: 32,
        top_k: 4,
        n_ff: 256,
        types: &[[Q4K, Q4K, Q6K], [Q4K; 3]],
        seed: 1,
        splits: 1,
    };
    vec![
        qwen3moe,
        Spec {
            name: "qwen2moe-q8_0",
            arch: Arch::Qwen2Moe,
            n_expert: 16,
            types: &[[Q8_0; 3]],
            seed: 2,
            ..qwen3moe
        },
        Spec {
            name: "olmoe-f16",
            arch: Arch::Olmoe,
            n_layer: 2,
            n_expert: 16,
            types: &[[F16; 3]],
            seed: 3,
            ..qwen3moe
        },
        Spec {
            name: "gpt-oss-mxfp4",
            arch: Arch::GptOss,
            n_layer: 4,
            types: &[[Mxfp4; 3]],
            seed: 4,
            ..qwen3moe
        },
        Spec {
            name: "deepseek2-q4k-q6k-q8_0",
            arch: Arch::Deepseek2,
            n_layer: 4,
            n_expert: 16,
            types: &[[Q4K, Q4K, Q6K], [Q4K; 3], [Q6K, Q6K, Q8_0]],
            seed: 5,
            ..qwen3moe
        },
        Spec {
            name: "gemma4-q8_0-q4k",
            arch: Arch::Gemma4,
            n_expert: 16,
            types: &[[Q4K, Q4K, Q8_0], [Q8_0; 3]],
            seed: 6,
            ..qwen3moe
        },
        LLAMA,
        Spec {
            name: "qwen3moe-mixed-split",
            n_expert: 16,
            types: &[[F16, Q8_0, Mxfp4], [Q6K, Q4K, Q8_0], [Mxfp4, Mxfp4, F16]],
            seed: 8,
            splits: 3,
            ..qwen3moe
        },
    ]
}

/// Models whose experts llama.cpp repacks for a processor with AVX2, all or some of them.
pub fn repacked() -> Vec<Spec> {
    let types: [(_, &[[Type; 3]]); 4] = [
        ("llama-mxfp4", &[[Mxfp4; 3]]),
        ("llama-q4_0", &[[Q4_0; 3]]),
        ("llama-iq4_nl", &[[Iq4Nl; 3]]),
        ("llama-q4k-q6k", &[[Q4K; 3], [Q4K, Q4K, Q6K]]),
    ];
    let spec = |(name, types)| Spec {
        name,
        types,
        ..LLAMA
    };
    types.map(spec).into()
}

/// A model without experts.
pub fn dense() -> Spec {
    Spec {
        name: "llama-dense",
        n_expert: 0,
        top_k: 0,
        seed: 9,
        ..LLAMA
    }
}

/// Writes the model, as one file whatever its splits.
pub fn write_to(spec: &Spec, out: &mut impl Write) -> io::Result<()> {
    gguf::write_to(&arch::model(spec), spec, out)
}

/// Writes the model into `dir` and returns its first file.
pub fn write(spec: &Spec, dir: &Path) -> PathBuf {
    gguf::write(&arch::model(spec), spec, dir)
}
