//! What a change of topic costs: hit rates just before and just after it, by policy and budget.
//!
//! ```text
//! cargo run --release --example switches -- TRACE.trace.gz PERIOD
//! ```
//!
//! PERIOD is the number of tokens between two changes.

use anyhow::{Context, bail};
use comfy_table::{CellAlignment, Table, presets};
use hotset::policy::REGISTRY;
use hotset::replay::{Budget, Replay, Scope, belady_pools};
use hotset::trace::{PoolSpec, Trace};
use std::path::Path;

/// Shares of the experts that fit, in percent.
const PERCENT: [u32; 4] = [10, 20, 30, 50];
/// Tokens that are looked at on each side of a change.
const N_NEAR: u32 = 32;

/// Hits and picks.
#[derive(Default)]
struct Rate(u64, u64);

impl Rate {
    fn add(&mut self, hits: u32, picks: usize) {
        self.0 += u64::from(hits);
        self.1 += picks as u64;
    }

    fn percent(&self) -> f64 {
        100.0 * self.0 as f64 / self.1.max(1) as f64
    }
}

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [path, period] = &args[..] else {
        bail!("usage: switches TRACE.trace.gz PERIOD");
    };
    let period: u32 = period.parse().context("PERIOD is a number of tokens")?;
    let trace = Trace::open(Path::new(path), u32::MAX)?;
    if period < 2 * N_NEAR || period >= trace.n_tokens() {
        let n_tokens = trace.n_tokens();
        bail!(
            "PERIOD {period} is outside {}..{n_tokens}, the tokens of the trace",
            2 * N_NEAR
        );
    }

    let names = REGISTRY.iter().map(|spec| spec.name);
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header(
        [String::new()]
            .into_iter()
            .chain(PERCENT.map(|n| format!("{n} %"))),
    );
    for policy in names.map(Some).chain([None]) {
        let mut row = vec![policy.unwrap_or("belady").to_string()];
        for percent in PERCENT {
            row.push(around_changes(&trace, period, policy, percent)?);
        }
        table.add_row(row);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    println!(
        "hit rates in the {N_NEAR} tokens before and after each change, every {period} tokens"
    );
    println!("{}", table.trim_fmt());
    Ok(())
}

/// `before > after` under a policy, or under the offline optimum.
fn around_changes(
    trace: &Trace,
    period: u32,
    policy: Option<&str>,
    percent: u32,
) -> anyhow::Result<String> {
    let shape = trace.header().shape();
    let share = Budget::Share(f64::from(percent) / 100.0);
    let pools = share.pools(trace.header(), &shape, Scope::Global);
    let pools: Vec<PoolSpec> = pools.map_err(anyhow::Error::msg)?;
    let events = || trace.events().map(|(_, event)| event);
    let hits = match policy {
        Some(name) => Replay::new(&shape, &pools, name, None)?.run(events())?,
        None => belady_pools(events, &shape, &pools)?.1,
    };
    let (mut before, mut after) = (Rate::default(), Rate::default());
    for ((token, event), hits) in trace.events().zip(hits) {
        // The first topic has nothing before it, and after the last there is no change.
        let since = token % period;
        let is_last = token / period == (trace.n_tokens() - 1) / period;
        if since < N_NEAR && token >= period {
            after.add(hits, event.experts.len());
        } else if since >= period - N_NEAR && !is_last {
            before.add(hits, event.experts.len());
        }
    }
    Ok(format!("{:.1} > {:.1}", before.percent(), after.percent()))
}
