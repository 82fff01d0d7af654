//! Which tensors hold routed experts.

/// A matrix of an expert. Parts are in the order in which graphs use them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// [`Part::Gate`] and [`Part::Up`] in one.
    GateUp,
    /// From the input to the hidden layer, through the activation.
    Gate,
    /// From the input to the hidden layer.
    Up,
    /// From the hidden layer to the output.
    Down,
}

/// Splits `blk.7.ffn_up_exps.weight`, a tensor of routed experts, into block and part; `None` for any other.
pub fn expert_part(name: &str) -> Option<(u32, Part)> {
    let (block, rest) = name.strip_prefix("blk.")?.split_once('.')?;
    let part = match rest.strip_prefix("ffn_")?.strip_suffix("_exps.weight")? {
        "gate_up" => Part::GateUp,
        "gate" => Part::Gate,
        "up" => Part::Up,
        "down" => Part::Down,
        _ => return None,
    };
    Some((block.parse().ok()?, part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_routed_expert_weights_are_streamed() {
        let parts = [Part::GateUp, Part::Gate, Part::Up, Part::Down];
        assert!(parts.is_sorted());
        for (part, name) in parts.into_iter().zip(["gate_up", "gate", "up", "down"]) {
            let name = format!("blk.12.ffn_{name}_exps.weight");
            assert_eq!(expert_part(&name), Some((12, part)));
        }
        for other in [
            "blk.0.ffn_up_exps.bias",
            "blk.0.ffn_down_exps.scale",
            "blk.0.ffn_up_shexp.weight",
            "blk.0.ffn_up.weight",
            "blk.x.ffn_up_exps.weight",
            "blk.0.ffn_up_exps.weight.lora_a",
        ] {
            assert_eq!(expert_part(other), None, "{other}");
        }
    }
}
