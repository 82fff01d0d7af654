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
    let mut adapter = empty(spec);
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
    save(&adapter, &format!("adapter-{}", spec.n_expert), spec, dir)
}

/// Writes one for the tensor called `name` alone, whose two matrices have these shapes.
pub fn write_pair(spec: &Spec, dir: &Path, name: &str, shapes: [&[usize]; 2]) -> PathBuf {
    let mut adapter = empty(spec);
    for (suffix, shape) in ["lora_a", "lora_b"].into_iter().zip(shapes) {
        adapter.tensors.push(Tensor {
            name: format!("{name}.{suffix}"),
            shape: shape.to_vec(),
            ty: Type::F32,
            mean: 0.0,
            std: 0.1,
        });
    }
    // A comma would separate two adapters.
    let name = format!("adapter-{name}-{shapes:?}").replace([',', ' '], "-");
    save(&adapter, &name, spec, dir)
}

fn empty(spec: &Spec) -> Model {
    Model {
        meta: vec![
            ("general.type".into(), Str("adapter".into())),
            ("general.architecture".into(), Str(spec.arch.name().into())),
            ("adapter.type".into(), Str("lora".into())),
            ("adapter.lora.alpha".into(), F32(RANK as f32)),
        ],
        tensors: Vec::new(),
    }
}

fn save(adapter: &Model, name: &str, spec: &Spec, dir: &Path) -> PathBuf {
    let file = Spec {
        name: "adapter",
        seed: spec.seed + 100,
        splits: 1,
        ..*spec
    };
    let path = gguf::write(adapter, &file, dir);
    let to = dir.join(format!("{name}.gguf"));
    std::fs::rename(path, &to).unwrap();
    to
}
