//! What a predictor learns of a world that is known.

use super::{Gate, Predictor, Router, Routers};
use crate::engine::foresight::{Foresight, Inputs};
use crate::trace::Picks;

const WIDTH: usize = 48;
const N_EXPERTS: usize = 32;
const TOP_K: usize = 4;
const N_LAYERS: usize = 4;

/// Numbers between -1 and 1 that look random.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        ((self.0 >> 40) as f32 / (1u64 << 23) as f32) - 1.0
    }

    fn vector(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.next()).collect()
    }
}

struct World {
    /// By layer.
    weights: Vec<Vec<f32>>,
    norms: Vec<Vec<f32>>,
    /// By layer but the first: what becomes of the layer before.
    maps: Vec<Vec<f32>>,
    /// How much nobody can foresee.
    blur: f32,
}

fn product(rows: &[f32], input: &[f32]) -> Vec<f32> {
    let dot = |row: &[f32]| row.iter().zip(input).map(|(a, b)| a * b).sum();
    rows.chunks(input.len()).map(dot).collect()
}

impl World {
    /// Each layer turns the hidden state by this much.
    fn new(turn: f32) -> Self {
        let mut noise = Noise(7);
        let mut of_layers = |n: usize| -> Vec<Vec<f32>> { (0..N_LAYERS).map(|_| noise.vector(n)).collect() };
        let weights = of_layers(N_EXPERTS * WIDTH);
        let mut norms = of_layers(WIDTH);
        norms.iter_mut().flatten().for_each(|x| *x += 1.5);
        let mut maps = of_layers(WIDTH * WIDTH);
        for map in &mut maps {
            for (i, x) in map.iter_mut().enumerate() {
                let same = f32::from(u8::from(i % (WIDTH + 1) == 0));
                *x = same + turn * *x;
            }
        }
        Self {
            weights,
            norms,
            maps,
            blur: 0.0,
        }
    }

    /// What the routers see of a token, and what they pick.
    fn token(&self, noise: &mut Noise) -> Vec<(Vec<f32>, Vec<i32>)> {
        let mut state = noise.vector(WIDTH);
        (0..N_LAYERS)
            .map(|layer| {
                if layer > 0 {
                    state = product(&self.maps[layer], &state);
                    state.iter_mut().for_each(|x| *x += self.blur * noise.next());
                }
                let input: Vec<f32> = state.iter().zip(&self.norms[layer]).map(|(x, g)| x * g).collect();
                let scores = product(&self.weights[layer], &input);
                let mut order: Vec<i32> = (0..N_EXPERTS as i32).collect();
                order.sort_by(|a, b| scores[*b as usize].total_cmp(&scores[*a as usize]));
                (input, order[..TOP_K].to_vec())
            })
            .collect()
    }
}

struct Known {
    weights: Vec<Vec<f32>>,
    norms: Vec<Vec<f32>>,
}

impl Routers for Known {
    fn router(&self, layer: usize) -> Option<Router<'_>> {
        Some(Router {
            weight: &self.weights[layer],
            norm: self.norms.get(layer).map_or(&[], |norm| norm),
            gate: Gate::Softmax,
            ..Router::default()
        })
    }
}

impl World {
    fn predictor(&self) -> Predictor {
        let known = Known {
            weights: self.weights.clone(),
            norms: self.norms.clone(),
        };
        Predictor::new(Box::new(known), &[N_EXPERTS; N_LAYERS])
    }
}

/// Guesses with at least half a chance: how many there were, how many right, and the picks, from `distance`.
#[derive(Default, Debug)]
struct Seen {
    guesses: f32,
    right: f32,
    picks: f32,
}

/// Lets `n` tokens pass; adds up what was guessed of them from each distance.
fn pass(predictor: &mut Predictor, world: &World, noise: &mut Noise, n: usize) -> [Seen; 2] {
    let mut all: [Seen; 2] = Default::default();
    for _ in 0..n {
        let token = world.token(noise);
        for (layer, (input, picks)) in token.iter().enumerate() {
            predictor.see(0, layer, &Inputs::new(input, WIDTH, WIDTH));
            for distance in 1..=2 {
                let guesses = predictor.guess(0, layer, distance, TOP_K);
                let Some((_, later)) = token.get(layer + distance) else {
                    assert!(guesses.is_empty());
                    continue;
                };
                assert!(guesses.is_sorted_by(|a, b| a.1 >= b.1));
                let seen = &mut all[distance - 1];
                seen.picks += TOP_K as f32;
                for &(expert, _) in guesses.iter().filter(|(_, chance)| *chance >= 0.5) {
                    seen.guesses += 1.0;
                    seen.right += f32::from(u8::from(later.contains(&(expert as i32))));
                }
            }
            predictor.learn(0, layer, Some(Picks::new(picks, TOP_K, TOP_K)));
        }
    }
    all
}

#[test]
fn layers_that_only_scale_are_known_from_the_start() {
    let world = World::new(0.0);
    let mut predictor = world.predictor();
    let seen = pass(&mut predictor, &world, &mut Noise(1), 50);
    for seen in seen {
        assert!(seen.right > 0.7 * seen.picks && seen.right > 0.95 * seen.guesses, "{seen:?}");
    }
}

#[test]
fn what_layers_do_is_learnt() {
    let world = World::new(0.25);
    let mut predictor = world.predictor();
    let mut noise = Noise(1);
    let early = pass(&mut predictor, &world, &mut noise, 30);
    pass(&mut predictor, &world, &mut noise, 1500);
    let late = pass(&mut predictor, &world, &mut noise, 200);
    for (early, late) in early.iter().zip(&late) {
        assert!(early.right < 0.6 * early.picks, "{early:?}");
        assert!(late.right > 0.9 * late.picks && late.right > 0.9 * late.guesses, "{late:?}");
    }
}

/// Inputs of several tokens teach as they do one after the other, and picks are not needed for the corrections.
#[test]
fn prompts_teach_what_layers_do() {
    let world = World::new(0.25);
    let mut predictor = world.predictor();
    let mut noise = Noise(1);
    for _ in 0..100 {
        let tokens: Vec<_> = (0..16).map(|_| world.token(&mut noise)).collect();
        for layer in 0..N_LAYERS {
            let rows: Vec<f32> = tokens.iter().flat_map(|t| t[layer].0.iter().copied()).collect();
            predictor.see(3, layer, &Inputs::new(&rows, WIDTH, WIDTH));
            predictor.learn(3, layer, None);
        }
    }
    let seen = pass(&mut predictor, &world, &mut noise, 100);
    for seen in seen {
        assert!(seen.right > 0.85 * seen.picks, "{seen:?}");
    }
}

/// Of guesses that are said to be right with some chance, as many are.
#[test]
fn chances_are_frequencies() {
    let world = World {
        blur: 0.5,
        ..World::new(0.02)
    };
    let mut predictor = world.predictor();
    let mut noise = Noise(1);
    // By distance and fifth of the chances: guesses, the sum of their chances, those that were right.
    let mut bins = [[(0.0f32, 0.0f32, 0.0f32); 5]; 2];
    for n in 0..1500 {
        let token = world.token(&mut noise);
        for (layer, (input, picks)) in token.iter().enumerate() {
            predictor.see(0, layer, &Inputs::new(input, WIDTH, WIDTH));
            for distance in 1..=2 {
                for &(expert, chance) in predictor.guess(0, layer, distance, TOP_K) {
                    let is_right = token[layer + distance].1.contains(&(expert as i32));
                    let bin = &mut bins[distance - 1][((chance * 5.0) as usize).min(4)];
                    if n > 300 {
                        *bin = (bin.0 + 1.0, bin.1 + chance, bin.2 + f32::from(u8::from(is_right)));
                    }
                }
            }
            predictor.learn(0, layer, Some(Picks::new(picks, TOP_K, TOP_K)));
        }
    }
    for (n, chances, right) in bins.into_iter().flatten() {
        assert!(n > 200.0 && (chances - right).abs() / n < 0.06, "{bins:?}");
    }
}

#[test]
fn what_is_no_number_teaches_nothing() {
    let world = World::new(0.25);
    let mut predictor = world.predictor();
    let mut noise = Noise(1);
    pass(&mut predictor, &world, &mut noise, 1500);
    let bad = [f32::NAN, f32::INFINITY, f32::MAX];
    for bad in bad {
        for layer in 0..N_LAYERS {
            let input = [bad; WIDTH];
            predictor.see(0, layer, &Inputs::new(&input, WIDTH, WIDTH));
            for distance in 1..=2 {
                let guesses = predictor.guess(0, layer, distance, TOP_K);
                assert!(guesses.iter().all(|(_, chance)| chance.is_finite()));
            }
            predictor.learn(0, layer, None);
        }
    }
    let late = pass(&mut predictor, &world, &mut noise, 100);
    assert!(late.iter().all(|seen| seen.right > 0.9 * seen.picks), "{late:?}");
}

/// Of several tokens, an expert is picked if any of them picks it.
#[test]
fn a_batch_picks_what_any_of_its_tokens_picks() {
    let world = World::new(0.0);
    let mut predictor = world.predictor();
    let mut noise = Noise(5);
    pass(&mut predictor, &world, &mut noise, 200);
    let tokens = [world.token(&mut noise), world.token(&mut noise)];
    let rows: Vec<f32> = tokens.iter().flat_map(|t| t[0].0.iter().copied()).collect();
    predictor.see(1, 0, &Inputs::new(&rows, WIDTH, WIDTH));
    let guesses = predictor.guess(1, 0, 1, TOP_K);
    for pick in tokens.iter().flat_map(|t| &t[1].1) {
        let (_, chance) = guesses.iter().find(|(e, _)| *e as i32 == *pick).unwrap();
        assert!(*chance > 0.3, "{guesses:?}");
    }
    assert!(guesses.iter().filter(|(_, chance)| *chance > 0.5).count() <= 2 * TOP_K + 1);
}

/// A layer that was not seen before the one that is guessed, or with other tokens, teaches nothing wrong.
#[test]
fn layers_that_do_not_follow_each_other_teach_nothing() {
    let world = World::new(0.0);
    let mut predictor = world.predictor();
    let mut noise = Noise(1);
    for n in 0..300 {
        let token = world.token(&mut noise);
        for layer in (0..N_LAYERS).rev() {
            let n_rows = 1 + (n + layer) % 2;
            let rows = token[layer].0.repeat(n_rows);
            predictor.see(0, layer, &Inputs::new(&rows, WIDTH, WIDTH));
            predictor.guess(0, layer, 1, TOP_K);
            predictor.learn(0, layer, None);
        }
    }
    let seen = pass(&mut predictor, &world, &mut noise, 30);
    assert!(seen.iter().all(|s| s.right > 0.7 * s.picks && s.right > 0.85 * s.guesses), "{seen:?}");
    assert!(predictor.guess(9, 0, 1, TOP_K).is_empty());
}
