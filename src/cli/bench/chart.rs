//! The rows as bars: tokens per second by limit and variant.

use anyhow::{Result, anyhow};
use hotset::measuring::{COMPUTE, Spread, Summary};
use plotters::coord::Shift;
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;

const PANEL: (u32, u32) = (760, 380);
/// Of variants, in turn.
const COLORS: [RGBColor; 8] = [
    RGBColor(140, 140, 140),
    RGBColor(0, 114, 178),
    RGBColor(86, 180, 233),
    RGBColor(230, 159, 0),
    RGBColor(240, 210, 120),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(110, 70, 160),
];
/// Of the width of a limit, what its bars take.
const GROUP_WIDTH: f64 = 0.8;

/// A panel for generating and one for prompts, of the rows of `workload`.
pub fn svg(rows: &[Summary], workload: &str) -> Result<String> {
    let rows: Vec<&Summary> = rows.iter().filter(|row| row.workload == workload).collect();
    let mut text = String::new();
    draw(&mut text, &rows, workload).map_err(|e| anyhow!("svg: {e}"))?;
    Ok(text)
}

type Drawn = std::result::Result<(), Box<dyn std::error::Error>>;

fn draw(text: &mut String, rows: &[&Summary], workload: &str) -> Drawn {
    let area = SVGBackend::with_string(text, (PANEL.0, 2 * PANEL.1)).into_drawing_area();
    area.fill(&WHITE)?;
    let areas = area.split_evenly((2, 1));
    let decode = |row: &Summary| row.decode_tokens_per_s;
    let prefill = |row: &Summary| row.prefill_tokens_per_s;
    panel(
        &areas[0],
        &format!("generating, workload {workload}"),
        rows,
        &decode,
    )?;
    panel(&areas[1], "reading the prompt", rows, &prefill)?;
    area.present()?;
    Ok(())
}

/// The different ones among `names`, in their order.
fn distinct<'a>(names: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut found: Vec<&str> = Vec::new();
    for name in names {
        if !found.contains(&name) {
            found.push(name);
        }
    }
    found
}

type Chart<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;

fn panel(
    area: &DrawingArea<SVGBackend, Shift>,
    title: &str,
    rows: &[&Summary],
    speed: &dyn Fn(&Summary) -> Spread,
) -> Drawn {
    let is_compute = |row: &&&Summary| row.variant == COMPUTE;
    let compute = rows.iter().find(is_compute).map(|row| speed(row).median);
    let bars: Vec<&Summary> = rows
        .iter()
        .copied()
        .filter(|row| !is_compute(&row))
        .collect();
    let limits = distinct(bars.iter().map(|row| row.limit.as_str()));
    let x_max = limits.len() as f64;
    let highest = bars.iter().map(|row| speed(row).max).chain(compute);
    let mut chart = ChartBuilder::on(area)
        .caption(title, ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(42)
        .y_label_area_size(56)
        .build_cartesian_2d(0.0..x_max, 0.0..1.05 * highest.fold(1e-3, f64::max))?;
    // The label of a limit stands below the middle of its bars.
    let label = |x: &f64| {
        let is_middle = (x.fract() - 0.5).abs() < 1e-6;
        let limit = limits.get(*x as usize).filter(|_| is_middle);
        limit.map_or(String::new(), |limit| limit.to_string())
    };
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(TRANSPARENT)
        .x_labels(2 * limits.len() + 1)
        .x_label_formatter(&label)
        .x_desc("memory limit")
        .y_desc("tokens per second")
        .draw()?;
    draw_bars(&mut chart, &limits, &bars, speed)?;
    if let Some(y) = compute {
        let line = PathElement::new(vec![(0.0, y), (x_max, y)], BLACK.mix(0.6));
        chart
            .draw_series([line])?
            .label("every expert in memory")
            .legend(|(x, y)| PathElement::new(vec![(x, y), (x + 14, y)], BLACK.mix(0.6)));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .background_style(WHITE.mix(0.85))
        .border_style(BLACK.mix(0.3))
        .draw()?;
    Ok(())
}

/// A bar for each row, with the variants of a limit side by side, and a line for its range.
fn draw_bars(
    chart: &mut Chart,
    limits: &[&str],
    rows: &[&Summary],
    speed: &dyn Fn(&Summary) -> Spread,
) -> Drawn {
    let variants = distinct(rows.iter().map(|row| row.variant.as_str()));
    let width = GROUP_WIDTH / variants.len() as f64;
    for (number, variant) in variants.iter().enumerate() {
        let color = COLORS[number % COLORS.len()];
        let mut places = Vec::new();
        for row in rows.iter().filter(|row| row.variant == *variant) {
            let group = limits.iter().position(|limit| *limit == row.limit);
            let left = group.unwrap_or_default() as f64 + (1.0 - GROUP_WIDTH) / 2.0;
            places.push((left + number as f64 * width, speed(row)));
        }
        let bar = |&(x, speed): &(f64, Spread)| {
            Rectangle::new([(x, 0.0), (x + 0.92 * width, speed.median)], color.filled())
        };
        let range = |&(x, speed): &(f64, Spread)| {
            let x = x + 0.46 * width;
            PathElement::new(vec![(x, speed.min), (x, speed.max)], BLACK)
        };
        chart
            .draw_series(places.iter().map(bar))?
            .label(*variant)
            .legend(move |(x, y)| Rectangle::new([(x, y - 5), (x + 14, y + 5)], color.filled()));
        chart.draw_series(places.iter().map(range))?;
    }
    Ok(())
}
