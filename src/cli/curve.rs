//! The cells of a replay as curves: misses over what fits.

use anyhow::{Result, anyhow};
use hotset::replay::grid::{BELADY, Cell, Report};
use hotset::statistics::mean;
use plotters::coord::Shift;
use plotters::prelude::*;

/// More traces than this are drawn as their mean.
const PANELS_MAX: usize = 6;
const PANEL_WIDTH: u32 = 620;
const PANEL_HEIGHT: u32 = 460;

/// Of policies, in turn. Black is the bound's.
const COLORS: [RGBColor; 14] = [
    RGBColor(0, 114, 178),
    RGBColor(230, 159, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(213, 94, 0),
    RGBColor(86, 180, 233),
    RGBColor(110, 70, 160),
    RGBColor(140, 140, 140),
    RGBColor(150, 110, 60),
    RGBColor(120, 150, 20),
    RGBColor(180, 0, 40),
    RGBColor(0, 60, 60),
    RGBColor(255, 130, 130),
    RGBColor(60, 60, 200),
];

/// One panel.
struct Panel {
    title: String,
    /// By policy: what fits and what misses, in percent.
    curves: Vec<(String, Vec<(f64, f64)>)>,
}

/// A panel for each trace, or one of the mean of many.
pub fn svg(report: &Report) -> Result<String> {
    let traces: Vec<&[Cell]> = report.cells.chunk_by(|a, b| a.trace == b.trace).collect();
    let panels: Vec<Panel> = match traces.len() {
        n if n > PANELS_MAX => vec![panel(format!("mean of {n} traces"), &traces)],
        _ => traces
            .iter()
            .map(|cells| panel(cells[0].trace.clone(), &[cells]))
            .collect(),
    };
    let n_columns = panels.len().clamp(1, 2);
    let n_rows = panels.len().div_ceil(n_columns);
    let size = (PANEL_WIDTH * n_columns as u32, PANEL_HEIGHT * n_rows as u32);
    let mut text = String::new();
    draw(&mut text, size, (n_rows, n_columns), &panels).map_err(|e| anyhow!("svg: {e}"))?;
    Ok(text)
}

/// The mean over `traces`, whose cells are of the same budgets.
fn panel(title: String, traces: &[&[Cell]]) -> Panel {
    let mut curves: Vec<(String, Vec<(f64, f64)>)> = Vec::new();
    for cell in traces[0] {
        if !curves.iter().any(|(name, _)| *name == cell.policy) {
            curves.push((cell.policy.clone(), Vec::new()));
        }
    }
    let budgets = traces[0].chunk_by(|a, b| a.budget == b.budget);
    for budget in budgets.map(|cells| &cells[0].budget) {
        for (name, points) in &mut curves {
            let is_point = |cell: &&Cell| cell.budget == *budget && cell.policy == *name;
            let cells: Vec<&Cell> = traces
                .iter()
                .flat_map(|t| t.iter().find(is_point))
                .collect();
            let percent = |of: &dyn Fn(&Cell) -> f64| {
                100.0 * mean(cells.iter().map(|cell| of(cell))).unwrap_or(f64::NAN)
            };
            points.push((percent(&|c| c.slot_share), percent(&|c| 1.0 - c.hit_rate)));
        }
    }
    for (_, points) in &mut curves {
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
    }
    Panel { title, curves }
}

type Drawn = std::result::Result<(), Box<dyn std::error::Error>>;

fn draw(text: &mut String, size: (u32, u32), grid: (usize, usize), panels: &[Panel]) -> Drawn {
    let area = SVGBackend::with_string(text, size).into_drawing_area();
    area.fill(&WHITE)?;
    for (area, panel) in area.split_evenly(grid).iter().zip(panels) {
        draw_panel(area, panel)?;
    }
    area.present()?;
    Ok(())
}

fn draw_panel(area: &DrawingArea<SVGBackend, Shift>, panel: &Panel) -> Drawn {
    let points = panel.curves.iter().flat_map(|(_, points)| points);
    let (x_max, y_max) = points.fold((1.0, 1.0), |(x, y): (f64, f64), p| (x.max(p.0), y.max(p.1)));
    let mut chart = ChartBuilder::on(area)
        .caption(&panel.title, ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(42)
        .y_label_area_size(52)
        .build_cartesian_2d(0.0..x_max, 0.0..y_max)?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .x_desc("experts that fit, %")
        .y_desc("misses, %")
        .x_label_formatter(&|x| format!("{x:.0}"))
        .y_label_formatter(&|y| format!("{y:.0}"))
        .draw()?;
    for (number, (name, points)) in panel.curves.iter().enumerate() {
        // The bound stands out: nothing lies below it.
        let (color, width) = match name.as_str() {
            BELADY => (BLACK.to_rgba(), 3),
            _ => (COLORS[number % COLORS.len()].to_rgba(), 2),
        };
        let style = color.stroke_width(width);
        chart
            .draw_series(LineSeries::new(points.iter().copied(), style).point_size(2))?
            .label(name)
            .legend(move |(x, y)| PathElement::new(vec![(x, y), (x + 18, y)], style));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .background_style(WHITE.mix(0.85))
        .border_style(BLACK.mix(0.3))
        .draw()?;
    Ok(())
}
