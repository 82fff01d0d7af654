//! Adapters for the tiny models.

use std::path::{Path, PathBuf};

use super::gguf::Value::{F32, Str};
use super::gguf::{self, Model, Tensor};
use super::{Spec, Type, arch};

/// Rank of each pair of matrices; unlike any size of a model.
const RANK: usize = 8;

/// Writes a LoRA adapter for the attention outputs and all expert tensors of `spec` into `dir`.
pub fn write(spec: &Spec, dir: &Path) -> PathBuf {
    let adapted =
        |t: &Tensor| t.name.ends_with("_exps.weight") || t.name.contains("attn_output.weight");
    let mut adapter = Model {
        meta: vec![
            ("general.type".into(), Str("adapter".into())),
            ("general.architecture".into(), Str(spec.arch.name().into())),
            ("adapter.type".into(), Str("lora".into())),
            ("adapter.lora.alpha".into(), F32(RANK as f32)),
        ],
        tensors: Vec::new(),
    };
    for weights in arch::model(spec).tensors.iter().filter(|t| adapted(t)) {
        let (row, rest) = weights.shape.split_first().unwrap();
        let (n_out, n_expert) = rest.split_first().unwrap();
        let mut add = |suffix, from: usize, to: usize| {
            adapter.tensors.push(Tensor {
                name: format!("{}.{suffix}", weights.name),
                shape: [&[from, to], n_expert].concat(),
                ty: Type::F32,
                mean: 0.0,
                std: 0.7 / (from as f32).sqrt(),
            });
        };
        add("lora_a", *row, RANK);
        add("lora_b", RANK, *n_out);
    }
    let file = Spec {
        name: "adapter",
        seed: spec.seed + 100,
        splits: 1,
        ..*spec
    };
    gguf::write(&adapter, &file, dir)
}
