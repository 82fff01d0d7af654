//! What a policy is, and what its line in the registry says of it.

use crate::expert::{Event, ExpertId, Shape};

/// Ranks resident experts.
///
/// What a policy knows of an expert comes from `prime` and `route`, resident or not; `insert`, `evict`
/// and `evict_this` say which experts compete for a place. Nothing is ever undone: an expert that comes
/// back after its eviction is inserted as any other.
pub trait Policy: Send {
    /// The pool has `n_slots` slots from now on, which may be none. Called before anything else, and
    /// when the budget changes, before the evictions that this may cause.
    fn resize(&mut self, n_slots: u32) {
        let _ = n_slots;
    }

    /// What is known of the workload: before it begins, or when it turns out to be one that is known.
    ///
    /// It orders the experts that generation has not used yet, for every policy. Policies that count
    /// also count what `prior.n_tokens` tokens of the workload would have left, up to what they
    /// remember, beside what they have counted. A ranking that never changes is the latest prior's.
    fn prime(&mut self, prior: &Prior) {
        let _ = prior;
    }

    /// The router picked `event.experts` for tokens that stay. Called before the hits and misses of
    /// these tokens are known and before any `insert` or `evict` they cause. Tokens that may still be
    /// taken back are planned without it: what they miss is inserted first, and heard of later if at all.
    fn route(&mut self, event: &Event);

    /// `id` became resident. The caller guarantees it was not.
    fn insert(&mut self, id: ExpertId);

    /// `id`, which is resident, leaves because the caller chose it: nothing is learnt from that. The cost
    /// must not grow with the number of residents, for three tiers evict an expert of each pick like this.
    fn evict_this(&mut self, id: ExpertId);

    /// Picks a resident expert for which `pinned` is false, and removes it.
    ///
    /// Returns `None` only when every resident expert is pinned.
    fn evict(&mut self, pinned: &dyn Fn(ExpertId) -> bool) -> Option<ExpertId>;

    /// Panics if the internal state is inconsistent. Tests call it after each step.
    fn validate(&self);
}

/// What a profile says of each expert: how often a token picks it.
#[derive(Debug, Clone, Copy)]
pub struct Prior<'a> {
    /// By dense index: the share of tokens that pick the expert, 0 to 1.
    pub frequency: &'a [f32],
    /// How many tokens of the live workload this is worth, above 0: the fewer, the sooner what is
    /// seen outweighs it.
    pub n_tokens: f32,
}

/// A number in a policy's name, as in `decay:16`.
#[derive(Debug, Clone, Copy)]
pub struct Param {
    /// What it is, with its unit.
    pub name: &'static str,
    /// Its value when the name has no number.
    pub default: u32,
    /// Smallest allowed value.
    pub min: u32,
    /// Largest allowed value.
    pub max: u32,
}

/// A policy by name.
pub struct Spec {
    /// Stable: it appears in settings, reports and golden files.
    pub name: &'static str,
    /// One line: what it evicts.
    pub about: &'static str,
    /// One line: when to use it.
    pub when: &'static str,
    /// Where the algorithm comes from.
    pub source: &'static str,
    /// The number after the colon, for policies that take one.
    pub param: Option<Param>,
    /// Builds an empty instance; the number is the parameter's value, or 0 without one.
    pub build: fn(&Shape, u32) -> Box<dyn Policy>,
}

impl Spec {
    /// `decay[:half-life in tokens, 1 to 4096, default 16]`.
    pub fn choice(&self) -> String {
        match self.param {
            None => self.name.to_string(),
            Some(Param {
                name,
                default,
                min,
                max,
            }) => format!("{}[:{name}, {min} to {max}, default {default}]", self.name),
        }
    }
}
