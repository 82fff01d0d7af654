//! How a profile learns from what was picked.

use super::format;
use super::format::{HALF_LIFE, Heat, Profile, Tokens};
use crate::tracker::Phase;

/// Picks, and the tokens that made them.
#[derive(Debug, Clone, PartialEq)]
pub struct Lesson {
    /// How many tokens there were.
    pub tokens: Tokens,
    /// Picks of each expert, by layer and [`Phase`].
    pub layers: Vec<[Vec<u64>; 2]>,
}

impl Lesson {
    /// Nothing picked, in layers that have so many experts.
    pub fn new(n_experts: &[u32]) -> Self {
        let layer = |&n: &u32| [vec![0; n as usize], vec![0; n as usize]];
        Self {
            tokens: Tokens::default(),
            layers: n_experts.iter().map(layer).collect(),
        }
    }

    /// What came after `earlier`. Panics unless `earlier` is a beginning of `self`: of the same shape, no number larger.
    pub fn since(&self, earlier: &Self) -> Self {
        let less = |a: u64, b: u64| a.checked_sub(b).expect("picks are only added");
        let mut since = self.clone();
        since.tokens = Tokens {
            prompt: less(self.tokens.prompt, earlier.tokens.prompt),
            generation: less(self.tokens.generation, earlier.tokens.generation),
        };
        assert_eq!(self.layers.len(), earlier.layers.len());
        for (layer, earlier) in since.layers.iter_mut().zip(&earlier.layers) {
            for (picks, earlier) in layer.iter_mut().zip(earlier) {
                assert_eq!(picks.len(), earlier.len());
                for (n, &earlier) in picks.iter_mut().zip(earlier) {
                    *n = less(*n, earlier);
                }
            }
        }
        since
    }
}

impl Profile {
    /// Adds a lesson, before which all that was known fades. Panics unless it is of the profile's shape.
    pub fn learn(&mut self, lesson: &Lesson) {
        assert_eq!(self.layers.len(), lesson.layers.len());
        for (layer, lesson_of) in self.layers.iter_mut().zip(&lesson.layers) {
            for phase in Phase::ALL {
                let n_tokens = lesson.tokens.of(phase);
                let fade = 0.5f64.powf(n_tokens as f64 / HALF_LIFE as f64);
                learn(layer.heat_mut(phase), fade, &lesson_of[phase as usize]);
            }
        }
        for phase in Phase::ALL {
            let n_tokens = self.tokens.of_mut(phase);
            *n_tokens = n_tokens.saturating_add(lesson.tokens.of(phase));
        }
        self.updated = format::now();
    }
}

fn learn(heat: &mut Heat, fade: f64, picks: &[u64]) {
    assert_eq!(heat.weight.len(), picks.len());
    for (weight, &n) in heat.weight.iter_mut().zip(picks) {
        *weight = *weight * fade + n as f64;
    }
    for (count, &n) in heat.count.iter_mut().zip(picks) {
        *count = count.saturating_add(n);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::Fingerprint;

    const GENERATION: usize = Phase::Decode as usize;
    const PROMPT: usize = Phase::Prefill as usize;

    fn profile() -> Profile {
        let model = Fingerprint {
            architecture: "test".to_string(),
            name: String::new(),
            n_layers: 2,
            n_experts: 3,
            top_k: 2,
        };
        Profile::new("test", model, &[3, 2])
    }

    fn lesson(tokens: Tokens) -> Lesson {
        let mut lesson = Lesson::new(&[3, 2]);
        lesson.tokens = tokens;
        lesson
    }

    #[test]
    fn a_half_life_of_a_phase_halves_only_its_own_weights() {
        let mut profile = profile();
        profile.updated = "long ago".to_string();
        let mut first = lesson(Tokens {
            prompt: 10,
            generation: 20,
        });
        first.layers[0][PROMPT] = vec![4, 0, 6];
        first.layers[1][GENERATION] = vec![0, 8];
        profile.learn(&first);
        assert_eq!(profile.layers[0].prompt.weight, [4.0, 0.0, 6.0]);
        assert_eq!(profile.layers[1].generation.weight, [0.0, 8.0]);
        assert_ne!(profile.updated, "long ago");

        let mut second = lesson(Tokens {
            prompt: 0,
            generation: HALF_LIFE,
        });
        second.layers[1][GENERATION] = vec![1, 2];
        profile.learn(&second);
        assert_eq!(profile.layers[0].prompt.weight, [4.0, 0.0, 6.0]);
        assert_eq!(profile.layers[1].generation.weight, [1.0, 6.0]);
        assert_eq!(profile.layers[1].generation.count, [1, 10]);
        assert_eq!(profile.layers[1].prompt.count, [0, 0]);
        assert_eq!(profile.tokens.prompt, 10);
        assert_eq!(profile.tokens.generation, 20 + HALF_LIFE);

        profile.learn(&lesson(Tokens {
            prompt: HALF_LIFE / 2,
            generation: 0,
        }));
        let expected = 4.0 / 2f64.sqrt();
        assert!((profile.layers[0].prompt.weight[0] - expected).abs() < 1e-12);
        assert_eq!(profile.layers[0].prompt.count, [4, 0, 6]);
        assert_eq!(profile.layers[1].generation.weight, [1.0, 6.0]);
    }

    #[test]
    fn what_came_since() {
        let mut earlier = lesson(Tokens {
            prompt: 3,
            generation: 1,
        });
        earlier.layers[1][PROMPT] = vec![5, 1];
        let mut later = earlier.clone();
        later.tokens.prompt = 10;
        later.tokens.generation = 5;
        later.layers[1][PROMPT] = vec![5, 4];
        later.layers[0][GENERATION] = vec![1, 0, 2];
        let since = later.since(&earlier);
        let mut expected = lesson(Tokens {
            prompt: 7,
            generation: 4,
        });
        expected.layers[1][PROMPT] = vec![0, 3];
        expected.layers[0][GENERATION] = vec![1, 0, 2];
        assert_eq!(since, expected);
        assert_eq!(later.since(&later), lesson(Tokens::default()));
    }

    #[test]
    #[should_panic(expected = "only added")]
    fn nothing_is_taken_back() {
        let mut earlier = Lesson::new(&[3, 2]);
        earlier.layers[0][PROMPT][1] = 1;
        Lesson::new(&[3, 2]).since(&earlier);
    }

    #[test]
    #[should_panic]
    fn another_shape() {
        profile().learn(&Lesson::new(&[3, 3]));
    }
}
