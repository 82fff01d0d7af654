//! What is known of a workload before it runs, and recognising which of several known ones it is.

use super::choose::{Chooser, Verdict};
use crate::expert::Event;
use crate::notice::Notice;
use crate::tracker::Phase;
use serde::Serialize;

/// A workload that is known: how often a token picks each expert, by layer and expert, 0 to 1. Layers are
/// counted over those of a model whose experts are in host memory or streamed.
#[derive(Debug, Clone)]
pub struct Known {
    /// Its name.
    pub name: String,
    /// See above.
    pub frequency: Vec<Vec<f32>>,
    /// How many tokens of the live workload this is worth.
    pub n_tokens: f32,
}

/// Recognises the workload.
pub struct Recognizer {
    chooser: Chooser,
    known: Vec<Known>,
    /// By layer of `known`: its number for the chooser.
    numbers: Vec<usize>,
    /// The latest.
    verdict: Option<Verdict>,
    n_changes: u64,
}

/// What was recognised.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Recognized {
    /// The workload.
    pub name: String,
    /// How sure that is, 0 to 1.
    pub sureness: f64,
    /// How often another one was recognised before.
    pub changes: u64,
}

impl Recognizer {
    /// Recognises which of `known` the workload is, with a chooser that knows layers by the `numbers`.
    pub fn new(chooser: Chooser, known: Vec<Known>, numbers: Vec<usize>) -> Self {
        Self {
            chooser,
            known,
            numbers,
            verdict: None,
            n_changes: 0,
        }
    }

    /// The same, which takes the place of another one: what that has counted goes on.
    pub fn after(self, before: Option<&Self>) -> Self {
        Self {
            n_changes: self.n_changes + before.map_or(0, |before| before.n_changes),
            ..self
        }
    }

    /// Hears of an event of `layer`. Returns what to follow where it has just made up its mind, and what there is
    /// to tell of it.
    pub fn observe(&mut self, layer: usize, event: &Event) -> Option<(&Known, Notice)> {
        // It says nothing, and its layer may be none of the profiles'.
        if event.experts.is_empty() {
            return None;
        }
        let (n, phase) = (event.n_tokens, Phase::of(event));
        let number = self.numbers[layer];
        let verdict = self
            .chooser
            .observe(number, phase, n, event.experts, event.rows)?;
        self.verdict = Some(verdict);
        self.n_changes += u64::from(verdict.is_change);
        let known = &self.known[verdict.profile];
        let notice = Notice::Workload {
            profile: known.name.clone(),
            is_change: verdict.is_change,
            confidence: verdict.confidence,
            n_tokens: verdict.n_tokens,
        };
        Some((known, notice))
    }

    /// What was recognised last, in words, if anything was.
    pub fn recognized(&self) -> Option<Recognized> {
        self.verdict.map(|verdict| Recognized {
            name: self.known[verdict.profile].name.clone(),
            sureness: verdict.confidence,
            changes: self.n_changes,
        })
    }

    /// What was recognised last, if anything was.
    pub fn verdict(&self) -> Option<Verdict> {
        self.verdict
    }
}
