//! The rows as a table.

use comfy_table::{CellAlignment, Table};
use hotset::measuring::{Binds, Spread, Summary, Traced};
use hotset::numbers::bytes;

const HEADER: [&str; 13] = [
    "WORKLOAD",
    "LIMIT",
    "VARIANT",
    "PROMPT T/S",
    "X STOCK",
    "TOKENS/S",
    "X STOCK",
    "HITS",
    "READ/TOKEN",
    "STALLED",
    "OF BOUND",
    "PEAK OF CAP",
    "FAULTS/TOKEN",
];

const TIMES_HEADER: [&str; 11] = [
    "WORKLOAD",
    "LIMIT",
    "VARIANT",
    "MS/TOKEN",
    "AT LEAST",
    "COMPUTING",
    "WAITED, ASKED EARLY",
    "ASKED LATE",
    "BOOKKEEPING",
    "DISK IDLE",
    "TWICE THE DISK SAVES",
];

/// Where a token's time goes, of rows that stream; empty if there are none.
pub fn times(rows: &[Summary], preset: &str) -> String {
    let rows: Vec<_> = rows.iter().filter_map(time_cells).collect();
    if rows.is_empty() {
        return String::new();
    }
    let mut table = Table::new();
    table
        .load_preset(preset)
        .set_header(TIMES_HEADER)
        .add_rows(rows);
    for column in table.column_iter_mut().skip(3) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.trim_fmt()
}

fn time_cells(row: &Summary) -> Option<[String; 11]> {
    let decode = row.decode.as_ref()?;
    let token = &decode.token;
    let ms = |ms: f64| format!("{ms:.1}");
    Some([
        row.workload.clone(),
        limit(row),
        row.variant.clone(),
        ms(token.busy_ms),
        decode.shared_bound_ms.map_or("-".to_string(), ms),
        ms(token.busy_ms - token.stalled_ms - token.bookkeeping_ms),
        ms(token.early_ms),
        ms(token.stalled_ms - token.early_ms),
        format!("{:.2}", token.bookkeeping_ms),
        ms(token.disk_idle_ms),
        ms(token.faster_disk_ms),
    ])
}

fn limit(row: &Summary) -> String {
    match row.limit.as_str() {
        "" => "none".to_string(),
        limit => limit.to_string(),
    }
}

/// The rows with this look.
pub fn table(rows: &[Summary], preset: &str) -> String {
    let mut table = Table::new();
    table
        .load_preset(preset)
        .set_header(HEADER)
        .add_rows(rows.iter().map(cells));
    for column in table.column_iter_mut().skip(3) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.trim_fmt()
}

fn cells(row: &Summary) -> [String; 13] {
    let ratio = |ratio: Option<f64>| ratio.map_or("-".to_string(), |x| format!("{x:.2}"));
    let traced =
        |text: &dyn Fn(&Traced) -> String| row.decode.as_ref().map_or("-".to_string(), text);
    let peak = match row.cap_bytes {
        Some(cap) => format!("{} of {}", bytes(row.peak_bytes), bytes(cap)),
        None => bytes(row.peak_bytes),
    };
    [
        row.workload.clone(),
        limit(row),
        row.variant.clone(),
        speed(&row.prefill_tokens_per_s),
        ratio(row.prefill_ratio),
        speed(&row.decode_tokens_per_s),
        ratio(row.decode_ratio),
        traced(&|t| format!("{:.1} %", 100.0 * t.hit_rate)),
        traced(&|t| bytes(t.bytes_per_token as u64)),
        traced(&|t| format!("{:.0} %", 100.0 * t.stall_share)),
        traced(&|t| {
            let by = match t.binds {
                Binds::Compute => "compute",
                Binds::Disk => "disk",
            };
            format!("{:.0} % ({by})", 100.0 * t.fraction.median)
        }),
        peak,
        format!("{:.1}", row.major_faults_per_token),
    ]
}

/// `9.4 (8.9-9.6)`.
pub fn speed(speed: &Spread) -> String {
    let digits = if speed.median < 100.0 { 1 } else { 0 };
    let number = |n: f64| format!("{n:.digits$}");
    match speed.min < speed.max {
        true => format!(
            "{} ({}-{})",
            number(speed.median),
            number(speed.min),
            number(speed.max)
        ),
        false => number(speed.median),
    }
}
