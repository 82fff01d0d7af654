//! Eviction policies.
//!
//! A policy ranks resident experts. It moves no bytes, reads no clock and knows nothing of
//! llama.cpp: the cache tells it what happened, in order. To add one, copy `lru.rs` and add its
//! line to [`REGISTRY`]; the CLI, the C API and every conformance test find it there.
//!
//! # What is learnt from a prefill
//!
//! A prompt (`Event::is_prefill`) picks nearly every expert, and what it finds hot is mostly not what
//! generation finds hot. Policies that count let the whole batch weigh as much as one generated
//! token: an expert gets the share of the batch's tokens that picked it. Policies that order by
//! time do not let a prompt touch that order. So a prompt ranks the experts that generation has
//! not used yet, and hardly moves the others.
//!
//! # Why the arithmetic looks as it does
//!
//! The same events give the same victims on every machine, to the bit: a recording is replayed elsewhere
//! and must hit what it hit, and golden files hold the tests to that. So policies add, multiply and divide,
//! which round alike everywhere, in an order that is fixed; logarithms and roots that are taken once come
//! from `libm`, which is made of these. What is computed for each expert of an event
//! (`reuse/approximate.rs`) is compiled twice, for any processor and for those with wide registers, with
//! the same operations in the same order: sums run in eight parts side by side either way, and nothing
//! is fused. That is why there are conversions by adding a large number there, and no calls.

use crate::error::{Error, Result};
use crate::expert::Shape;

mod adaptive;
mod baselines;
mod contract;
mod decay;
mod lru;
mod recency;
mod reuse;
mod scored;
#[cfg(test)]
mod testing;

pub use contract::{Param, Policy, Prior, Spec};

/// Every policy, in the order `--help` lists them.
pub const REGISTRY: &[Spec] = &[
    lru::SPEC,
    baselines::lfu::SPEC,
    decay::SPEC,
    baselines::window::SPEC,
    baselines::layered::SPEC,
    baselines::slru::SPEC,
    baselines::classlru::SPEC,
    baselines::lfuda::SPEC,
    baselines::s3fifo::SPEC,
    baselines::tinylfu::SPEC,
    baselines::r#static::SPEC,
    baselines::echo::SPEC,
    adaptive::SPEC,
];

/// Builds the policy that `name` names, as in `lru` or `decay:16`, for a model of shape `shape`.
pub fn by_name(name: &str, shape: &Shape) -> Result<Box<dyn Policy>> {
    let (spec, param) = find(name)?;
    Ok((spec.build)(shape, param))
}

/// The registry entry that `name` names, and the value of its parameter (0 if it takes none).
pub fn find(name: &str) -> Result<(&'static Spec, u32)> {
    let (base, number) = match name.split_once(':') {
        Some((base, number)) => (base, Some(number)),
        None => (name, None),
    };
    let spec = REGISTRY.iter().find(|spec| spec.name == base);
    let value = spec.and_then(|spec| match (spec.param, number) {
        (None, None) => Some(0),
        (None, Some(_)) => None,
        (Some(param), None) => Some(param.default),
        // Digits only: `parse` alone would take a sign, and one policy would have two names.
        (Some(param), Some(number)) => Some(number)
            .filter(|n| n.bytes().all(|b| b.is_ascii_digit()))
            .and_then(|n| n.parse().ok())
            .filter(|v| (param.min..=param.max).contains(v)),
    });
    let wrong = |allowed| Error::setting("HOTSET_POLICY", name, allowed);
    match (spec, value) {
        (Some(spec), Some(value)) => Ok((spec, value)),
        (Some(spec), None) if spec.param.is_some() => {
            Err(wrong(format!("must be {}", spec.choice())))
        }
        _ => Err(wrong(format!("must be one of {}", choices()))),
    }
}

/// All names with their parameters: `lru, decay[:half-life in tokens, 1 to 4096, default 16]`.
pub fn choices() -> String {
    let choices: Vec<String> = REGISTRY.iter().map(Spec::choice).collect();
    choices.join(", ")
}
