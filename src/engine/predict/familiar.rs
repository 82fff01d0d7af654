//! What tokens pick in the first layers: mostly what they picked before, because there the hidden state is little more
//! than the token's embedding. It is known before any router has run.

use crate::trace::Picks;
use std::collections::HashMap;

/// Layers, from the first on, of which it is remembered.
pub(super) const N_LAYERS: usize = 2;
/// Tokens of the vocabulary that are remembered; then the one goes that has been known for longest. With 8 experts a token
/// that takes some 600 KiB.
const N_TOKENS_MAX: usize = 8192;
/// What an expert's chance is before anything was seen, and how much of it each token replaces.
const CHANCE: f32 = 0.5;
const RATE: f32 = 0.02;

/// So many tokens of a batch change the chances.
const N_COUNTED_MAX: usize = 8;

/// What is remembered of the tokens of a model.
#[derive(Default)]
pub(super) struct Familiar {
    /// By token of the vocabulary: where it is in `picks`, as the number of a token.
    places: HashMap<i32, usize>,
    /// By place: which token it is.
    tokens: Vec<i32>,
    /// By layer: `top_k` for each place, best first; [`NOTHING`] where that is not known.
    picks: [Vec<u16>; N_LAYERS],
    /// By layer and rank: the chance that it is picked again.
    chances: [Vec<f32>; N_LAYERS],
    top_k: usize,
    /// The place that is given away next, when all are taken.
    next: usize,
}

/// No expert.
const NOTHING: u16 = u16::MAX;

impl Familiar {
    /// The experts that `token` picked in `layer` when it was met last, each with its chance to be picked again; none if
    /// it is not remembered.
    pub fn of(&self, layer: usize, token: i32) -> impl Iterator<Item = (u32, f32)> {
        let known = self.places.get(&token).zip(self.picks.get(layer));
        let picks = known.map_or(&[][..], |(&place, picks)| &picks[place * self.top_k..][..self.top_k]);
        let chances = self.chances.get(layer).into_iter().flatten();
        let both = picks.iter().zip(chances).filter(|(expert, _)| **expert != NOTHING);
        both.map(|(&expert, &chance)| (u32::from(expert), chance))
    }

    /// In `layer`, `tokens` have picked `picks`, each a row.
    pub fn meet(&mut self, layer: usize, tokens: &[i32], picks: Picks) {
        if layer >= N_LAYERS || picks.n_tokens() as usize != tokens.len() {
            return;
        }
        if self.top_k != picks.top_k() {
            *self = Self {
                top_k: picks.top_k(),
                ..Self::default()
            };
            self.chances.iter_mut().for_each(|chances| chances.resize(picks.top_k(), CHANCE));
        }
        for (i, (&token, row)) in tokens.iter().zip(picks.rows()).enumerate() {
            let place = self.place(token);
            let known = &mut self.picks[layer][place * self.top_k..][..self.top_k];
            // Of a large batch few tokens say how sure it is: that must not forget what others have said.
            let counts = i < N_COUNTED_MAX;
            for (expert, chance) in known.iter().zip(&mut self.chances[layer]) {
                if counts && *expert != NOTHING {
                    let is_again = row.contains(&i32::from(*expert));
                    *chance += RATE * (f32::from(u8::from(is_again)) - *chance);
                }
            }
            for (known, &expert) in known.iter_mut().zip(row) {
                *known = u16::try_from(expert).unwrap_or(NOTHING);
            }
        }
    }

    /// Where `token` is, from now on.
    fn place(&mut self, token: i32) -> usize {
        if let Some(&place) = self.places.get(&token) {
            return place;
        }
        let place = match self.tokens.len() < N_TOKENS_MAX {
            true => {
                self.tokens.push(token);
                self.tokens.len() - 1
            }
            false => {
                let place = self.next;
                self.next = (place + 1) % N_TOKENS_MAX;
                self.places.remove(&self.tokens[place]);
                self.tokens[place] = token;
                place
            }
        };
        self.places.insert(token, place);
        for picks in &mut self.picks {
            let range = place * self.top_k..(place + 1) * self.top_k;
            picks.resize(picks.len().max(range.end), NOTHING);
            picks[range].fill(NOTHING);
        }
        place
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_picks_what_it_picked_before_with_the_chance_that_this_has() {
        let mut familiar = Familiar::default();
        // The first pick is always the same, the second one never.
        for n in 0..200 {
            let ids = [7, 100 + n % 50, 9, 200 + n % 50];
            familiar.meet(0, &[3, 4], Picks::new(&ids, 2, 2));
        }
        let of = |layer, token| familiar.of(layer, token).collect::<Vec<_>>();
        let [(first, sure), (second, hardly)] = of(0, 4)[..] else {
            panic!("{:?}", of(0, 4));
        };
        assert_eq!((first, second), (9, 249));
        assert!(sure > 0.95 && hardly < 0.05, "{sure} {hardly}");
        assert!(of(1, 4).is_empty() && of(0, 5).is_empty() && of(N_LAYERS, 4).is_empty());
    }

    #[test]
    fn what_is_known_for_longest_goes() {
        let mut familiar = Familiar::default();
        for token in 0..N_TOKENS_MAX as i32 + 2 {
            familiar.meet(1, &[token], Picks::new(&[token % 60], 1, 1));
        }
        let of = |token: i32| familiar.of(1, token).map(|(expert, _)| expert as i32).collect::<Vec<_>>();
        assert!(of(0).is_empty() && of(1).is_empty());
        for token in [2, 3, N_TOKENS_MAX as i32, N_TOKENS_MAX as i32 + 1] {
            assert_eq!(of(token), [token % 60], "{token}");
        }
        assert_eq!(familiar.picks[1].len(), N_TOKENS_MAX);
        // Others than were counted on say nothing, and another number of experts begins anew.
        familiar.meet(1, &[1, 2], Picks::new(&[5], 1, 1));
        assert_eq!(familiar.of(1, 2).next().unwrap().0, 2);
        familiar.meet(1, &[1], Picks::new(&[5, 6], 2, 2));
        assert_eq!((familiar.of(1, 1).count(), familiar.of(1, 2).count()), (2, 0));
    }
}
