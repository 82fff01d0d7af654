//! What a model is, by the heads of its files: nothing of the weights is read.

use super::heads::{ModelFile, end};
use super::whole::{self, Damage};
use hotset::gguf::{self, Tensor, Values, types};
use serde::Serialize;
use std::collections::BTreeMap;

/// What there is to know of a model.
#[derive(Debug, Clone, Serialize)]
pub struct Model {
    /// `general.name`; empty if the file does not say.
    pub name: String,
    pub architecture: String,
    pub n_files: usize,
    /// What the heads say the files have.
    pub n_bytes: u64,
    pub n_layers: u32,
    /// Layers with experts.
    pub n_expert_layers: u32,
    /// Of a layer; 0 for a dense model.
    pub n_experts: u32,
    /// Experts that a token picks in a layer.
    pub top_k: u32,
    /// Bytes of all experts, and of everything else.
    pub expert_bytes: u64,
    pub dense_bytes: u64,
    /// Bytes of one expert, in the largest layer, and of its largest part.
    pub bytes_of_expert: u64,
    pub bytes_of_part: u64,
    /// Bytes of the experts that a token uses: the token cycle. And of everything else that it uses.
    pub token_expert_bytes: u64,
    pub token_dense_bytes: u64,
    /// Weights that a token is multiplied with.
    pub token_weights: u64,
    /// Types of experts and of the rest, by their bytes.
    pub expert_types: Vec<TypeBytes>,
    pub dense_types: Vec<TypeBytes>,
    /// Tokens of the context that it was trained with; null if the file does not say.
    pub n_context_trained: Option<u64>,
    /// Bytes that a token of the context takes, about.
    pub kv_bytes_per_token: u64,
    /// What is wrong with the files; empty if they are whole.
    pub damage: Vec<Damage>,
}

/// How much of a model is of a type.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TypeBytes {
    #[serde(rename = "type")]
    pub name: String,
    pub bytes: u64,
}

/// Of all parts of a model.
#[derive(Default)]
struct Sums {
    /// By block: number of experts, their bytes, their weights.
    layers: BTreeMap<u32, (u64, u64, u64)>,
    bytes_of_part: u64,
    dense_bytes: u64,
    dense_weights: u64,
    /// What of it is a table of which a token needs a row.
    table_bytes: u64,
    table_weights: u64,
    has_output: bool,
    types: [BTreeMap<String, u64>; 2],
}

impl Sums {
    fn add(&mut self, tensor: &Tensor) {
        let weights = tensor.shape.iter().fold(1u64, |n, d| n.saturating_mul(*d));
        let name =
            types::find(tensor.ty).map_or(format!("type {}", tensor.ty), |t| t.0.to_string());
        let part = gguf::expert_part(&tensor.name);
        let of_type = self.types[usize::from(part.is_none())]
            .entry(name)
            .or_default();
        *of_type = of_type.saturating_add(tensor.n_bytes);
        let Some((block, _)) = part else {
            self.dense_bytes = self.dense_bytes.saturating_add(tensor.n_bytes);
            self.dense_weights = self.dense_weights.saturating_add(weights);
            self.has_output |= tensor.name == "output.weight";
            if tensor.name == "token_embd.weight" {
                (self.table_bytes, self.table_weights) = (tensor.n_bytes, weights);
            }
            return;
        };
        let n_experts = tensor.n_last().max(1);
        let layer = self.layers.entry(block).or_insert((n_experts, 0, 0));
        layer.1 = layer.1.saturating_add(tensor.n_bytes);
        layer.2 = layer.2.saturating_add(weights);
        self.bytes_of_part = self.bytes_of_part.max(tensor.n_bytes / n_experts);
    }
}

impl Model {
    /// Of these files, of which at least one is there.
    pub fn of(files: &[ModelFile], missing: Vec<String>) -> Self {
        let values = &files[0].listing.values;
        let mut sums = Sums::default();
        let tensors = files.iter().flat_map(|file| &file.listing.tensors);
        tensors.for_each(|tensor| sums.add(tensor));
        let architecture = values
            .text("general.architecture")
            .unwrap_or_default()
            .into_owned();
        let number = |key: &str| values.number(&format!("{architecture}.{key}"));
        let top_k = number("expert_used_count").unwrap_or(0);
        let picked = |n_experts: u64, n: u64| {
            (u128::from(n) * u128::from(top_k.min(n_experts)) / u128::from(n_experts)) as u64
        };
        let layers = sums.layers.values();
        let expert_weights = layers
            .clone()
            .fold(0u64, |sum, l| picked(l.0, l.2).saturating_add(sum));
        // Where the table of tokens is the output, too, all of it is used.
        let (bytes, weights) = match sums.has_output {
            true => (sums.table_bytes, sums.table_weights),
            false => (0, 0),
        };
        let mut damage = whole::look(files);
        damage.extend(missing.into_iter().map(|name| Damage::Missing { name }));
        Self {
            name: values.text("general.name").unwrap_or_default().into_owned(),
            n_files: files.len(),
            n_bytes: files
                .iter()
                .fold(0, |sum, file| end(&file.listing).saturating_add(sum)),
            n_layers: number("block_count").unwrap_or(0) as u32,
            n_expert_layers: sums.layers.len() as u32,
            n_experts: layers.clone().map(|l| l.0).max().unwrap_or(0) as u32,
            top_k: top_k as u32,
            expert_bytes: layers.clone().fold(0, |sum, l| l.1.saturating_add(sum)),
            dense_bytes: sums.dense_bytes,
            bytes_of_expert: layers.clone().map(|l| l.1 / l.0).max().unwrap_or(0),
            bytes_of_part: sums.bytes_of_part,
            token_expert_bytes: layers
                .clone()
                .fold(0, |sum, l| picked(l.0, l.1).saturating_add(sum)),
            token_dense_bytes: sums.dense_bytes - bytes,
            token_weights: expert_weights.saturating_add(sums.dense_weights - weights),
            expert_types: by_bytes(&sums.types[0]),
            dense_types: by_bytes(&sums.types[1]),
            n_context_trained: number("context_length"),
            kv_bytes_per_token: kv_bytes(values, &architecture),
            architecture,
            damage,
        }
    }

    /// Whether it has experts of which a token uses some.
    pub fn is_moe(&self) -> bool {
        self.expert_bytes > 0 && self.top_k > 0
    }

    /// Which part of its experts a token uses.
    pub fn used_share(&self) -> f64 {
        f64::from(self.top_k) / f64::from(self.n_experts.max(1))
    }
}

fn by_bytes(types: &BTreeMap<String, u64>) -> Vec<TypeBytes> {
    let mut list: Vec<_> = types
        .iter()
        .map(|(name, &bytes)| TypeBytes {
            name: name.clone(),
            bytes,
        })
        .collect();
    list.sort_by_key(|of| std::cmp::Reverse(of.bytes));
    list
}

/// Bytes that a token takes in the KV cache in half precision, if every layer attends to all tokens: no less than it
/// takes. Numbers that differ by layer count as the whole width of the model.
fn kv_bytes(values: &Values, architecture: &str) -> u64 {
    let number = |key: &str| values.number(&format!("{architecture}.{key}"));
    let n_layers = number("block_count").unwrap_or(0);
    if let Some(rank) = number("attention.kv_lora_rank") {
        return n_layers.saturating_mul(2 * (rank + number("rope.dimension_count").unwrap_or(64)));
    }
    let width = number("embedding_length").unwrap_or(0);
    let n_heads = number("attention.head_count").unwrap_or(1).max(1);
    let n_kv = number("attention.head_count_kv").unwrap_or(n_heads);
    let key = number("attention.key_length").unwrap_or(width / n_heads);
    let value = number("attention.value_length").unwrap_or(key);
    n_layers
        .saturating_mul(2 * n_kv)
        .saturating_mul(key.saturating_add(value))
}
