//! What the routers of a model are made of: their weights, where llama.cpp has them, or copies of those that are no
//! floats.

use super::sys::{
    GGML_TYPE_F32, ggml_backend_buffer_is_host, ggml_get_type_traits, ggml_tensor, llama_model,
    llama_model_meta_val_str,
};
use crate::engine::predict::{Gate, Groups, Router, Routers};
use std::collections::BTreeMap;
use std::ffi::{CString, c_char};
use std::sync::Arc;

/// A vector or a matrix of a loaded model. The model outlives it.
#[derive(Clone)]
enum Weights {
    /// Floats in memory.
    There { address: usize, n: usize },
    /// What they are as floats.
    Copied(Arc<[f32]>),
}

impl Weights {
    /// The weights of `tensor`, if they are in memory, in a form that can be read.
    fn of(tensor: &ggml_tensor) -> Option<Self> {
        // SAFETY: a loaded tensor has a buffer.
        let is_host = unsafe { ggml_backend_buffer_is_host(tensor.buffer) };
        if !is_host || tensor.ne[2..] != [1, 1] {
            return None;
        }
        let [n_columns, n_rows] = [0, 1].map(|i| tensor.ne[i] as usize);
        let n = n_columns * n_rows;
        // SAFETY: the table of a type lives for ever.
        let traits = unsafe { &*ggml_get_type_traits(tensor.type_) };
        let row_bytes = n_columns / traits.blck_size as usize * traits.type_size;
        if tensor.nb[0] != traits.type_size || tensor.nb[1] != row_bytes {
            return None;
        }
        if tensor.type_ == GGML_TYPE_F32 {
            let address = tensor.data.expose_provenance();
            return Some(Self::There { address, n });
        }
        let to_float = traits.to_float?;
        let mut floats = vec![0.0; n];
        // SAFETY: rows follow each other, so these are so many numbers of this type, and there is room for them.
        unsafe { to_float(tensor.data, floats.as_mut_ptr(), n as i64) };
        Some(Self::Copied(floats.into()))
    }

    fn values(&self) -> &[f32] {
        match self {
            Self::There { address, n } => {
                let data = std::ptr::with_exposed_provenance(*address);
                // SAFETY: floats of a model that is loaded, which nobody writes to.
                unsafe { std::slice::from_raw_parts(data, *n) }
            }
            Self::Copied(values) => values,
        }
    }
}

/// The tensors that choose the experts of a block, as far as they are seen.
#[derive(Default, Clone)]
struct Tensors {
    weight: Option<Weights>,
    bias: Option<Weights>,
    late_bias: Option<Weights>,
    norm: Option<Weights>,
    /// The norm of models that have no other before the router.
    norm_after_attention: Option<Weights>,
}

/// What the metadata of a model say of its routers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Rules {
    gate: Option<Gate>,
    groups: Option<Groups>,
}

/// What is seen of the routers of a model, by block.
#[derive(Default)]
pub struct SeenRouters {
    blocks: BTreeMap<u32, Tensors>,
    rules: Rules,
}

impl SeenRouters {
    /// Notes a loaded tensor, if it belongs to a router.
    pub fn note(&mut self, name: &str, tensor: &ggml_tensor) {
        let Some((block, part)) = name.strip_prefix("blk.").and_then(|n| n.split_once('.')) else {
            return;
        };
        let Ok(block) = block.parse() else { return };
        let place: fn(&mut Tensors) -> &mut Option<Weights> = match part {
            "ffn_gate_inp.weight" => |tensors| &mut tensors.weight,
            "ffn_gate_inp.bias" => |tensors| &mut tensors.bias,
            "exp_probs_b.bias" => |tensors| &mut tensors.late_bias,
            "ffn_norm.weight" => |tensors| &mut tensors.norm,
            "post_attention_norm.weight" => |tensors| &mut tensors.norm_after_attention,
            _ => return,
        };
        *place(self.blocks.entry(block).or_default()) = Weights::of(tensor);
    }

    /// Notes what the metadata of the model say.
    ///
    /// # Safety
    ///
    /// `model` is a model whose metadata are loaded.
    pub unsafe fn note_rules(&mut self, model: *const llama_model) {
        let value = |key: &str| {
            let mut text = [0u8; 64];
            let key = CString::new(key).ok()?;
            // SAFETY: the caller promises the model; the key is a C string, and the buffer has this size.
            let n = unsafe {
                let room = text.as_mut_ptr().cast::<c_char>();
                llama_model_meta_val_str(model, key.as_ptr(), room, text.len())
            };
            let n = usize::try_from(n).ok()?.min(text.len() - 1);
            Some(String::from_utf8_lossy(&text[..n]).into_owned())
        };
        let arch = value("general.architecture").unwrap_or_default();
        self.rules = rules(|name| value(&format!("{arch}.{name}"))?.parse().ok());
    }

    /// The routers of `blocks`, in this order.
    pub fn of_blocks(&self, blocks: impl Iterator<Item = u32>) -> LayerRouters {
        let tensors = |block| self.blocks.get(&block).cloned().unwrap_or_default();
        LayerRouters {
            layers: blocks.map(tensors).collect(),
            rules: self.rules,
        }
    }
}

/// What numbers of the metadata, by the names they have after that of the architecture, say of the routers.
fn rules(number: impl Fn(&str) -> Option<usize>) -> Rules {
    // `llama_expert_gating_func_type`.
    let gate = match number("expert_gating_func") {
        Some(0 | 3) => Some(Gate::Plain),
        Some(1) => Some(Gate::Softmax),
        Some(2) => Some(Gate::Sigmoid),
        Some(4) => Some(Gate::RootOfSoftplus),
        _ => None,
    };
    let n_groups = number("expert_group_count").filter(|&n| n > 1);
    let n_used = number("expert_group_used_count").filter(|&n| n > 0);
    let groups = n_groups.zip(n_used);
    Rules {
        gate,
        groups: groups.map(|(n_groups, n_used)| Groups { n_groups, n_used }),
    }
}

/// The routers of a model, by layer of its engine.
pub struct LayerRouters {
    layers: Vec<Tensors>,
    rules: Rules,
}

impl Routers for LayerRouters {
    fn router(&self, layer: usize) -> Option<Router<'_>> {
        let tensors = self.layers.get(layer)?;
        fn values_of(weights: &Option<Weights>) -> &[f32] {
            weights.as_ref().map_or(&[], Weights::values)
        }
        let norm = tensors
            .norm
            .as_ref()
            .or(tensors.norm_after_attention.as_ref());
        // Models whose metadata are silent and that add a bias afterwards have sigmoids.
        let usual = match tensors.late_bias {
            Some(_) => Gate::Sigmoid,
            None => Gate::Softmax,
        };
        Some(Router {
            weight: tensors.weight.as_ref()?.values(),
            bias: values_of(&tensors.bias),
            late_bias: values_of(&tensors.late_bias),
            norm: norm.map_or(&[], Weights::values),
            gate: self.rules.gate.unwrap_or(usual),
            groups: self.rules.groups,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_say_how_experts_are_picked() {
        let numbers = [
            ("expert_gating_func", 2),
            ("expert_group_count", 8),
            ("expert_group_used_count", 4),
        ];
        let find = |name: &str, n: usize| {
            numbers[..n]
                .iter()
                .find(|(key, _)| *key == name)
                .map(|(_, n)| *n)
        };
        let groups = Some(Groups {
            n_groups: 8,
            n_used: 4,
        });
        assert_eq!(rules(|name| find(name, 0)), Rules::default());
        let gate = Some(Gate::Sigmoid);
        assert_eq!(rules(|name| find(name, 2)), Rules { gate, groups: None });
        assert_eq!(rules(|name| find(name, 3)), Rules { gate, groups });
    }
}
