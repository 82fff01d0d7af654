//! Routing traces: which experts each token picked, in a compressed text file.
//!
//! # The format
//!
//! Gzip text. The first line is a JSON object, the [`Header`]; each other line is
//!
//! ```text
//! token layer id,id,...
//! ```
//!
//! and says that the router of `layer`, counted over mixture-of-experts layers, picked these experts
//! for `token`: at least one, at most `top_k`, no id twice. A missing line means that the layer was
//! not computed for that token. Where ` aside` follows, the cache of a device was left aside, as it is
//! when it does not pay. Before that may stand ` @sequence`, in all lines of an event or in none: its
//! tokens are of no prefill, and each of this sequence.
//!
//! Lines are in the order of (token, layer), and each is an event of one token; except where the
//! header says `batched`: there, lines of the same layer and of tokens that follow one another
//! (t, t + 1, ...) are one event of that many tokens, until an empty line or any other line ends
//! it. Layers of one token still ascend, but tokens need not: sequences of several contexts may
//! interleave.

mod lines;
mod parallel;
mod picks;
mod prefill;
mod read;
mod recording;
mod text;
mod write;

use crate::expert::{Event, Shape};
use serde::{Deserialize, Serialize};

pub use picks::Picks;
pub use prefill::Prefill;
pub use read::Trace;
pub use recording::Recording;
pub use write::Recorder;

/// The end of a line of an event for which the cache of a device was left aside.
const ASIDE: &str = "aside";

/// What the number of a sequence begins with.
const SEQUENCE: char = '@';

/// The first line of a trace. Fields that are not listed are ignored.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Header {
    /// Mixture-of-experts layers.
    pub n_layers: u32,
    /// Experts of each layer; where layers differ, of the largest.
    pub n_experts: u32,
    /// Experts that a token picks in one layer, at most.
    pub top_k: u32,
    /// What was routed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// What it computed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workload: Option<String>,
    /// `decode`, `prefill` or `mixed`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<String>,
    /// Tokens in the file, where that was known when the header was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub n_tokens: Option<u64>,
    /// The ids of a line are in the order of the router's scores, highest first: events have ranks.
    #[serde(default, skip_serializing_if = "is_default")]
    pub ranked: bool,
    /// Sequences that lie one after the other, in order; they need not cover all tokens.
    #[serde(default, skip_serializing_if = "is_default")]
    pub segments: Vec<Segment>,
    /// Lines form events of several tokens.
    #[serde(default, skip_serializing_if = "is_default")]
    pub batched: bool,
    /// Bytes of one expert, by layer; empty where they are not known.
    #[serde(default, skip_serializing_if = "is_default")]
    pub expert_bytes: Vec<u64>,
    /// The pools of the run that was recorded, which hold each layer once; empty where there was none.
    #[serde(default, skip_serializing_if = "is_default")]
    pub pools: Vec<PoolSpec>,
    /// Names a variant of the format. Absent in traces as described here, the only ones that are read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<String>,
}

/// Tokens of one sequence: `[first_token, n_tokens, label]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(from = "(u32, u32, String)", into = "(u32, u32, String)")]
pub struct Segment {
    /// Its first token.
    pub first_token: u32,
    /// How many there are.
    pub n_tokens: u32,
    /// What it is. [`Segment::PREFILL`] marks a prompt.
    pub label: String,
}

/// The memory that some layers of a run shared.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PoolSpec {
    /// The layers, ascending.
    pub layers: Vec<u32>,
    /// Experts that it held.
    #[serde(rename = "slots")]
    pub n_slots: u32,
    /// It was full when the run began.
    #[serde(default)]
    pub preloaded: bool,
    /// It was on a device: only small batches looked into it, where there was a slot for each expert picked.
    #[serde(default, skip_serializing_if = "is_default")]
    pub device: bool,
}

impl PoolSpec {
    /// Whether an event of one of its layers, which have `n_experts` experts each, looks into it.
    pub fn serves(&self, Recorded { event, is_aside }: &Recorded, n_experts: u32) -> bool {
        let fits = || {
            let n_picks: u32 = event.rows.iter().sum();
            n_picks.min(n_experts) <= self.n_slots
        };
        !self.device || !is_aside && !event.is_large() && fits()
    }
}

/// An event of a run.
#[derive(Debug, Clone, Copy)]
pub struct Recorded<'a> {
    /// What was picked.
    pub event: Event<'a>,
    /// The cache of its device was left aside, though it might have served it.
    pub is_aside: bool,
}

impl<'a> From<Event<'a>> for Recorded<'a> {
    fn from(event: Event<'a>) -> Self {
        Self {
            event,
            is_aside: false,
        }
    }
}

impl Segment {
    /// The label of a prompt being read.
    pub const PREFILL: &'static str = "prefill";
}

impl From<(u32, u32, String)> for Segment {
    fn from((first_token, n_tokens, label): (u32, u32, String)) -> Self {
        Self {
            first_token,
            n_tokens,
            label,
        }
    }
}

impl From<Segment> for (u32, u32, String) {
    fn from(segment: Segment) -> Self {
        (segment.first_token, segment.n_tokens, segment.label)
    }
}

impl Header {
    /// Most experts of all layers together: what a header may make a reader allocate for.
    pub const N_TOTAL_MAX: u32 = 1 << 20;
    /// Most bytes of one expert.
    pub const EXPERT_BYTES_MAX: u64 = 1 << 40;

    /// The shape of the model, with expert sizes of 1 where they are not known.
    pub fn shape(&self) -> Shape {
        let n_experts = vec![self.n_experts; self.n_layers as usize];
        match self.expert_bytes.is_empty() {
            true => Shape::new(&n_experts),
            false => Shape::with_bytes(&n_experts, &self.expert_bytes),
        }
    }

    /// Whether it keeps what the fields promise; what is wrong if not.
    pub fn check(&self) -> Result<(), String> {
        if let Some(format) = &self.format {
            return Err(format!(
                "the format is \"{format}\"; only lines of `token layer id,id,...` are read"
            ));
        }
        let n_total = u64::from(self.n_layers) * u64::from(self.n_experts);
        if n_total == 0 || n_total > Self::N_TOTAL_MAX.into() {
            return Err(format!(
                "n_layers {} times n_experts {} is outside 1..={}",
                self.n_layers,
                self.n_experts,
                Self::N_TOTAL_MAX
            ));
        }
        if self.top_k == 0 || self.top_k > self.n_experts {
            return Err(format!(
                "top_k {} is outside 1..={}, the number of experts",
                self.top_k, self.n_experts
            ));
        }
        self.check_segments()?;
        self.check_sizes()?;
        self.check_pools()
    }

    fn check_segments(&self) -> Result<(), String> {
        let mut end = 0;
        for segment in &self.segments {
            let Segment {
                first_token,
                n_tokens,
                ..
            } = *segment;
            if first_token < end {
                return Err(format!(
                    "the segment that begins at token {first_token} lies before token {end}, where the last one ends"
                ));
            }
            end = first_token.checked_add(n_tokens).ok_or_else(|| {
                format!("the segment of {n_tokens} tokens from token {first_token} is too long")
            })?;
        }
        Ok(())
    }

    fn check_sizes(&self) -> Result<(), String> {
        if self.expert_bytes.is_empty() {
            return Ok(());
        }
        if self.expert_bytes.len() != self.n_layers as usize {
            return Err(format!(
                "expert_bytes has {} sizes for {} layers",
                self.expert_bytes.len(),
                self.n_layers
            ));
        }
        let allowed = 1..=Self::EXPERT_BYTES_MAX;
        match self.expert_bytes.iter().find(|n| !allowed.contains(n)) {
            Some(n) => Err(format!(
                "expert_bytes has a size of {n}, outside {allowed:?}"
            )),
            None => Ok(()),
        }
    }

    fn check_pools(&self) -> Result<(), String> {
        if self.pools.is_empty() {
            return Ok(());
        }
        let mut in_pool = vec![false; self.n_layers as usize];
        for pool in &self.pools {
            if pool.layers.is_empty() || !pool.layers.is_sorted() {
                return Err(format!(
                    "a pool has the layers {:?}, which should ascend",
                    pool.layers
                ));
            }
            for &layer in &pool.layers {
                match in_pool.get_mut(layer as usize) {
                    Some(taken) if !*taken => *taken = true,
                    _ => return Err(format!("pools: layer {layer} is in two, or does not exist")),
                }
            }
            let n_experts = pool.layers.len() as u64 * u64::from(self.n_experts);
            if u64::from(pool.n_slots) > n_experts {
                return Err(format!(
                    "a pool has {} slots for {n_experts} experts",
                    pool.n_slots
                ));
            }
        }
        match in_pool.iter().position(|&taken| !taken) {
            Some(layer) => Err(format!("pools: layer {layer} is in none")),
            None => Ok(()),
        }
    }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
