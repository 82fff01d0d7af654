//! The tokens of a trace that belong to prompts: how to replay them, and what hit rates leave out.

use super::{Segment, Trace};
use crate::expert::Event;
use std::collections::BTreeMap;

/// How the tokens of segments labelled as prompts are replayed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prefill {
    /// As they were recorded.
    Decode,
    /// In events of up to this many tokens for each layer, as an engine reads them. A batched trace
    /// has such events already, and stays as it is.
    Batch(u32),
    /// Not at all.
    Skip,
}

/// Hit rates begin after this many tokens, or an eighth of the trace if that is less: until then a
/// pool fills.
const WARM_AFTER_TOKENS: u32 = 64;

impl Trace {
    /// The same trace with its prompts replayed in another way. Tokens keep their numbers.
    pub fn with_prefill(self, prefill: Prefill) -> Self {
        match prefill {
            Prefill::Decode => self,
            Prefill::Batch(_) if self.header.batched => self,
            Prefill::Batch(n_tokens_max) => self.in_batches(n_tokens_max),
            Prefill::Skip => self.without_prompts(),
        }
    }

    fn without_prompts(self) -> Self {
        let mut trace = Self::empty(self.header.clone());
        trace.n_tokens = self.n_tokens;
        for (token, recorded) in self.entries() {
            if !self.is_prompt(token, &recorded.event) {
                trace.add(token, &recorded);
            }
        }
        trace
    }

    fn in_batches(self, n_tokens_max: u32) -> Self {
        let mut trace = Self::empty(self.header.clone());
        trace.n_tokens = self.n_tokens;
        let mut batch = PrefillBatch::default();
        for (token, recorded) in self.entries() {
            // Events of one batch have the same first token.
            let start = self.prompt_at(token).map(|prompt| {
                let n_before = (token - prompt.first_token) % n_tokens_max;
                token - n_before
            });
            if start != batch.start {
                batch.close(&mut trace);
                batch.start = start;
            }
            match start {
                Some(_) => batch.add(&recorded.event),
                None => trace.add(token, &recorded),
            }
        }
        batch.close(&mut trace);
        trace
    }

    /// For each event, whether hit rates count it: those from token 64 or an eighth of the trace on
    /// that belong to no prompt. If all belong to prompts, prompts count; if nothing is left,
    /// everything counts.
    pub fn warm(&self) -> Vec<bool> {
        let from = WARM_AFTER_TOKENS.min(self.n_tokens / 8);
        let only_prompts = self.events().all(|(t, e)| self.is_prompt(t, &e));
        let mut warm: Vec<bool> = self
            .events()
            .map(|(t, e)| t >= from && (only_prompts || !self.is_prompt(t, &e)))
            .collect();
        if !warm.contains(&true) {
            warm.fill(true);
        }
        warm
    }

    fn is_prompt(&self, first_token: u32, event: &Event) -> bool {
        event.is_prefill() || self.prompt_at(first_token).is_some()
    }

    /// The segment of a prompt that `token` lies in.
    fn prompt_at(&self, token: u32) -> Option<&Segment> {
        let segments = &self.header.segments;
        let n_begun = segments.partition_point(|s| s.first_token <= token);
        let segment = segments[..n_begun].last()?;
        let is_inside = token - segment.first_token < segment.n_tokens;
        (is_inside && segment.label == Segment::PREFILL).then_some(segment)
    }
}

/// Tokens of a prompt that become one event for each layer.
#[derive(Default)]
struct PrefillBatch {
    /// The first token, of which there may be no line.
    start: Option<u32>,
    /// By layer: tokens, and what each of them picked, with ranks.
    layers: BTreeMap<u32, (u32, Vec<(u32, u32)>)>,
}

impl PrefillBatch {
    fn add(&mut self, event: &Event) {
        let (n_tokens, picks) = self.layers.entry(event.layer).or_default();
        *n_tokens += event.n_tokens;
        // Where ranks are not known the batch has none either.
        let ranks = event.ranks.iter().copied().chain(std::iter::repeat(0));
        picks.extend(event.experts.iter().copied().zip(ranks));
    }

    fn close(&mut self, trace: &mut Trace) {
        let Some(start) = self.start.take() else {
            return;
        };
        for (layer, (n_tokens, mut picks)) in std::mem::take(&mut self.layers) {
            trace.push(layer, start, n_tokens, false, &mut picks, &[]);
        }
    }
}
