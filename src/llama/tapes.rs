//! The recordings of the process: each model has one, which goes on when the model comes back after it was freed, as
//! a server does that has slept.

use super::loading::Loading;
use super::target::{Reel, Target};
use super::title::Title;
use crate::output::numbered;
use crate::trace::Recording;
use std::path::Path;
use std::sync::Arc;

/// What two models have in common if they are one.
#[derive(PartialEq)]
struct Subject {
    title: Title,
    top_k: u32,
    is_streamed: bool,
    /// Name, experts and bytes of an expert, of each tensor.
    tensors: Vec<(String, u32, usize)>,
}

struct Tape {
    subject: Subject,
    reel: Reel,
    /// The address of the model that is recorded; `None` while there is none.
    holder: Option<usize>,
    /// Nothing more is added.
    is_over: bool,
}

/// All recordings.
#[derive(Default)]
pub struct Tapes(Vec<Tape>);

impl Tapes {
    /// Where the routing of a model that was loaded is recorded: a file of its own beside `path`, or what was
    /// recorded of the same model before.
    pub fn target(&mut self, path: &Path, loading: &Loading, title: &Title, top_k: u32) -> Target {
        let is_streamed = !loading.tensors.is_empty();
        let tensors = match is_streamed {
            true => &loading.tensors,
            false => &loading.residents,
        };
        let subject = Subject {
            title: title.clone(),
            top_k,
            is_streamed,
            tensors: tensors
                .iter()
                .map(|t| (t.name.clone(), t.n_experts, t.n_bytes))
                .collect(),
        };
        let is_it = |tape: &Tape| tape.holder.is_none() && !tape.is_over && tape.subject == subject;
        let at = self.0.iter().position(is_it).unwrap_or_else(|| {
            self.0.push(Tape {
                subject,
                reel: Reel::default(),
                holder: None,
                is_over: false,
            });
            self.0.len() - 1
        });
        let tape = &mut self.0[at];
        tape.holder = Some(loading.key);
        Target {
            path: numbered(path, at as u32 + 1),
            model: title.name.clone(),
            top_k,
            n_layers: loading.blocks.len(),
            reel: tape.reel.clone(),
        }
    }

    /// The model at address `key` has gone. Returns what was recorded of it, which is to be written, and goes on if it
    /// comes back.
    pub fn park(&mut self, key: usize) -> Option<Arc<Recording>> {
        let tape = self.0.iter_mut().find(|t| t.holder == Some(key))?;
        tape.holder = None;
        tape.reel.get().cloned()
    }

    /// Ends all of them. Returns those that are to be finished.
    pub fn end(&mut self) -> Vec<Arc<Recording>> {
        for tape in &mut self.0 {
            tape.is_over = true;
        }
        let reels = self.0.iter().filter_map(|tape| tape.reel.get());
        reels.cloned().collect()
    }
}
