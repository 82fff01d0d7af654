//! The screen: what a terminal of any size shows.

use super::app::{App, Watched};
use super::history::Counted;
use super::picture;
use super::words::{self, Gauge};
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Paragraph, Sparkline, SparklineBar};
use std::time::Duration;

/// What the sentences are about.
const MINUTE: Duration = Duration::from_secs(60);
/// What the charts show.
const CHARTED: Duration = Duration::from_secs(240);
/// What is now: two looks at the counters.
const NOW: Duration = Duration::from_secs(4);
const CHART_HEIGHT: u16 = 4;
const GAUGE_WIDTH: usize = 20;
const FULL: &str = "\u{2588}";
const LIGHT: &str = "\u{2591}";

/// Draws everything.
pub fn draw(frame: &mut Frame, app: &App) {
    let area = frame.area();
    let width = area.width as usize;
    let (sentences, gauges, profiles, settings) = match app.watched() {
        Some(watched) => (
            said(app, watched, width),
            words::gauges(&watched.stats, Some(&app.latest(NOW))),
            wrapped(&words::profile(&watched.stats), width),
            words::settings(&watched.stats),
        ),
        None => (vec![waiting(app)], Vec::new(), Vec::new(), String::new()),
    };
    let message = app.line().map_or(Vec::new(), |text| wrapped(&text, width));
    let rows = Layout::vertical([
        Constraint::Length(2),
        Constraint::Length(sentences.len() as u16),
        Constraint::Length(1),
        Constraint::Length(CHART_HEIGHT),
        Constraint::Length(1),
        Constraint::Length(gauges.len() as u16),
        Constraint::Length(profiles.len() as u16),
        Constraint::Min(0),
        Constraint::Length(message.len() as u16),
        Constraint::Length(1),
    ]);
    let [
        title,
        sentence,
        _,
        charts,
        _,
        gauge,
        profile,
        rest,
        said,
        keys,
    ] = rows.areas(area);
    let server = words::server(&app.url, app.watched().map(|watched| &watched.stats));
    let server = Line::styled(server, Modifier::BOLD);
    frame.render_widget(Paragraph::new(vec![server, Line::raw(settings)]), title);
    frame.render_widget(lines(sentences), sentence);
    if let Some(watched) = app.watched() {
        draw_charts(frame, app, watched, charts);
        frame.render_widget(gauge_lines(&gauges, app), gauge);
        frame.render_widget(lines(profiles), profile);
        match app.shows_curve {
            true => picture::draw_curve(frame, app, watched, rest),
            false => picture::draw_heat(frame, app, watched, rest),
        }
    }
    let attention = Style::new().add_modifier(Modifier::REVERSED);
    frame.render_widget(lines(message).style(attention), said);
    draw_keys(frame, app, keys);
}

fn said(app: &App, watched: &Watched, width: usize) -> Vec<String> {
    let counted = app.latest(MINUTE);
    let plan = watched.plan.as_ref();
    let said = words::sentences(&counted, "in the last minute", &watched.stats, plan);
    said.iter().flat_map(|text| wrapped(text, width)).collect()
}

fn waiting(app: &App) -> String {
    match app.has_answer() {
        true => "The server has no model with experts.".to_string(),
        false => "Waiting for the server.".to_string(),
    }
}

/// `text` in lines of `width` where words allow it.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_string()),
        }
    }
    lines
}

fn lines(texts: Vec<String>) -> Paragraph<'static> {
    Paragraph::new(texts.into_iter().map(Line::raw).collect::<Vec<_>>())
}

/// A number over time.
struct Charted {
    name: &'static str,
    unit: &'static str,
    /// The top of the chart; without one it is the most that there was.
    max: Option<f64>,
    color: Color,
    of: fn(&Counted) -> Option<f64>,
}

const CHARTS: [Charted; 3] = [
    Charted {
        name: "tokens/s",
        unit: "",
        max: None,
        color: Color::Green,
        of: |counted| counted.per_second(counted.tokens),
    },
    Charted {
        name: "hit rate",
        unit: " %",
        max: Some(100.0),
        color: Color::Blue,
        of: |counted| counted.hit_rate().map(|share| 100.0 * share),
    },
    Charted {
        name: "waits for disk",
        unit: " %",
        max: Some(100.0),
        color: Color::Red,
        of: |counted| counted.stalled_share().map(|share| 100.0 * share),
    },
];

fn draw_charts(frame: &mut Frame, app: &App, watched: &Watched, area: Rect) {
    let thirds = [Constraint::Ratio(1, 3); CHARTS.len()];
    let areas: [Rect; CHARTS.len()] = Layout::horizontal(thirds).spacing(2).areas(area);
    for (chart, area) in CHARTS.iter().zip(areas) {
        let heights = [Constraint::Length(1), Constraint::Min(0)];
        let [above, bars] = Layout::vertical(heights).areas(area);
        let width = bars.width.into();
        let parts = watched.history.parts(app.seen(), CHARTED, width);
        let values: Vec<Option<f64>> = parts.iter().map(chart.of).collect();
        let now = (chart.of)(&app.latest(NOW));
        let most = values.iter().chain([&now]).flatten();
        let most = most.fold(0.0, |most: f64, value| most.max(*value));
        let now = now.map_or("-".to_string(), |n| format!("{n:.1}{}", chart.unit));
        let title = match chart.max {
            Some(_) => format!("{} {now}", chart.name),
            None => format!("{} {now} (most {most:.1})", chart.name),
        };
        // Hundredths, because it draws whole numbers.
        let hundredths = |value: f64| (100.0 * value) as u64;
        let bar = |value: &Option<f64>| SparklineBar::from(value.map(hundredths));
        let sparkline = Sparkline::default()
            .data(values.iter().map(bar).collect::<Vec<_>>())
            .absent_value_symbol(" ")
            .max(hundredths(chart.max.unwrap_or(most)).max(1))
            .style(app.colored(chart.color));
        frame.render_widget(Line::raw(title), above);
        frame.render_widget(sparkline, bars);
    }
}

fn gauge_lines(gauges: &[Gauge], app: &App) -> Paragraph<'static> {
    let name_width = gauges.iter().map(|g| g.name.chars().count()).max();
    let name_width = name_width.unwrap_or(0);
    let line = |gauge: &Gauge| {
        let n_full = (gauge.share * GAUGE_WIDTH as f64).round() as usize;
        let color = match gauge.name.as_str() {
            "memory" => Color::Blue,
            "disk" => Color::Gray,
            _ => Color::Yellow,
        };
        let bar = FULL.repeat(n_full) + &LIGHT.repeat(GAUGE_WIDTH - n_full);
        Line::from(vec![
            Span::raw(format!("{:name_width$} ", gauge.name)),
            Span::styled(bar, app.colored(color)),
            Span::raw(format!(" {}", gauge.text)),
        ])
    };
    Paragraph::new(gauges.iter().map(line).collect::<Vec<_>>())
}

fn draw_keys(frame: &mut Frame, app: &App, area: Rect) {
    let Some(input) = &app.input else {
        let pause = match app.is_paused {
            true => "p goes on (paused)",
            false => "p pause",
        };
        let picture = if app.shows_curve { "heat" } else { "curve" };
        let model = match app.models.len() {
            0 | 1 => "",
            _ => "  Tab model",
        };
        let keys = format!(
            "q quit  {pause}  h {picture}  b budget  o policy  s save profile  r reset{model}"
        );
        let dim = Style::new().add_modifier(Modifier::DIM);
        return frame.render_widget(Line::styled(keys, dim), area);
    };
    let text = format!("{}: {}", input.asked.name(), input.text);
    // The end of a line that is too long is what is being typed.
    let n_hidden = (text.chars().count() + 1).saturating_sub(area.width.into());
    let text: String = text.chars().skip(n_hidden).collect();
    let x = area.x + text.chars().count() as u16;
    frame.render_widget(Line::raw(text), area);
    if area.contains((x, area.y).into()) {
        frame.set_cursor_position((x, area.y));
    }
}

#[cfg(test)]
mod tests {
    use super::super::app::{Asked, Input, News};
    use super::super::client::Failure;
    use super::super::sample;
    use super::*;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use ratatui::buffer::Buffer;

    /// A model that has computed for some minutes, faster and faster.
    fn app(has_colors: bool) -> App {
        let mut app = App::new("http://127.0.0.1:8080", has_colors);
        for look in 0..=90u64 {
            app.tick(Duration::from_secs(2 * look));
            let mut stats = sample::stats();
            stats.generation.tokens += look * look / 2;
            stats.generation.hits += 24 * look * look;
            stats.generation.misses += 400 * look;
            stats.bytes_read += 200_000_000 * look;
            stats.generation_time.busy_ms += 1800.0 * look as f64;
            stats.generation_time.stalled_ms += 700.0 * look as f64;
            let seen = News::Seen(vec![stats], vec![sample::heat()]);
            app.hear(seen).unwrap();
        }
        app.hear(News::Planned(vec![sample::plan()])).unwrap();
        app
    }

    fn drawn(app: &App, width: u16, height: u16) -> Buffer {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, app)).unwrap();
        terminal.backend().buffer().clone()
    }

    fn text(buffer: &Buffer) -> String {
        let rows = buffer.content.chunks(buffer.area.width.into());
        let row = |row: &[ratatui::buffer::Cell]| {
            let symbols: String = row.iter().map(|cell| cell.symbol()).collect();
            symbols.trim_end().to_string() + "\n"
        };
        rows.map(row).collect()
    }

    #[test]
    fn a_small_terminal_shows_everything() {
        let screen = text(&drawn(&app(true), 80, 24));
        assert_eq!(screen, include_str!("screen.golden.txt"), "\n{screen}");
    }

    #[test]
    fn without_colours_there_are_letters() {
        let mut app = app(false);
        let buffer = drawn(&app, 80, 24);
        let screen = text(&buffer);
        assert_eq!(screen, include_str!("letters.golden.txt"), "\n{screen}");
        app.shows_curve = true;
        for buffer in [buffer, drawn(&app, 80, 24)] {
            let is_plain = |cell: &ratatui::buffer::Cell| (cell.fg, cell.bg) == Default::default();
            assert!(buffer.content.iter().all(is_plain));
        }
    }

    #[test]
    fn the_curve_says_where_it_is() {
        let mut app = app(true);
        app.shows_curve = true;
        let screen = text(&drawn(&app, 80, 24));
        assert_eq!(screen, include_str!("curve.golden.txt"), "\n{screen}");
        app.models[0].plan = None;
        assert!(text(&drawn(&app, 80, 24)).contains("is not known yet"));
    }

    #[test]
    fn what_is_typed_and_said_has_lines() {
        let mut app = app(true);
        let gone = Failure::Unreachable(std::io::Error::other("connection refused"));
        app.tick(app.now + Duration::from_secs(7));
        app.hear(News::Missed(gone)).unwrap();
        let screen = text(&drawn(&app, 80, 24));
        assert!(
            screen.contains("no answer since 7 s: connection refused\nq quit"),
            "{screen}"
        );
        let typed = "6GiB".repeat(30) + "x";
        app.input = Some(Input {
            asked: Asked::Budget,
            text: typed,
        });
        let screen = text(&drawn(&app, 40, 24));
        assert!(screen.ends_with("6GiB6GiBx\n"), "{screen}");
    }

    #[test]
    fn every_size_is_drawn() {
        let mut app = app(true);
        for has_colors in [true, false] {
            app.has_colors = has_colors;
            for shows_curve in [true, false] {
                app.shows_curve = shows_curve;
                for width in [1, 2, 5, 20, 79, 300] {
                    for height in [1, 2, 8, 15, 19, 90] {
                        drawn(&app, width, height);
                    }
                }
            }
        }
        let none = App::new("http://box", true);
        assert!(text(&drawn(&none, 80, 24)).contains("Waiting for the server."));
    }
}
