//! Predicted reuse: the default, for any model, budget and workload.

use super::contract::Spec;
use super::reuse::{Memory, Recipe, Reuse, Votes};

pub(super) const SPEC: Spec = Spec {
    name: "adaptive",
    about: "evict the expert of the lowest predicted reuse",
    when: "always, unless you know better: it learns what predicts reuse while it runs",
    source: "ours: echo with fewer analogs, layers judged again, and the ranks of the picks",
    param: None,
    build: |shape, _| Box::new(Reuse::new(shape, &RECIPE)),
};

const RECIPE: Recipe = Recipe {
    half_lives: [2, 8, 40],
    memory: Memory {
        n_tokens: 2048,
        carried: 32,
    },
    n_analogs: 10,
    votes: Votes::Direct,
};
