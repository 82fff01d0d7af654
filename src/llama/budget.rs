//! What a model gets of `HOTSET_RAM`.

use super::model::Parts;
use super::room::{self, Budget};
use super::shares;
use crate::config::{Config, Ram};
use crate::engine::layout::expert_bytes;
use crate::error::Result;

/// The budget of a model with streamed experts; other models' arenas take `used_bytes` of the setting.
pub fn of_model(parts: &Parts, config: &Config, used_bytes: u64) -> Result<Budget> {
    let total = expert_bytes(&parts.tensors);
    let budget = match config.ram.expect("wanted tensors mean there is a budget") {
        Ram::Bytes(n) => Budget::Fixed(n.saturating_sub(used_bytes)),
        Ram::Percent(p) => Budget::Fixed((total as f64 * p / 100.0) as u64),
        Ram::Auto | Ram::IfNeeded => Budget::UpTo(u64::MAX),
    };
    // What other models have left is nobody's choice.
    let is_chosen = matches!(config.ram, Some(Ram::Bytes(_))) && used_bytes == 0;
    let chosen = is_chosen.then_some(config.ram_text.as_str());
    room::check_least(&parts.tensors, &parts.files, budget, chosen)?;
    match (&config.routed, config.ram) {
        (Some(routed), Some(Ram::Bytes(n))) => {
            shares::budget(routed, n, used_bytes, (&parts.tensors, &parts.files))
        }
        _ => room::check(&parts.tensors, &parts.files, budget),
    }
}
