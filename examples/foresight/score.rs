//! Guesses beside what was picked then, where it was not resident.

use crate::states::{Event, States};
use comfy_table::{CellAlignment, Table, presets};
use hotset::engine::predict::{DISTANCE_MAX, Predictor, Routers};
use hotset::engine::{Foresight, Inputs};
use hotset::expert::{self, ExpertId, Shape};
use hotset::policy;
use hotset::residency::{Buffers, Residency};
use hotset::trace::Picks;
use std::time::{Duration, Instant};

/// Guesses with so much of a chance at least are looked at.
const CHANCES: [f32; 5] = [0.05, 0.3, 0.5, 0.6, 0.8];
/// Events of each layer before anything counts: policies and predictors begin with nothing.
const N_WARM_UP: usize = 64;
/// Rows of a prompt that are learnt.
const N_ROWS_LEARNT: usize = 16;
/// Parts of the chances from 0 to 1.
const N_BINS: usize = 10;

/// Guesses of experts that were not resident.
#[derive(Default, Clone, Copy)]
struct Tally {
    guesses: u64,
    right: u64,
}

impl Tally {
    fn add(&mut self, is_right: bool) {
        self.guesses += 1;
        self.right += u64::from(is_right);
    }

    /// Precision, and recall of so many misses.
    fn text(&self, n_misses: u64) -> String {
        let percent = |n: u64, of: u64| 100.0 * n as f64 / of.max(1) as f64;
        format!(
            "{:.0} / {:.0}",
            percent(self.right, self.guesses),
            percent(self.right, n_misses)
        )
    }
}

/// What became of the guesses from one distance.
#[derive(Default)]
struct Scores {
    misses: u64,
    /// The next layer's router as it is, its `top_k` best.
    plain: Tally,
    /// By entry of [`CHANCES`].
    learnt: [Tally; CHANCES.len()],
    /// By part of the chances: guesses, and the sum of their chances.
    bins: [(Tally, f64); N_BINS],
}

/// What the lane has guessed of a layer: the chance of each expert, and whether it is one of the plain ones.
type Guesses = Vec<(f32, bool)>;

/// Replays a recording with `share` of the experts resident, and prints what guesses were worth.
pub fn score(states: &States, share: f64) -> anyhow::Result<()> {
    let head = &states.head;
    let n_experts: Vec<u32> = head.n_experts.iter().map(|&n| n as u32).collect();
    let shape = Shape::new(&n_experts);
    let n_slots = (share * shape.n_total() as f64) as u32;
    let mut residency =
        Residency::new(shape.clone(), n_slots, policy::by_name("adaptive", &shape)?);
    let routers = states.routers();
    let mut predictor = Predictor::new(Box::new(states.routers()), &head.n_experts);
    let mut buffers = Buffers::default();
    let mut scores: [Scores; DISTANCE_MAX] = Default::default();
    let mut pending: Vec<[Option<Guesses>; DISTANCE_MAX]> =
        n_experts.iter().map(|_| [None, None]).collect();
    let mut n_events = vec![0; n_experts.len()];
    let (mut took, mut n_decoded, mut hits, mut n_picks) = (Duration::ZERO, 0u32, 0u64, 0u64);
    for event in &states.events {
        let layer = event.layer;
        let picked = Picked::of(event, n_experts[layer] as usize);
        let is_resident = |e: usize| {
            residency.is_resident(ExpertId {
                layer: layer as u32,
                expert: e as u32,
            })
        };
        let counts = event.n_tokens <= Inputs::N_MAX && n_events[layer] >= N_WARM_UP;
        for (scores, guesses) in scores.iter_mut().zip(&mut pending[layer]) {
            let Some(guesses) = guesses.take().filter(|_| counts) else {
                continue;
            };
            for (e, &(chance, is_plain)) in
                guesses.iter().enumerate().filter(|(e, _)| !is_resident(*e))
            {
                let is_right = picked.is_picked(e);
                scores.add(chance, is_plain, is_right);
            }
        }
        if counts {
            n_picks += picked.experts.len() as u64;
            hits += picked
                .experts
                .iter()
                .filter(|&&e| is_resident(e as usize))
                .count() as u64;
        }
        let planned = residency.plan(&picked.event(event), buffers)?;
        let committed = residency.commit(planned);
        buffers = residency.release(committed);
        let begin = Instant::now();
        let width = head.width;
        if event.n_tokens > Inputs::N_MAX {
            let step = event.n_tokens.div_ceil(N_ROWS_LEARNT);
            let n = (event.n_tokens - 1) / step * step;
            predictor.see(
                0,
                layer,
                &Inputs::new(&event.inputs[..n * width + width], width, step * width),
            );
            predictor.learn(0, layer, None);
            continue;
        }
        predictor.see(0, layer, &Inputs::new(&event.inputs, width, width));
        for distance in 1..=DISTANCE_MAX {
            let guesses = predictor.guess(0, layer, distance, head.top_k);
            let target = layer + distance;
            if target >= n_experts.len() {
                continue;
            }
            let mut all = vec![(0.0, false); n_experts[target] as usize];
            guesses
                .iter()
                .for_each(|&(e, chance)| all[e as usize].0 = chance);
            pending[target][distance - 1] = Some(all);
        }
        let picks = Picks::new(&event.picks, head.top_k, head.top_k);
        predictor.learn(0, layer, Some(picks));
        took += begin.elapsed();
        n_decoded += 1;
        n_events[layer] += 1;
        for distance in 1..=DISTANCE_MAX {
            let target = layer + distance;
            if let Some(Some(guesses)) = pending.get_mut(target).map(|p| &mut p[distance - 1]) {
                for row in event.inputs.chunks(width) {
                    note_plain(&routers, target, row, head.top_k, guesses);
                }
            }
        }
    }
    println!(
        "{:.0} % of the experts resident: {:.1} % hits; {:.1} us for each event",
        100.0 * share,
        100.0 * hits as f64 / n_picks.max(1) as f64,
        took.as_secs_f64() * 1e6 / f64::from(n_decoded.max(1))
    );
    print(&scores);
    Ok(())
}

impl Scores {
    fn add(&mut self, chance: f32, is_plain: bool, is_right: bool) {
        self.misses += u64::from(is_right);
        if is_plain {
            self.plain.add(is_right);
        }
        for (tally, least) in self.learnt.iter_mut().zip(CHANCES) {
            if chance >= least {
                tally.add(is_right);
            }
        }
        if chance > 0.0 {
            let (tally, sum) = &mut self.bins[((chance * N_BINS as f32) as usize).min(N_BINS - 1)];
            tally.add(is_right);
            *sum += f64::from(chance);
        }
    }
}

fn print(scores: &[Scores; DISTANCE_MAX]) {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    let names = CHANCES.map(|c| format!("{:.0} %", 100.0 * c));
    let first = ["layers ahead", "plain"].map(String::from);
    table.set_header(first.into_iter().chain(names));
    for (n, scores) in (1..).zip(scores) {
        let learnt = scores.learnt.map(|tally| tally.text(scores.misses));
        let first = [format!("{n}"), scores.plain.text(scores.misses)];
        table.add_row(first.into_iter().chain(learnt));
    }
    println!("precision / recall of misses, percent, of guesses with this chance at least");
    println!("{}", aligned(table));
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header(
        ["layers ahead".to_string()]
            .into_iter()
            .chain((0..N_BINS).map(|n| format!("{}0 %", n))),
    );
    for (n, scores) in (1..).zip(scores) {
        let cells = scores.bins.iter().map(|(tally, sum)| {
            let n = tally.guesses.max(1) as f64;
            format!(
                "{:.0} : {:.0}",
                100.0 * sum / n,
                100.0 * tally.right as f64 / n
            )
        });
        table.add_row([format!("{n}")].into_iter().chain(cells));
    }
    println!("foretold chance : how many were right, percent, of experts that were not resident");
    println!("{}\n", aligned(table));
}

fn aligned(mut table: Table) -> String {
    for column in table.column_iter_mut() {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.trim_fmt()
}

/// Notes which experts the router of `layer`, as it is, would pick for `input`.
fn note_plain(
    routers: &impl Routers,
    layer: usize,
    input: &[f32],
    top_k: usize,
    guesses: &mut Guesses,
) {
    let Some(router) = routers.router(layer) else {
        return;
    };
    let dot = |row: &[f32]| -> f32 { row.iter().zip(input).map(|(a, b)| a * b).sum() };
    let scores: Vec<f32> = router.weight.chunks(input.len()).map(dot).collect();
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]));
    order[..top_k].iter().for_each(|&e| guesses[e].1 = true);
}

/// What an event says of its experts.
struct Picked {
    experts: Vec<u32>,
    rows: Vec<u32>,
    ranks: Vec<u32>,
    is_picked: Vec<bool>,
}

impl Picked {
    fn of(event: &Event, n_experts: usize) -> Self {
        let top_k = event.picks.len() / event.n_tokens;
        let mut all = vec![(0u32, u32::MAX); n_experts];
        for (i, &pick) in event.picks.iter().enumerate() {
            let (rows, rank) = &mut all[pick as usize];
            *rows += 1;
            *rank = (*rank).min((i % top_k) as u32);
        }
        let picked: Vec<_> = (0..).zip(&all).filter(|(_, (rows, _))| *rows > 0).collect();
        Self {
            experts: picked.iter().map(|(e, _)| *e).collect(),
            rows: picked.iter().map(|(_, (rows, _))| *rows).collect(),
            ranks: picked.iter().map(|(_, (_, rank))| *rank).collect(),
            is_picked: all.iter().map(|(rows, _)| *rows > 0).collect(),
        }
    }

    fn is_picked(&self, expert: usize) -> bool {
        self.is_picked[expert]
    }

    fn event(&self, event: &Event) -> expert::Event<'_> {
        expert::Event {
            layer: event.layer as u32,
            n_tokens: event.n_tokens as u32,
            experts: &self.experts,
            rows: &self.rows,
            ranks: &self.ranks,
            ..expert::Event::default()
        }
    }
}
