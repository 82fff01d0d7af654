//! `hotset profile plot`: profiles as heat maps of layers and experts.

use super::super::files::{check_outputs, save};
use super::checks::check_same;
use super::shown::{PhaseName, name_of, print};
use anyhow::{Context, anyhow};
use hotset::profile::Profile;
use hotset::tracker::Phase;
use plotters::coord::Shift;
use plotters::prelude::*;
use serde_json::json;
use std::path::PathBuf;

/// Pixels that the cells of a map take, where they are not too many.
const MAP_SIZE: (usize, usize) = (640, 400);
const LEGEND_WIDTH: u32 = 110;
/// Pixels around the cells of a map, for title and axes.
const AROUND: (u32, u32) = (90, 110);
/// Steps of the legend.
const N_STEPS: u32 = 64;

/// Draw profiles as heat maps: layers, experts, and how much each is picked
#[derive(clap::Args)]
pub struct Args {
    /// A profile, or two of one model to draw side by side
    #[arg(required = true, num_args = 1..=2, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// The SVG file to write; one that is there is replaced
    #[arg(short, long, value_name = "FILE")]
    output: PathBuf,
    /// What to draw [default: generation, if all have any]
    #[arg(long)]
    phase: Option<PhaseName>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// One profile's map.
struct Map {
    title: String,
    /// By layer and expert: picks, as multiples of what each expert of the layer would get if all were picked alike.
    lifts: Vec<Vec<f64>>,
}

pub fn run(args: &Args) -> anyhow::Result<()> {
    check_outputs(&[("--output", &args.output)], &args.files)?;
    let read = |path: &PathBuf| Profile::read(path);
    let profiles: Vec<Profile> = args.files.iter().map(read).collect::<Result<_, _>>()?;
    for (path, profile) in args.files.iter().zip(&profiles) {
        check_same(&profiles[0], path, profile)?;
    }
    let phase = PhaseName::or_known(args.phase, &profiles.iter().collect::<Vec<_>>());
    let maps: Vec<Map> = profiles.iter().map(|profile| map(profile, phase)).collect();
    let lifts = maps.iter().flat_map(|map| map.lifts.iter().flatten());
    // An empty profile has a scale, too.
    let highest = lifts.copied().fold(1.0, f64::max);
    let mut text = String::new();
    draw(&mut text, &maps, highest).map_err(|e| anyhow!("svg: {e}"))?;
    save(&args.output, &text).with_context(|| args.output.display().to_string())?;
    let output = args.output.display().to_string();
    let value = json!({ "output": output, "phase": name_of(phase), "highest": highest });
    let text = format!(
        "{output}: {}, up to {highest:.1} times as often as the mean",
        name_of(phase)
    );
    print(args.json, &value, &text)
}

fn map(profile: &Profile, phase: Phase) -> Map {
    let lifts = |layer: &hotset::profile::LayerHeat| {
        let heat = layer.heat(phase);
        let mean = heat.total() / heat.weight.len() as f64;
        let lift = |weight: &f64| if mean > 0.0 { weight / mean } else { 0.0 };
        heat.weight.iter().map(lift).collect()
    };
    Map {
        title: format!("{}, {}", profile.name, name_of(phase)),
        lifts: profile.layers.iter().map(lifts).collect(),
    }
}

type Drawn = std::result::Result<(), Box<dyn std::error::Error>>;

fn draw(text: &mut String, maps: &[Map], highest: f64) -> Drawn {
    let lifts = &maps[0].lifts;
    let n_experts = lifts.iter().map(Vec::len).max().unwrap_or(1);
    // Cells of whole pixels, so that none looks wider than others.
    let width = n_experts * (MAP_SIZE.0 / n_experts).clamp(2, 24);
    let height = lifts.len() * (MAP_SIZE.1 / lifts.len()).clamp(4, 40);
    let panel = (width as u32 + AROUND.0, height as u32 + AROUND.1);
    let size = (panel.0 * maps.len() as u32 + LEGEND_WIDTH, panel.1);
    let area = SVGBackend::with_string(text, size).into_drawing_area();
    area.fill(&WHITE)?;
    let (panels, legend) = area.split_horizontally(panel.0 * maps.len() as u32);
    for (area, map) in panels.split_evenly((1, maps.len())).iter().zip(maps) {
        draw_map(area, map, n_experts, highest)?;
    }
    draw_legend(&legend, highest)?;
    area.present()?;
    Ok(())
}

fn draw_map(
    area: &DrawingArea<SVGBackend, Shift>,
    map: &Map,
    n_experts: usize,
    highest: f64,
) -> Drawn {
    let n_layers = map.lifts.len();
    let mut chart = ChartBuilder::on(area)
        .caption(&map.title, ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(42)
        .y_label_area_size(52)
        .build_cartesian_2d(-0.5..n_experts as f64 - 0.5, 0.5 - n_layers as f64..0.5)?;
    chart
        .configure_mesh()
        .disable_mesh()
        .x_label_formatter(&whole)
        .y_label_formatter(&whole)
        .x_desc("expert")
        .y_desc("layer")
        .draw()?;
    for (layer, lifts) in map.lifts.iter().enumerate() {
        chart.draw_series(lifts.iter().enumerate().map(|(expert, lift)| {
            // Layer 0 is on top. The middle of a cell is its number.
            let (x, y) = (expert as f64, -(layer as f64));
            let corners = [(x - 0.5, y + 0.5), (x + 0.5, y - 0.5)];
            Rectangle::new(corners, color(lift / highest).filled())
        }))?;
    }
    Ok(())
}

/// The number of an expert or a layer; nothing between two.
fn whole(at: &f64) -> String {
    match at.fract() == 0.0 {
        true => format!("{:.0}", at.abs()),
        false => String::new(),
    }
}

fn draw_legend(area: &DrawingArea<SVGBackend, Shift>, highest: f64) -> Drawn {
    let mut chart = ChartBuilder::on(area)
        .caption("x mean", ("sans-serif", 14))
        .margin(12)
        .margin_bottom(54)
        .y_label_area_size(44)
        .build_cartesian_2d(0..1, 0.0..highest)?;
    chart
        .configure_mesh()
        .disable_mesh()
        .disable_x_axis()
        .label_style(("sans-serif", 10))
        .y_label_formatter(&|lift| format!("{lift:.1}"))
        .draw()?;
    let steps = (0..N_STEPS).map(|step| f64::from(step) / f64::from(N_STEPS));
    chart.draw_series(steps.map(|share| {
        let end = share + 1.0 / f64::from(N_STEPS);
        let corners = [(0, share * highest), (1, end * highest)];
        Rectangle::new(corners, color(share).filled())
    }))?;
    Ok(())
}

/// White at 0, through orange, to nearly black at 1. Its lightness falls all the way, so that it works without colours.
fn color(share: f64) -> RGBColor {
    const STOPS: [[f64; 3]; 4] = [
        [255.0, 255.0, 255.0],
        [253.0, 190.0, 110.0],
        [200.0, 50.0, 40.0],
        [40.0, 0.0, 30.0],
    ];
    let at = share.clamp(0.0, 1.0) * 3.0;
    let first = (at as usize).min(2);
    let part = at - first as f64;
    let mix =
        |i: usize| (STOPS[first][i] * (1.0 - part) + STOPS[first + 1][i] * part).round() as u8;
    RGBColor(mix(0), mix(1), mix(2))
}
