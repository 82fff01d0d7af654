//! Guesses what the next two layers will pick, from what this layer's router saw.
//!
//! The next layer's router is applied to this layer's input, which is first scaled as that layer would: a layer
//! changes the hidden state little. What it does change is learnt (`correction.rs`): each time a router's input is
//! seen, what it says is compared with what was foreseen. How likely each expert is picked then is learnt too
//! (`chances.rs`).
//!
//! It is called for each event of a lane, in this order: [`see`](Predictor::see), [`guess`](Predictor::guess) for the
//! distances that are wanted, [`learn`](Predictor::learn). A lane whose layers do not follow each other, or whose
//! tokens change in between, learns nothing of that. It allocates nothing once each layer of a lane was seen with as
//! many rows.
//!
//! Memory: for each expert and distance as many numbers as the hidden state has, or fewer, so that all take
//! `MAP_BYTES_MAX` at most.

use super::chances::{Chances, Signs, N_SIGNS, chance, read_signs};
use super::correction::Correction;
use super::familiar::Familiar;
use super::features::Features;
use super::habits::Habits;
use super::product::Product;
use super::router::{Router, Routers};
use crate::engine::foresight::{Foresight, Inputs, Likely};
use crate::trace::Picks;

/// Layers from the one that is seen to the last one that can be guessed.
pub const DISTANCE_MAX: usize = 2;
/// Experts that are less likely are not named.
const CHANCE_MIN: f32 = 0.05;
/// What is learnt of all layers takes no more memory.
const MAP_BYTES_MAX: usize = 16 << 20;
/// Where all routers take more, a layer learns from every second token only, and where they take four times as much,
/// from every fourth: going through them takes time.
const ROUTER_BYTES_MAX: usize = 16 << 20;
/// After so many events of a layer it learns from fewer: from each of so many that it would learn from before.
const N_EAGER: usize = 512;
const LATER_PERIOD: usize = 4;
/// Fewer features say little, whatever they take.
const N_FEATURES_MIN: usize = 64;

/// What is learnt of a layer.
#[derive(Default)]
struct Layer {
    /// Of what its router sees.
    features: Features,
    /// By distance, less one: of its scores, as an earlier layer sees them.
    corrections: [Correction; DISTANCE_MAX],
    chances: [Chances; DISTANCE_MAX],
    habits: Habits,
    /// Events with picks.
    n_events: usize,
}

/// What was foreseen of a layer from an earlier one. By row, one after the other.
#[derive(Default)]
struct Foreseen {
    is_there: bool,
    /// Whether the signs were read: the chances were wanted.
    has_signs: bool,
    /// Scores without a correction.
    early: Vec<f32>,
    signs: Vec<Signs>,
    log_odds: Vec<f32>,
}

/// The latest event of a lane but so many.
#[derive(Default)]
struct Seen {
    layer: usize,
    n_rows: usize,
    width: usize,
    inputs: Vec<f32>,
    features: Vec<f32>,
    /// By row.
    squares: Vec<f32>,
    /// By distance, less one.
    foreseen: [Foreseen; DISTANCE_MAX],
}

/// By layer modulo their number.
type Lane = [Seen; DISTANCE_MAX + 1];

/// See the head of this file.
pub struct Predictor {
    routers: Box<dyn Routers>,
    /// By layer.
    n_experts: Vec<usize>,
    layers: Vec<Layer>,
    lanes: Vec<Lane>,
    familiar: Familiar,
    product: Product,
    n_features_max: usize,
    /// Tokens from one that a layer's corrections learn from to the next; not of prompts.
    period: usize,
    scaled: Vec<f32>,
    scores: Vec<f32>,
    order: Vec<f32>,
    /// By expert: the chance that no token picks it.
    never: Vec<f32>,
    likely: Vec<(u32, f32)>,
}

impl Predictor {
    /// Knows nothing yet of layers with so many experts.
    pub fn new(routers: Box<dyn Routers>, n_experts: &[usize]) -> Self {
        let n_rows = DISTANCE_MAX * n_experts.iter().sum::<usize>();
        let n_features_max = MAP_BYTES_MAX / (size_of::<f32>() * n_rows.max(1));
        let weights = (0..n_experts.len()).filter_map(|layer| routers.router(layer));
        let router_bytes: usize = weights.map(|router| size_of_val(router.weight)).sum();
        let period = match router_bytes / ROUTER_BYTES_MAX {
            0 => 1,
            1..4 => 2,
            _ => 4,
        };
        Self {
            routers,
            n_experts: n_experts.to_vec(),
            layers: n_experts.iter().map(|_| Layer::default()).collect(),
            lanes: Vec::new(),
            familiar: Familiar::default(),
            product: Product::default(),
            n_features_max: n_features_max.max(N_FEATURES_MIN),
            period,
            scaled: Vec::new(),
            scores: Vec::new(),
            order: Vec::new(),
            never: Vec::new(),
            likely: Vec::new(),
        }
    }

}

impl Foresight for Predictor {
    fn see(&mut self, at: usize, layer: usize, inputs: &Inputs) {
        if self.lanes.len() <= at {
            self.lanes.resize_with(at + 1, Lane::default);
        }
        let seen = &mut self.lanes[at][layer % (DISTANCE_MAX + 1)];
        seen.layer = layer;
        seen.n_rows = 0;
        seen.foreseen.iter_mut().for_each(|foreseen| foreseen.is_there = false);
        seen.inputs.clear();
        seen.squares.clear();
        for row in inputs.rows() {
            seen.width = row.len();
            seen.n_rows += 1;
            seen.inputs.extend_from_slice(row);
        }
        let n_features = seen.width.min(self.n_features_max);
        seen.features.resize(seen.n_rows * n_features, 0.0);
        let features = &mut self.layers[layer].features;
        for (row, out) in seen.inputs.chunks(seen.width.max(1)).zip(seen.features.chunks_mut(n_features.max(1))) {
            seen.squares.push(features.take(row, out));
        }
    }

    fn guess(&mut self, at: usize, layer: usize, distance: usize, top_k: usize) -> &Likely {
        assert!((1..=DISTANCE_MAX).contains(&distance), "distance {distance}");
        self.likely.clear();
        let target = layer + distance;
        if !self.foresee(at, layer, distance) {
            return &[];
        }
        let Self {
            routers, layers, lanes, ..
        } = self;
        let router = routers.router(target).expect("there is one, or nothing is foreseen");
        let (n_experts, lane) = (self.n_experts[target], &mut lanes[at]);
        let Layer {
            corrections,
            chances,
            habits,
            ..
        } = &layers[target];
        let (correction, chances) = (&corrections[distance - 1], &chances[distance - 1]);
        let mut seen = std::mem::take(&mut lane[layer % (DISTANCE_MAX + 1)]);
        // What was said of the same layer before.
        let before = (distance < DISTANCE_MAX && layer > 0)
            .then(|| &lane[(layer - 1) % (DISTANCE_MAX + 1)])
            .filter(|s| s.layer + 1 == layer && s.n_rows == seen.n_rows)
            .map(|s| &s.foreseen[distance])
            .filter(|foreseen| foreseen.is_there && foreseen.has_signs);
        let n_features = seen.features.len() / seen.n_rows;
        let foreseen = &mut seen.foreseen[distance - 1];
        foreseen.signs.resize(seen.n_rows * n_experts, [0.0; N_SIGNS]);
        foreseen.log_odds.resize(seen.n_rows * n_experts, 0.0);
        foreseen.has_signs = true;
        self.never.clear();
        self.never.resize(n_experts, 1.0);
        for row in 0..seen.n_rows {
            let part = row * n_experts..(row + 1) * n_experts;
            let features = &seen.features[row * n_features..(row + 1) * n_features];
            self.scores.clear();
            self.scores.extend_from_slice(&foreseen.early[part.clone()]);
            correction.correct(self.product, features, &mut self.scores);
            router.rank(&mut self.scores, &mut self.order);
            let earlier = before.map(|foreseen| &foreseen.log_odds[part.clone()]);
            let signs = &mut foreseen.signs[part.clone()];
            if !read_signs(&self.scores, top_k, habits, earlier, &mut self.order, signs) {
                foreseen.has_signs = false;
                break;
            }
            let log_odds = &mut foreseen.log_odds[part];
            for ((log_odds, signs), never) in log_odds.iter_mut().zip(&*signs).zip(&mut self.never) {
                *log_odds = chances.log_odds(signs);
                *never *= 1.0 - chance(*log_odds);
            }
        }
        if foreseen.has_signs {
            name_likely(&self.never, &mut self.likely);
        }
        lane[layer % (DISTANCE_MAX + 1)] = seen;
        &self.likely
    }

    fn meet(&mut self, layer: usize, tokens: &[i32], picks: Picks) {
        self.familiar.meet(layer, tokens, picks);
    }

    fn remember(&mut self, layer: usize, tokens: &[i32]) -> &Likely {
        self.likely.clear();
        self.never.clear();
        self.never.resize(self.n_experts.get(layer).copied().unwrap_or(0), 1.0);
        for (i, &token) in tokens.iter().enumerate() {
            // The same token says nothing more.
            if tokens[..i].contains(&token) {
                continue;
            }
            for (expert, chance) in self.familiar.of(layer, token) {
                if let Some(never) = self.never.get_mut(expert as usize) {
                    *never *= 1.0 - chance;
                }
            }
        }
        name_likely(&self.never, &mut self.likely);
        &self.likely
    }

    fn prime(&mut self, layer: usize, frequency: &[f32], n_tokens: f32) {
        let n_experts = self.n_experts.get(layer).copied();
        if n_experts == Some(frequency.len()) {
            self.layers[layer].habits.prime(frequency, n_tokens);
        }
    }

    /// Compares what was picked with what was foreseen. Without picks only the corrections are learnt.
    fn learn(&mut self, at: usize, layer: usize, picks: Option<Picks>) {
        // Of a prompt nobody has guessed anything. Else it is not worth learning what nobody asks for.
        if picks.is_none() {
            (1..=DISTANCE_MAX).for_each(|distance| _ = self.foresee(at, layer, distance));
        }
        let n_experts = self.n_experts[layer];
        if let Some(picks) = picks {
            let of_layer = &mut self.layers[layer];
            picks.rows().for_each(|row| of_layer.habits.learn(row, n_experts));
            of_layer.n_events = of_layer.n_events.wrapping_add(1);
        }
        // The layers take turns.
        let n_events = self.layers[layer].n_events;
        let period = if n_events < N_EAGER { self.period } else { LATER_PERIOD * self.period };
        let is_due = picks.is_none() || (n_events + layer).is_multiple_of(period);
        let Some(router) = self.routers.router(layer) else {
            return;
        };
        let Some(lane) = self.lanes.get(at) else { return };
        let now = &lane[layer % (DISTANCE_MAX + 1)];
        if now.layer != layer || now.n_rows == 0 || !is_of(&router, n_experts, now.width) {
            return;
        }
        let earlier = |distance: usize| {
            let from = layer.checked_sub(distance)?;
            let seen = &lane[from % (DISTANCE_MAX + 1)];
            let foreseen = &seen.foreseen[distance - 1];
            let is_same = seen.layer == from && seen.n_rows == now.n_rows && foreseen.is_there;
            is_same.then_some((seen, foreseen))
        };
        for (row, input) in now.inputs.chunks(now.width).enumerate() {
            let part = row * n_experts..(row + 1) * n_experts;
            self.scores.resize(n_experts, 0.0);
            if is_due {
                self.product.multiply(router.weight, input, &mut self.scores);
                add_bias(&router, &mut self.scores);
            }
            for distance in 1..=DISTANCE_MAX {
                let Some((seen, foreseen)) = earlier(distance) else {
                    continue;
                };
                let Layer {
                    corrections, chances, ..
                } = &mut self.layers[layer];
                if is_due {
                    let n_features = seen.features.len() / seen.n_rows;
                    let features = &seen.features[row * n_features..(row + 1) * n_features];
                    let early = &foreseen.early[part.clone()];
                    let square = seen.squares[row];
                    corrections[distance - 1].learn(self.product, features, square, early, &self.scores);
                }
                let row_picks = picks.filter(|p| foreseen.has_signs && p.n_tokens() as usize == now.n_rows);
                if let Some(row_picks) = row_picks.and_then(|p| p.rows().nth(row)) {
                    let signs = &foreseen.signs[part.clone()];
                    chances[distance - 1].learn(signs, |expert| row_picks.contains(&(expert as i32)));
                }
            }
        }
    }

}

impl Predictor {
    /// Applies the router of the layer `distance` after `layer` to what lane `at` has seen last, if that was not done.
    /// False if that cannot be.
    fn foresee(&mut self, at: usize, layer: usize, distance: usize) -> bool {
        let target = layer + distance;
        if target >= self.n_experts.len() {
            return false;
        }
        let (Some(router), Some(lane)) = (self.routers.router(target), self.lanes.get_mut(at)) else {
            return false;
        };
        let n_experts = self.n_experts[target];
        let seen = &mut lane[layer % (DISTANCE_MAX + 1)];
        let is_known = seen.layer == layer && seen.n_rows > 0 && seen.squares.iter().all(|s| s.is_finite());
        if !is_known || !is_of(&router, n_experts, seen.width) {
            return false;
        }
        let foreseen = &mut seen.foreseen[distance - 1];
        if foreseen.is_there {
            return true;
        }
        foreseen.is_there = true;
        foreseen.has_signs = false;
        foreseen.early.resize(seen.n_rows * n_experts, 0.0);
        let from = self.routers.router(layer);
        let norms = from.map(|from| (from.norm, router.norm));
        for (input, early) in seen.inputs.chunks(seen.width).zip(foreseen.early.chunks_mut(n_experts)) {
            self.scaled.clear();
            match norms {
                Some((here, there)) if here.len() == input.len() && there.len() == input.len() => {
                    let both = here.iter().zip(there);
                    self.scaled.extend(input.iter().zip(both).map(|(x, (here, there))| x * ratio(*there, *here)));
                }
                _ => self.scaled.extend_from_slice(input),
            }
            self.product.multiply(router.weight, &self.scaled, early);
            add_bias(&router, early);
        }
        true
    }
}

/// Appends to `likely` who is likely, the surest first, where `never` has the chance that nobody picks each.
fn name_likely(never: &[f32], likely: &mut Vec<(u32, f32)>) {
    let chances = never.iter().map(|never| 1.0 - never);
    likely.extend((0..).zip(chances).filter(|(_, chance)| *chance >= CHANCE_MIN));
    likely.sort_unstable_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
}

/// Whether a router has weights for so many experts and so wide an input.
fn is_of(router: &Router, n_experts: usize, width: usize) -> bool {
    router.weight.len() == n_experts * width
}

fn add_bias(router: &Router, scores: &mut [f32]) {
    for (score, bias) in scores.iter_mut().zip(router.bias) {
        *score += bias;
    }
}

/// What one layer's norm makes of a number, over what another one's does. A norm that is next to nothing says nothing.
fn ratio(there: f32, here: f32) -> f32 {
    const RATIO_MAX: f32 = 10.0;
    let ratio = there / here;
    match ratio.is_finite() {
        true => ratio.clamp(-RATIO_MAX, RATIO_MAX),
        false => 1.0,
    }
}
