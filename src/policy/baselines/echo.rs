//! Predicted reuse as it was first researched: to compare `adaptive` with.

use crate::policy::contract::Spec;
use crate::policy::reuse::{Memory, Recipe, Reuse, Votes};

pub(in crate::policy) const SPEC: Spec = Spec {
    name: "echo",
    about: "evict the expert of the lowest predicted reuse",
    when: "to compare with: adaptive is better",
    source: "ours: k nearest neighbours over the routing history, decayed frequencies, learnt mix",
    param: None,
    build: |shape, _| Box::new(Reuse::new(shape, &RECIPE)),
};

const RECIPE: Recipe = Recipe {
    half_lives: [2, 12, 64],
    memory: Memory {
        n_tokens: 1024,
        carried: 8,
    },
    n_analogs: 16,
    votes: Votes::Table,
};
