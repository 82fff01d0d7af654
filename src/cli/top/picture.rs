//! What fills the rest of the screen: the heat of experts, or what memory would bring.

use super::app::{App, Watched};
use super::heat::{Cell, Grid, N_LEVELS, Tier};
use super::snapshot;
use hotset::numbers::bytes;
use ratatui::Frame;
use ratatui::buffer::Buffer;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Style};
use ratatui::symbols::Marker;
use ratatui::text::{Line, Span};
use ratatui::widgets::{Axis, Chart, Dataset, GraphType};

/// The numbers of layers before a grid.
const LABEL_WIDTH: u16 = 4;
const UPPER_HALF: char = '\u{2580}';
const LOWER_HALF: char = '\u{2584}';
const FULL: &str = "\u{2588}";

/// Colours of the 256 that terminals have had for long, from cold to hot.
fn ramp(tier: Tier) -> [u8; N_LEVELS] {
    match tier {
        Tier::Device => [58, 94, 136, 178, 220],
        Tier::Memory => [17, 19, 26, 33, 45],
        Tier::Disk => [234, 237, 242, 248, 255],
    }
}

fn color(cell: Cell) -> Color {
    Color::Indexed(ramp(cell.tier)[cell.level()])
}

pub fn draw_heat(frame: &mut Frame, app: &App, watched: &Watched, area: Rect) {
    let [heading, cells] =
        Layout::vertical([Constraint::Length(1), Constraint::Min(0)]).areas(area);
    let [labels, cells] =
        Layout::horizontal([Constraint::Length(LABEL_WIDTH), Constraint::Min(0)]).areas(cells);
    // Half a character is a cell, where there are colours.
    let rows_per_line = if app.has_colors { 2 } else { 1 };
    let n_rows = cells.height as usize * rows_per_line;
    let grid = Grid::new(&watched.heat.layers, n_rows, cells.width.into());
    let mut legend = vec![Span::raw(grid.heading() + " ")];
    match app.has_colors {
        true => legend.extend(Tier::ALL.iter().flat_map(|tier| {
            let swatch = Style::new().fg(Color::Indexed(ramp(*tier)[3]));
            let name = Span::raw(format!(" {}  ", tier.name()));
            [Span::styled(FULL, swatch), name]
        })),
        false => legend.push(Span::raw(snapshot::letters())),
    }
    frame.render_widget(Line::from(legend), heading);
    let buffer = frame.buffer_mut();
    for (line, rows) in grid.rows.chunks(rows_per_line).enumerate() {
        let y = cells.y + line as u16;
        let label = format!("{:>3}", rows[0].0);
        buffer.set_stringn(labels.x, y, label, labels.width.into(), Style::new());
        for x in 0..rows[0].1.len() {
            let at = |row: usize| rows.get(row).and_then(|(_, cells)| cells[x]);
            let place = (cells.x + x as u16, y);
            match app.has_colors {
                true => draw_halves(buffer, place, at(0), at(1)),
                false => {
                    buffer[place].set_char(at(0).map_or(' ', Cell::letter));
                }
            }
        }
    }
}

fn draw_halves(buffer: &mut Buffer, place: (u16, u16), upper: Option<Cell>, lower: Option<Cell>) {
    let drawn = &mut buffer[place];
    match (upper, lower) {
        (None, None) => {}
        (None, Some(lower)) => drop(drawn.set_char(LOWER_HALF).set_fg(color(lower))),
        (Some(upper), lower) => {
            let below = lower.map_or(Color::Reset, color);
            drawn
                .set_char(UPPER_HALF)
                .set_fg(color(upper))
                .set_bg(below);
        }
    }
}

pub fn draw_curve(frame: &mut Frame, app: &App, watched: &Watched, area: Rect) {
    let [heading, chart] =
        Layout::vertical([Constraint::Length(1), Constraint::Min(0)]).areas(area);
    let Some(plan) = watched.plan.as_ref().filter(|plan| !plan.rows.is_empty()) else {
        let text = "What memory would bring is not known yet.";
        return frame.render_widget(Line::raw(text), heading);
    };
    let text = "Hit rate (%) by memory for experts; o is now";
    frame.render_widget(Line::raw(text), heading);
    let point = |budget_bytes: u64, percent: f64| (budget_bytes as f64, percent);
    let rows = plan
        .rows
        .iter()
        .map(|row| point(row.budget_bytes, row.hit_percent));
    let rows: Vec<(f64, f64)> = rows.collect();
    let now = [point(plan.now.budget_bytes, plan.now.hit_percent)];
    let x_max = rows
        .iter()
        .chain(&now)
        .fold(1.0, |max: f64, p| max.max(p.0));
    let curve = Dataset::default()
        .marker(Marker::Braille)
        .graph_type(GraphType::Line)
        .style(app.colored(Color::Blue))
        .data(&rows);
    let here = Dataset::default()
        .marker(Marker::Custom('o'))
        .graph_type(GraphType::Scatter)
        .style(app.colored(Color::Yellow))
        .data(&now);
    let memory = |share: f64| bytes((share * x_max) as u64);
    let axes = Chart::new(vec![curve, here])
        .x_axis(
            Axis::default()
                .bounds([0.0, x_max])
                .labels([0.0, 0.5, 1.0].map(memory)),
        )
        .y_axis(
            Axis::default()
                .bounds([0.0, 100.0])
                .labels(["0", "50", "100"]),
        )
        .legend_position(None);
    frame.render_widget(axes, chart);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_character_is_two_cells_by_colour_of_tier_and_heat() {
        let cell = |tier, heat| Some(Cell { tier, heat });
        let (hot, cold) = (cell(Tier::Device, 9.0), cell(Tier::Disk, 0.0));
        let mut buffer = Buffer::empty(Rect::new(0, 0, 4, 1));
        for (x, (upper, lower)) in [(hot, cold), (hot, None), (None, cold), (None, None)]
            .into_iter()
            .enumerate()
        {
            draw_halves(&mut buffer, (x as u16, 0), upper, lower);
        }
        let drawn = |x: u16| {
            let cell = &buffer[(x, 0)];
            (cell.symbol(), cell.fg, cell.bg)
        };
        let (device, disk) = (Color::Indexed(220), Color::Indexed(234));
        assert_eq!(drawn(0), ("\u{2580}", device, disk));
        assert_eq!(drawn(1), ("\u{2580}", device, Color::Reset));
        assert_eq!(drawn(2), ("\u{2584}", disk, Color::Reset));
        assert_eq!(drawn(3), (" ", Color::Reset, Color::Reset));
    }
}
