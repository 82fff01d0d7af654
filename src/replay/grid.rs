//! Traces times budgets times policies.

use super::case::{Case, frequency};
use super::summary::{close_gaps, same_pools, summarize};
use super::{Replay, at_start, belady_bytes, belady_pools};
use crate::error::{Error, Result};
use crate::expert::Shape;
use crate::residency::{Counts, Tally};
use crate::trace::PoolSpec;
use rayon::prelude::*;
use serde::Serialize;
use std::time::Instant;

pub use super::request::{BELADY, BELADY_BYTES, Cell, LRU, Named, Request, WorstLayer, policies};
pub use super::summary::Summary;

/// What all cells say.
#[derive(Debug, Serialize)]
pub struct Report {
    /// What `bytes` counts: `bytes`, or `experts` where a trace does not know their size.
    pub unit: &'static str,
    /// By trace, budget and policy, in the order in which they were given.
    pub cells: Vec<Cell>,
    /// By policy.
    pub summary: Vec<Summary>,
}

/// Cells that are ready to run.
pub struct Grid<'a> {
    request: &'a Request,
    cases: Vec<Case<'a>>,
    /// By dense index, the share of tokens that pick an expert.
    prior: Option<Vec<f32>>,
    /// Case, budget and policy.
    jobs: Vec<(usize, usize, &'a str)>,
}

impl<'a> Grid<'a> {
    /// Checks that every trace can be replayed with every budget and with the prior.
    pub fn new(traces: &'a [Named], request: &'a Request) -> Result<Self> {
        let mut grid = Self {
            request,
            cases: Vec::with_capacity(traces.len()),
            prior: request.prior.as_ref().map(|prior| frequency(&prior.trace)),
            jobs: Vec::new(),
        };
        for (index, named) in traces.iter().enumerate() {
            let case =
                Case::new(named, request).map_err(|why| Error::file(named.path.clone(), why))?;
            let mut names: Vec<&str> = request.policies.iter().map(String::as_str).collect();
            names.push(BELADY);
            if case.sizes_differ() {
                names.push(BELADY_BYTES);
            }
            for budget in 0..request.budgets.len() {
                grid.jobs
                    .extend(names.iter().map(|&name| (index, budget, name)));
            }
            grid.cases.push(case);
        }
        Ok(grid)
    }

    /// How many cells there are.
    pub fn n_cells(&self) -> usize {
        self.jobs.len()
    }

    /// Runs all cells on all cores; calls `on_cell` after each. But for the times, the report does
    /// not depend on the number of cores.
    pub fn run(&self, on_cell: &(dyn Fn() + Sync)) -> Result<Report> {
        let sizes_are_known = |case: &Case| !case.named.trace.header().expert_bytes.is_empty();
        let in_bytes = self.cases.iter().all(sizes_are_known);
        let cell = |&(case, budget, policy): &(usize, usize, &str)| {
            let cell = self.cell(&self.cases[case], budget, policy, in_bytes);
            on_cell();
            cell
        };
        let cells: Result<Vec<Cell>> = self.jobs.par_iter().map(cell).collect();
        let mut cells = cells?;
        cells.chunk_by_mut(same_pools).for_each(close_gaps);
        Ok(Report {
            unit: if in_bytes { "bytes" } else { "experts" },
            summary: summarize(&cells),
            cells,
        })
    }

    fn cell(&self, case: &Case, budget: usize, policy: &str, in_bytes: bool) -> Result<Cell> {
        let (shape, pools) = (&case.shape, &case.pools[budget]);
        let (hits, counts, ns) = self.hits(case, budget, policy)?;
        let total = |of: fn(&Tally) -> u64| counts.map(|c| of(&c.decode) + of(&c.prefill));
        // A bound in bytes has no counts, and its hits are bytes.
        let rates = case.rates(budget, &hits, counts.is_none());
        let (text, _) = &self.request.budgets[budget];
        let slots: u32 = pools.iter().map(|pool| pool.n_slots).sum();
        Ok(Cell {
            trace: case.named.name.clone(),
            policy: policy.to_string(),
            budget: text.clone(),
            scope: self.request.scope,
            slots,
            slot_share: f64::from(slots) / shape.n_total() as f64,
            hit_rate: rates.warm,
            hit_rate_cold: rates.cold,
            hits: total(|tally| tally.hits),
            misses: total(|tally| tally.misses),
            evictions: total(|tally| tally.evictions),
            bytes: match in_bytes {
                true => rates.bytes_missed,
                false => rates.missed,
            },
            ns_per_expert: ns / case.n_picks as f64,
            gap_closed: None,
            worst_layer: counts.and(rates.worst_layer),
        })
    }

    /// Hits of each event, what they add up to, and how many nanoseconds it took.
    fn hits(
        &self,
        case: &Case,
        budget: usize,
        policy: &str,
    ) -> Result<(Vec<u64>, Option<Counts>, f64)> {
        let (shape, pools) = (&case.shape, &case.pools[budget]);
        let mut replay = match policy {
            BELADY | BELADY_BYTES => None,
            _ => Some(Replay::new(shape, pools, policy, self.prior.as_deref())?),
        };
        let start = Instant::now();
        let (hits, counts) = match &mut replay {
            Some(replay) => {
                let hits = replay.run(case.recorded())?;
                (
                    hits.into_iter().map(u64::from).collect(),
                    Some(replay.counts()),
                )
            }
            None if policy == BELADY => {
                let (counts, hits) = belady_pools(|| case.recorded(), shape, pools)?;
                (hits.into_iter().map(u64::from).collect(), Some(counts))
            }
            None => {
                let start = at_start(shape, pools);
                let n_bytes = pools.iter().map(|pool| bytes_of(shape, pool)).sum();
                let asked = &case.asked[budget];
                let events = case.events().zip(asked).filter(|(_, asked)| **asked);
                let found = belady_bytes(events.map(|(event, _)| event), shape, n_bytes, &start)?;
                let mut found = found.into_iter();
                let hits = asked.iter().map(|&asked| match asked {
                    true => found.next().expect("one for each event"),
                    false => 0,
                });
                (hits.collect(), None)
            }
        };
        Ok((hits, counts, start.elapsed().as_nanos() as f64))
    }
}

/// The most that a pool can hold.
fn bytes_of(shape: &Shape, pool: &PoolSpec) -> u64 {
    let sizes = pool.layers.iter().map(|&layer| shape.expert_bytes(layer));
    u64::from(pool.n_slots) * sizes.max().unwrap_or(0)
}
