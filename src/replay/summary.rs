//! What the cells of a policy add up to.

use super::request::{BELADY, BELADY_BYTES, Cell, LRU};
use crate::statistics::{mean, median};
use serde::Serialize;
use std::collections::BTreeMap;

/// A gap between LRU and Belady below this says nothing about a policy that is in between.
const GAP_MIN: f64 = 0.005;
/// A hit rate this much below another one is worse; less is chance.
const WORSE_BY: f64 = 0.003;

/// One policy over all traces and budgets.
#[derive(Debug, Clone, Serialize)]
pub struct Summary {
    /// Its name.
    pub policy: String,
    /// Mean of [`Cell::gap_closed`]: for each budget over the traces of a model, then over models; then
    /// over the budgets. So models count alike, however many traces there are of each.
    pub gap_closed: Option<f64>,
    /// Its cells.
    pub cells: usize,
    /// How many of them are more than 0.3 points below LRU.
    pub cells_below_lru: usize,
    /// How many of them are more than 0.3 points below the best of the other policies there.
    pub cells_below_best: usize,
    /// The median over traces of the mean over budgets.
    pub ns_per_expert: f64,
}

/// Fills in [`Cell::gap_closed`] of all cells of one trace and budget.
pub(super) fn close_gaps(cells: &mut [Cell]) {
    let hit_rate = |name: &str| {
        let cell = cells.iter().find(|cell| cell.policy == name);
        cell.expect("every grid has it").hit_rate
    };
    let (lru, gap) = (hit_rate(LRU), hit_rate(BELADY) - hit_rate(LRU));
    for cell in cells.iter_mut().filter(|_| gap >= GAP_MIN) {
        if cell.policy != BELADY_BYTES {
            cell.gap_closed = Some((cell.hit_rate - lru) / gap);
        }
    }
}

/// By policy, in the order of the cells.
pub(super) fn summarize(cells: &[Cell]) -> Vec<Summary> {
    let mut names: Vec<&str> = Vec::new();
    for cell in cells {
        if !names.contains(&&*cell.policy) && cell.policy != BELADY_BYTES {
            names.push(&cell.policy);
        }
    }
    names.into_iter().map(|name| summary(name, cells)).collect()
}

fn summary(policy: &str, cells: &[Cell]) -> Summary {
    let mut summary = Summary {
        policy: policy.to_string(),
        gap_closed: None,
        cells: 0,
        cells_below_lru: 0,
        cells_below_best: 0,
        ns_per_expert: 0.0,
    };
    // By budget and model.
    let mut gaps: BTreeMap<&str, BTreeMap<&str, Vec<f64>>> = BTreeMap::new();
    let mut ns: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for cells in cells.chunk_by(same_pools) {
        let Some(cell) = cells.iter().find(|cell| cell.policy == policy) else {
            continue;
        };
        let is_rival = |other: &&Cell| ![policy, BELADY, BELADY_BYTES].contains(&&*other.policy);
        let is_below = |other: &Cell| cell.hit_rate < other.hit_rate - WORSE_BY;
        let mut rivals = cells.iter().filter(is_rival);
        summary.cells += 1;
        summary.cells_below_lru +=
            usize::from(cells.iter().any(|c| c.policy == LRU && is_below(c)));
        summary.cells_below_best += usize::from(rivals.any(is_below));
        ns.entry(&cell.trace).or_default().push(cell.ns_per_expert);
        let model = cell.trace.split('-').next().unwrap_or_default();
        let of_model = gaps.entry(&cell.budget).or_default().entry(model);
        of_model.or_default().extend(cell.gap_closed);
    }
    let mean_of = |values: &Vec<f64>| mean(values.iter().copied());
    let mean_of_models =
        |of_model: &BTreeMap<&str, Vec<f64>>| mean(of_model.values().filter_map(mean_of));
    summary.gap_closed = mean(gaps.values().filter_map(mean_of_models));
    summary.ns_per_expert = median(ns.values().filter_map(mean_of)).unwrap_or(0.0);
    summary
}

/// Whether two cells, side by side, differ in their policy only.
pub(super) fn same_pools(a: &Cell, b: &Cell) -> bool {
    (&a.trace, &a.budget) == (&b.trace, &b.budget)
}
