//! What to run: the context, what the process takes besides experts, and the command.

use super::model::Model;
use hotset::config::Ram;
use hotset::memory::auto_size;
use serde::Serialize;

/// Contexts, the largest first. One is taken whose KV cache is a small part of the memory.
const CONTEXTS: [u64; 5] = [32768, 16384, 8192, 4096, 2048];
const KV_PART: u64 = 10;
/// What a process takes besides weights and KV cache: its compute buffers, its code, and what the kernel counts for it.
const PROCESS_BYTES: u64 = 128 << 20;

/// What to run.
#[derive(Debug, Clone, Serialize)]
pub struct Plan {
    /// In a terminal, and as a server.
    pub command: String,
    pub server_command: String,
    pub context: u64,
    /// Memory for experts.
    pub budget_bytes: u64,
    /// Whether all experts find a place there.
    pub fits: bool,
    /// What the process takes besides: dense weights, KV cache, the rest.
    pub dense_bytes: u64,
    pub kv_bytes: u64,
    pub process_bytes: u64,
}

/// For a model that llama.cpp is told about with `model`, as in `-m model.gguf`. `ram` is what somebody chose for experts,
/// `available` what the machine has.
pub fn plan(
    model: &Model,
    model_arguments: &str,
    (ram, ram_text): (Ram, &str),
    available: u64,
) -> Plan {
    let trained = model.n_context_trained.unwrap_or(u64::MAX);
    let kv_bytes = |context: u64| context.saturating_mul(model.kv_bytes_per_token);
    let fits_well =
        |context: &&u64| **context <= trained && kv_bytes(**context) <= available / KV_PART;
    let smallest = CONTEXTS[CONTEXTS.len() - 1].min(trained);
    let context = CONTEXTS.iter().find(fits_well).copied().unwrap_or(smallest);
    let kv_bytes = kv_bytes(context);
    let rest = model
        .dense_bytes
        .saturating_add(kv_bytes)
        .saturating_add(PROCESS_BYTES);
    let budget_bytes = match ram {
        Ram::Bytes(n) => n,
        Ram::Percent(percent) => (model.expert_bytes as f64 * percent / 100.0) as u64,
        Ram::Auto | Ram::IfNeeded => auto_size::at_start(available, rest.min(available)),
    };
    let chosen = match ram {
        Ram::Auto | Ram::IfNeeded => String::new(),
        _ => format!(" --ram {ram_text}"),
    };
    Plan {
        command: format!("hotset run{chosen} {model_arguments} -c {context}"),
        server_command: format!("hotset server{chosen} {model_arguments} -c {context}"),
        context,
        fits: budget_bytes >= model.expert_bytes,
        budget_bytes,
        dense_bytes: model.dense_bytes,
        kv_bytes,
        process_bytes: PROCESS_BYTES,
    }
}
