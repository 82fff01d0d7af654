//! Records what the routers of a model see.

use crate::states::{Event, Head, States};
use anyhow::Context;
use hotset::engine::predict::{Gate, Routers};
use hotset::llama::session::available_threads;
use hotset::llama::states;
use std::path::Path;
use std::sync::Arc;

/// Reads `n_prompt` tokens of the text at `text` as a prompt, the others one at a time, `n_tokens` in all.
pub fn record(
    model: &Path,
    text: &Path,
    n_prompt: usize,
    n_tokens: usize,
) -> anyhow::Result<States> {
    let text = std::fs::read_to_string(text).with_context(|| text.display().to_string())?;
    let seen = states::record(model, &text, n_prompt, n_tokens, available_threads())?;
    let first = &seen.events[0];
    let mut head = Head {
        width: first.inputs.len() / first.n_tokens,
        top_k: first.picks.len() / first.n_tokens,
        n_experts: seen.blocks.iter().map(|(_, n)| *n).collect(),
        ..Head::default()
    };
    let mut tensors = Vec::new();
    for layer in 0..seen.blocks.len() {
        let router = seen
            .routers
            .router(layer)
            .context("a router that cannot be read")?;
        let parts = [router.weight, router.bias, router.late_bias, router.norm];
        head.sizes.push(parts.map(<[f32]>::len));
        head.is_sigmoid = router.gate == Gate::Sigmoid;
        head.groups = router.groups.map_or([0, 0], |g| [g.n_groups, g.n_used]);
        tensors.push(parts.map(<[f32]>::to_vec));
    }
    let layer_of = |block| seen.blocks.iter().position(|(b, _)| *b == block);
    let event = |event: states::Event| Event {
        layer: layer_of(event.block).expect("each block is listed"),
        n_tokens: event.n_tokens,
        inputs: event.inputs,
        picks: event.picks,
    };
    Ok(States {
        head,
        tensors: Arc::new(tensors),
        events: seen.events.into_iter().map(event).collect(),
    })
}
