//! All there is to see as plain text, at once.

use super::answers::{Heat, Plan, Stats};
use super::heat::{Cell, Grid, Tier};
use super::history::Counted;
use super::words::{self, Gauge};
use std::fmt::Write;

const GAUGE_WIDTH: usize = 20;
/// Cells of a grid, which has layers before them.
const COLUMNS_MAX: usize = 72;
const ROWS_MAX: usize = 32;

/// Every model. The counters are those since the server started, or since they were reset.
pub fn text(url: &str, stats: &[Stats], heat: &[Heat], plans: &[Plan]) -> String {
    if stats.is_empty() {
        return format!("{url}\nThe server has no model with experts.\n");
    }
    let models = stats.iter().enumerate().map(|(at, stats)| {
        let layers = heat.get(at);
        model(url, stats, layers, plans.get(at))
    });
    models.collect::<Vec<_>>().join("\n")
}

fn model(url: &str, stats: &Stats, heat: Option<&Heat>, plan: Option<&Plan>) -> String {
    let counted = Counted::of(stats);
    let when = format!("in the last {}", words::age(stats.live.since_s));
    let mut lines = vec![words::server(url, Some(stats)), words::settings(stats)];
    lines.push(String::new());
    lines.extend(words::sentences(&counted, &when, stats, plan));
    lines.push(speed(&counted));
    lines.push(String::new());
    let gauges = words::gauges(stats, None);
    let name_width = gauges.iter().map(|g| g.name.chars().count()).max();
    lines.extend(gauges.iter().map(|g| gauge(g, name_width.unwrap_or(0))));
    lines.push(words::profile(stats));
    let grid = heat.map(|heat| Grid::new(&heat.layers, ROWS_MAX, COLUMNS_MAX));
    if let Some(grid) = grid.filter(|grid| !grid.rows.is_empty()) {
        lines.push(String::new());
        lines.push(format!("{} {}", grid.heading(), letters()));
        lines.extend(grid.rows.iter().map(|(block, cells)| {
            let letter = |cell: &Option<Cell>| cell.map_or(' ', Cell::letter);
            let letters: String = cells.iter().map(letter).collect();
            format!("{block:>3} {letters}").trim_end().to_string()
        }));
    }
    lines.join("\n") + "\n"
}

/// What letters mean.
pub fn letters() -> String {
    let names = Tier::ALL.map(|tier| format!("{} {}", tier.letter(), tier.name()));
    format!("{}, capitals hot", names.join(", "))
}

fn speed(counted: &Counted) -> String {
    let mut text = format!("{:.0} tokens were generated", counted.tokens);
    if counted.generating_ms > 0.0 {
        let per_s = 1e3 * counted.tokens / counted.generating_ms;
        let _ = write!(text, ", {per_s:.1} in a second of computing them");
    }
    text + "."
}

fn gauge(gauge: &Gauge, name_width: usize) -> String {
    let n_full = (gauge.share * GAUGE_WIDTH as f64).round() as usize;
    let bar = "#".repeat(n_full) + &".".repeat(GAUGE_WIDTH - n_full);
    format!("{:name_width$} [{bar}] {}", gauge.name, gauge.text)
}

#[cfg(test)]
mod tests {
    use super::super::sample;
    use super::*;

    #[test]
    fn a_snapshot_has_everything() {
        let text = text(
            "http://box:8080",
            &[sample::stats()],
            &[sample::heat()],
            &[sample::plan()],
        );
        let golden = include_str!("snapshot.golden.txt");
        assert_eq!(text, golden, "\n{text}");
    }

    #[test]
    fn without_a_model_a_plan_or_a_heat_it_says_so() {
        let none = text("http://box", &[], &[], &[]);
        assert_eq!(none, "http://box\nThe server has no model with experts.\n");
        let bare = text("http://box", &[sample::stats(), sample::stats()], &[], &[]);
        assert_eq!(bare.matches("not known yet").count(), 2);
        assert!(!bare.contains("Layers x experts"));
    }
}
