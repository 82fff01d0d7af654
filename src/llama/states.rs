//! What the routers of a model see and pick of a text, in this process: for looking at how well that is foreseen.
//!
//! llama.cpp asks for each operation whether somebody wants to see it. What is wanted are the router's scores, which
//! have its weight and its input as sources, and the picks.

use super::foresight::{LayerRouters, SeenRouters};
use super::session::{Outputs, Session, Sizes};
use super::sys::{GGML_TYPE_F32, ggml_tensor};
use crate::error::Result;
use std::collections::BTreeMap;
use std::ffi::{CStr, c_void};
use std::path::Path;

/// Picks of the tokens of one batch in one block.
#[derive(Debug, Default)]
pub struct Event {
    /// The number of the block in the model.
    pub block: u32,
    /// A row for each token.
    pub inputs: Vec<f32>,
    /// By token, the same number of each.
    pub picks: Vec<i32>,
    /// How many tokens there are.
    pub n_tokens: usize,
}

/// What was seen.
#[derive(Default)]
struct Seen {
    routers: SeenRouters,
    /// By block: how many experts it has.
    n_experts: BTreeMap<u32, usize>,
    events: Vec<Event>,
    /// Of a block whose picks are not known yet.
    open: Option<Event>,
}

/// What a model saw and picked of a text.
pub struct States {
    /// The blocks with experts, and how many each has.
    pub blocks: Vec<(u32, usize)>,
    /// Their routers. They live no longer than the session.
    pub routers: LayerRouters,
    /// In the order in which they were computed.
    pub events: Vec<Event>,
    /// Keeps what the routers are made of.
    pub session: Session,
}

/// Reads the first `n_prompt` tokens of `text` as a prompt with the model at `path`, and the next ones, `n_tokens` in
/// all, one at a time. Computes at once with as many threads as there are cores.
pub fn record(
    path: &Path,
    text: &str,
    n_prompt: usize,
    n_tokens: usize,
    n_threads: usize,
) -> Result<States> {
    let sizes = Sizes {
        n_context: n_tokens,
        n_batch: 512,
        n_threads,
    };
    // It stays where it is while the session may call back.
    let mut seen = Box::new(Seen::default());
    let user_data: *mut Seen = &mut *seen;
    let session = Session::load_watched(path, sizes, watch, user_data.cast())?;
    let mut tokens = session.tokenize(text)?;
    tokens.truncate(n_tokens);
    let (prompt, rest) = tokens.split_at(n_prompt.min(tokens.len()));
    let mut n_before = 0;
    let batches = prompt.chunks(sizes.n_batch).chain(rest.chunks(1));
    for batch in batches {
        // The last layer is computed only for tokens with outputs.
        session.compute(batch, n_before, Outputs::All)?;
        n_before += batch.len();
    }
    if seen.events.is_empty() {
        return Err(
            session.wrong("its routers cannot be seen: it has no experts, or they are on a device")
        );
    }
    Ok(States {
        blocks: seen
            .n_experts
            .iter()
            .map(|(&block, &n)| (block, n))
            .collect(),
        routers: seen.routers.of_blocks(seen.n_experts.keys().copied()),
        events: std::mem::take(&mut seen.events),
        session,
    })
}

/// The number after `prefix` in the name of an operation.
fn block_of(name: &str, prefix: &str) -> Option<u32> {
    name.strip_prefix(prefix)?.parse().ok()
}

unsafe extern "C" fn watch(tensor: *mut ggml_tensor, asks: bool, user_data: *mut c_void) -> bool {
    // SAFETY: llama.cpp passes a tensor, and what `record` gave it.
    let (tensor, seen) = unsafe { (&*tensor, &mut *user_data.cast::<Seen>()) };
    let name = |tensor: &ggml_tensor| {
        // SAFETY: the names of tensors are NUL-terminated.
        unsafe { CStr::from_ptr(tensor.name.as_ptr()) }
            .to_str()
            .map(str::to_string)
    };
    let Ok(own) = name(tensor) else { return !asks };
    let logits = block_of(&own, "ffn_moe_logits-");
    let picks = block_of(&own, "ffn_moe_topk-");
    if asks {
        return logits.is_some() || picks.is_some();
    }
    let n_tokens = tensor.ne[1] as usize;
    if let Some(block) = logits {
        // SAFETY: the sources of a product are its weight and its input, in memory while it is computed.
        let (weight, input) = unsafe { (&*tensor.src[0], &*tensor.src[1]) };
        let is_plain = input.type_ == GGML_TYPE_F32 && input.nb[1] == 4 * input.ne[0] as usize;
        if !is_plain {
            return true;
        }
        if !seen.n_experts.contains_key(&block) {
            seen.n_experts.insert(block, weight.ne[1] as usize);
            seen.routers
                .note(&format!("blk.{block}.ffn_gate_inp.weight"), weight);
            // SAFETY: what made the input is known, and its sources are tensors or NULL.
            let norm = unsafe { input.src[1].as_ref() };
            if let Some(norm) = norm.filter(|norm| norm.ne[0] == input.ne[0])
                && let Ok(name) = name(norm)
            {
                seen.routers.note(&name, norm);
            }
        }
        let n = input.ne[0] as usize * n_tokens;
        // SAFETY: rows of floats that follow each other.
        let inputs = unsafe { std::slice::from_raw_parts(input.data.cast::<f32>(), n) };
        seen.open = Some(Event {
            block,
            inputs: inputs.to_vec(),
            picks: Vec::new(),
            n_tokens,
        });
    }
    if let Some(block) = picks
        && let Some(mut event) = seen.open.take_if(|event| event.block == block)
    {
        // SAFETY: the ids of an operation, in memory.
        let picks = unsafe { super::picks::picks(tensor) };
        event.picks.extend(picks.rows().flatten());
        seen.events.push(event);
    }
    true
}
