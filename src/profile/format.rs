//! What a profile holds.

use crate::gguf::Experts;
use crate::tracker::Phase;
use serde::{Deserialize, Serialize};
use std::time::SystemTime;

/// The version of the format that this program writes, and the only one it reads.
pub const VERSION: u32 = 1;
/// Tokens of a phase after which a pick weighs half.
pub const HALF_LIFE: u64 = 8192;

/// What a profile is worth to a policy, in tokens of the live workload: enough to fill the first slots
/// well, little enough to be unlearnt when the text turns out to be another.
pub const PRIOR_TOKENS: f32 = 64.0;

/// What a workload picks of a model's experts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// [`VERSION`].
    pub version: u32,
    /// The workload.
    pub name: String,
    /// The model.
    pub model: Fingerprint,
    /// Tokens that it was learnt from.
    pub tokens: Tokens,
    /// When it was begun: UTC, as in 2026-11-22T20:15:00Z.
    pub created: String,
    /// When it was last changed.
    pub updated: String,
    /// Layers with experts, in the order of their blocks.
    pub layers: Vec<LayerHeat>,
}

/// What tells one model from another, whatever its quantisation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fingerprint {
    /// As GGUF's `general.architecture`.
    pub architecture: String,
    /// As GGUF's `general.name`; empty if the model has none. Upper case and separators do not count.
    pub name: String,
    /// Layers with experts.
    pub n_layers: u32,
    /// Experts of a layer; where layers differ, of the largest.
    pub n_experts: u32,
    /// Experts that a token picks in a layer.
    pub top_k: u32,
}

/// Numbers of tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tokens {
    /// Read as prompts.
    pub prompt: u64,
    /// Generated.
    pub generation: u64,
}

impl Tokens {
    /// Those of `phase`.
    pub fn of(&self, phase: Phase) -> u64 {
        match phase {
            Phase::Prefill => self.prompt,
            Phase::Decode => self.generation,
        }
    }

    /// Those of `phase`.
    pub fn of_mut(&mut self, phase: Phase) -> &mut u64 {
        match phase {
            Phase::Prefill => &mut self.prompt,
            Phase::Decode => &mut self.generation,
        }
    }
}

/// What a workload picks of one layer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LayerHeat {
    /// By prompts.
    pub prompt: Heat,
    /// By generation.
    pub generation: Heat,
}

/// How much each expert of a layer is picked; one number for each.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Heat {
    /// Picks, the older ones less. Not negative; written with four digits.
    pub weight: Vec<f64>,
    /// Picks.
    pub count: Vec<u64>,
}

/// UTC, as profiles tell time.
pub(super) fn now() -> String {
    humantime::format_rfc3339_seconds(SystemTime::now()).to_string()
}

impl Heat {
    /// Nothing picked of `n_experts`.
    pub fn new(n_experts: usize) -> Self {
        Self {
            weight: vec![0.0; n_experts],
            count: vec![0; n_experts],
        }
    }

    /// The sum of the weights.
    pub fn total(&self) -> f64 {
        self.weight.iter().sum()
    }
}

impl LayerHeat {
    /// What `phase` picks.
    pub fn heat(&self, phase: Phase) -> &Heat {
        match phase {
            Phase::Prefill => &self.prompt,
            Phase::Decode => &self.generation,
        }
    }

    /// What `phase` picks.
    pub fn heat_mut(&mut self, phase: Phase) -> &mut Heat {
        match phase {
            Phase::Prefill => &mut self.prompt,
            Phase::Decode => &mut self.generation,
        }
    }
}

impl Profile {
    /// A profile of the workload `name` on `model`, whose layers have so many experts; begun now.
    pub fn new(name: &str, model: Fingerprint, n_experts: &[u32]) -> Self {
        let now = now();
        let layer = |&n: &u32| LayerHeat {
            prompt: Heat::new(n as usize),
            generation: Heat::new(n as usize),
        };
        Self {
            version: VERSION,
            name: name.to_string(),
            model,
            tokens: Tokens::default(),
            created: now.clone(),
            updated: now,
            layers: n_experts.iter().map(layer).collect(),
        }
    }

    /// Experts of each layer.
    pub fn n_experts(&self) -> Vec<u32> {
        let layers = self.layers.iter();
        layers
            .map(|layer| layer.prompt.count.len() as u32)
            .collect()
    }
}

impl Fingerprint {
    /// That of a model whose files were read.
    pub fn of(model: &Experts) -> Self {
        let shape = &model.shape;
        let n_layers = shape.n_layers();
        Self {
            architecture: model.architecture.clone(),
            name: model.name.clone(),
            n_layers,
            n_experts: (0..n_layers)
                .map(|layer| shape.n_experts(layer))
                .max()
                .unwrap_or(0),
            top_k: model.top_k,
        }
    }

    /// What counts of its name.
    pub(super) fn plain_name(&self) -> String {
        let kept = self.name.chars().filter(|c| c.is_alphanumeric());
        kept.flat_map(char::to_lowercase).collect()
    }

    /// What a profile of `self` and a model `other` differ in, with both values; `None` if they are one.
    ///
    /// Names are compared by their letters and digits. Neither names nor architectures count where one is empty.
    pub fn difference(&self, other: &Self) -> Option<String> {
        let (a, b) = (self.plain_name(), other.plain_name());
        let differs = |field, a: &dyn std::fmt::Display, b: &dyn std::fmt::Display| {
            Some(format!(
                "its model.{field} is {a}, that of the model is {b}"
            ))
        };
        let is_known = !self.architecture.is_empty() && !other.architecture.is_empty();
        if is_known && self.architecture != other.architecture {
            return differs("architecture", &self.architecture, &other.architecture);
        }
        for (field, a, b) in [
            ("n_layers", self.n_layers, other.n_layers),
            ("n_experts", self.n_experts, other.n_experts),
            ("top_k", self.top_k, other.top_k),
        ] {
            if a != b {
                return differs(field, &a, &b);
            }
        }
        if !a.is_empty() && !b.is_empty() && a != b {
            return differs("name", &self.name, &other.name);
        }
        None
    }
}
