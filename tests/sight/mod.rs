//! What foretells routing in tests of reading ahead: right, half right, wrong.

#![allow(dead_code)]

use hotset::engine::{Foresight, Inputs, Likely};
use hotset::trace::Picks;
use std::collections::{BTreeMap, HashMap};

pub const N_EXPERTS: usize = 16;

/// Experts of a layer, those first that a token picks.
pub fn order(token: usize, layer: usize) -> [i32; N_EXPERTS] {
    let first = (token * 7 + token / 3 + layer * 5) % N_EXPERTS;
    std::array::from_fn(|i| ((first + 3 * i) % N_EXPERTS) as i32)
}

pub fn picks(token: usize, layer: usize, top_k: usize) -> Vec<i32> {
    order(token, layer)[..top_k].to_vec()
}

/// What guesses are like.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Seer {
    Right,
    /// Right for tokens of even numbers, else wrong.
    Half,
    Wrong,
    Random,
}

impl Seer {
    /// What a token picks of a layer, the best first.
    fn guess(self, token: usize, layer: usize, top_k: usize) -> Vec<u32> {
        let best = |mut order: [i32; N_EXPERTS], is_right: bool| {
            if !is_right {
                order.reverse();
            }
            order[..top_k].iter().map(|&e| e as u32).collect()
        };
        let order = order(token, layer);
        match self {
            Seer::Right => best(order, true),
            Seer::Half => best(order, token.is_multiple_of(2)),
            Seer::Wrong => best(order, false),
            Seer::Random => {
                let number = |e: &i32| {
                    (((token * 31 + layer * 17 + *e as usize * 7) * 2_654_435_761) >> 7) % 1000
                };
                let mut order = order;
                order.sort_by_key(number);
                best(order, true)
            }
        }
    }
}

/// Guesses as its seer says, and knows how often that was right.
pub struct Sight {
    seer: Seer,
    /// Layers that it sees beyond the next one.
    n_further: usize,
    /// The tokens of each lane.
    pub tokens: BTreeMap<usize, Vec<usize>>,
    guessed: BTreeMap<(usize, usize), Vec<u32>>,
    likely: Vec<(u32, f32)>,
    n_guesses: f32,
    n_right: f32,
}

impl Sight {
    pub fn of(seer: Seer) -> Box<Self> {
        Self::further(seer, 0)
    }

    pub fn further(seer: Seer, n_further: usize) -> Box<Self> {
        Box::new(Self {
            seer,
            n_further,
            tokens: BTreeMap::new(),
            guessed: BTreeMap::new(),
            likely: Vec::new(),
            n_guesses: 5.0,
            n_right: 4.0,
        })
    }
}

impl Foresight for Sight {
    fn see(&mut self, at: usize, _: usize, inputs: &Inputs) {
        let tokens = inputs.rows().map(|row| row[0] as usize).collect();
        self.tokens.insert(at, tokens);
    }

    fn guess(&mut self, at: usize, layer: usize, distance: usize, top_k: usize) -> &Likely {
        self.likely.clear();
        if distance > 1 + self.n_further {
            return &[];
        }
        let layer = layer + distance;
        let each = self.tokens[&at]
            .iter()
            .map(|&token| self.seer.guess(token, layer, top_k));
        let mut experts = each.collect::<Vec<_>>().concat();
        experts.sort_unstable();
        experts.dedup();
        let chance = self.n_right / self.n_guesses;
        self.likely
            .extend(experts.iter().map(|&expert| (expert, chance)));
        self.guessed.insert((at, layer), experts);
        &self.likely
    }

    fn learn(&mut self, at: usize, layer: usize, picks: Option<Picks>) {
        let picked: Vec<u32> = picks
            .iter()
            .flat_map(|p| p.ranked())
            .map(|(id, _)| id)
            .collect();
        for expert in self.guessed.remove(&(at, layer)).unwrap_or_default() {
            self.n_guesses += 1.0;
            self.n_right += f32::from(u8::from(picked.contains(&expert)));
        }
    }
}

/// What the router sees is the expert that the layer so many after it will pick with this chance; below 0: nothing.
pub struct Says {
    distance: usize,
    said: Vec<(u32, f32)>,
    chance: f32,
}

impl Says {
    pub fn new(distance: usize, chance: f32) -> Box<Self> {
        Box::new(Self {
            distance,
            said: Vec::new(),
            chance,
        })
    }
}

impl Foresight for Says {
    fn see(&mut self, _: usize, _: usize, inputs: &Inputs) {
        let said = inputs.rows().map(|row| row[0]).filter(|said| *said >= 0.0);
        self.said = said.map(|said| (said as u32, self.chance)).collect();
    }

    fn guess(&mut self, _: usize, _: usize, distance: usize, _: usize) -> &Likely {
        if distance == self.distance {
            &self.said
        } else {
            &[]
        }
    }

    fn learn(&mut self, _: usize, _: usize, _: Option<Picks>) {}
}

/// Remembers the last expert that a token has picked in a layer.
#[derive(Default)]
pub struct Remembers {
    picked: HashMap<(usize, i32), i32>,
    said: Vec<(u32, f32)>,
}

impl Foresight for Remembers {
    fn see(&mut self, _: usize, _: usize, _: &Inputs) {}

    fn guess(&mut self, _: usize, _: usize, _: usize, _: usize) -> &Likely {
        &[]
    }

    fn learn(&mut self, _: usize, _: usize, _: Option<Picks>) {}

    fn meet(&mut self, layer: usize, tokens: &[i32], picks: Picks) {
        for (token, row) in tokens.iter().zip(picks.rows()) {
            self.picked.insert((layer, *token), row[0]);
        }
    }

    fn remember(&mut self, layer: usize, tokens: &[i32]) -> &Likely {
        let picked = tokens
            .iter()
            .filter_map(|token| self.picked.get(&(layer, *token)));
        self.said = picked.map(|expert| (*expert as u32, 1.0)).collect();
        &self.said
    }
}

/// Sees right, but at first some chances are no numbers.
pub struct Broken(Box<Sight>, Vec<(u32, f32)>);

impl Broken {
    pub fn of(seer: Seer) -> Self {
        Self(Sight::of(seer), Vec::new())
    }
}

impl Foresight for Broken {
    fn see(&mut self, at: usize, layer: usize, inputs: &Inputs) {
        self.0.see(at, layer, inputs);
    }

    fn guess(&mut self, at: usize, layer: usize, distance: usize, top_k: usize) -> &Likely {
        self.1 = self.0.guess(at, layer, distance, top_k).to_vec();
        let token = self.0.tokens[&at][0];
        if token < 40 {
            let worst = order(token, layer + distance)[N_EXPERTS - 1] as u32;
            let no_number = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY][token % 3];
            self.1.insert(0, (worst, no_number));
        }
        &self.1
    }

    fn learn(&mut self, at: usize, layer: usize, picks: Option<Picks>) {
        self.0.learn(at, layer, picks);
    }
}

/// Says that nobody should have asked.
pub struct Unasked;

impl Foresight for Unasked {
    fn see(&mut self, _: usize, _: usize, _: &Inputs) {
        panic!("there is nothing to guess");
    }

    fn guess(&mut self, _: usize, _: usize, _: usize, _: usize) -> &Likely {
        &[]
    }

    fn learn(&mut self, _: usize, _: usize, _: Option<Picks>) {}
}
