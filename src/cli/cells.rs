//! The cells of a replay as tables and as CSV.

use super::number_args::percent;
use comfy_table::{CellAlignment, Table, presets};
use hotset::replay::grid::{BELADY_BYTES, Cell, Report, Summary};

/// Hit rates of each trace by policy and budget, then what they add up to.
pub fn table(report: &Report) -> String {
    let mut text = String::new();
    for cells in report.cells.chunk_by(|a, b| a.trace == b.trace) {
        text += &format!(
            "{}: hit rates in %\n{}\n\n",
            cells[0].trace,
            hit_rates(cells)
        );
    }
    text += &format!("all cells\n{}\n", summary(report));
    if report.cells.iter().any(|cell| cell.policy == BELADY_BYTES) {
        text += &format!("{BELADY_BYTES} is of bytes, and bounds any use of them\n");
    }
    text
}

/// The cells of one trace: a row for each policy, a column for each budget.
fn hit_rates(cells: &[Cell]) -> String {
    let mut header = vec!["policy".to_string()];
    let mut rows: Vec<Vec<String>> = Vec::new();
    for budget in cells.chunk_by(|a, b| a.budget == b.budget) {
        header.push(budget[0].budget.clone());
        for (number, cell) in budget.iter().enumerate() {
            if number == rows.len() {
                rows.push(vec![cell.policy.clone()]);
            }
            rows[number].push(format!("{:.2}", 100.0 * cell.hit_rate));
        }
    }
    aligned(header, rows)
}

fn summary(report: &Report) -> String {
    let header = [
        "policy",
        "gap closed",
        "cells",
        "below lru",
        "below best",
        "ns/expert",
    ];
    let row = |summary: &Summary| {
        vec![
            summary.policy.clone(),
            percent(summary.gap_closed),
            summary.cells.to_string(),
            summary.cells_below_lru.to_string(),
            summary.cells_below_best.to_string(),
            format!("{:.0}", summary.ns_per_expert),
        ]
    };
    aligned(
        header.map(str::to_string).to_vec(),
        report.summary.iter().map(row).collect(),
    )
}

/// A table with numbers in all columns but the first.
fn aligned(header: Vec<String>, rows: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    table
        .load_preset(presets::NOTHING)
        .set_header(header)
        .add_rows(rows);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.trim_fmt()
}

/// One line for each cell, with the names of the JSON; but what misses read is named by its unit.
pub fn csv(report: &Report) -> anyhow::Result<String> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record([
        "trace",
        "policy",
        "budget",
        "scope",
        "slots",
        "slot_share",
        "hit_rate",
        "hit_rate_cold",
        "hits",
        "misses",
        "evictions",
        report.unit,
        "ns_per_expert",
        "gap_closed",
        "worst_layer",
        "worst_layer_hit_rate",
    ])?;
    for cell in &report.cells {
        let worst = cell.worst_layer.as_ref();
        writer.serialize((
            (&cell.trace, &cell.policy, &cell.budget, cell.scope),
            (
                cell.slots,
                cell.slot_share,
                cell.hit_rate,
                cell.hit_rate_cold,
            ),
            (cell.hits, cell.misses, cell.evictions, cell.bytes),
            (cell.ns_per_expert, cell.gap_closed),
            (
                worst.map(|worst| worst.layer),
                worst.map(|worst| worst.hit_rate),
            ),
        ))?;
    }
    Ok(String::from_utf8(writer.into_inner()?)?)
}
