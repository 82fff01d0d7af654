//! What a process has learnt of models that were freed, for those that come back: a server that sleeps frees its model.

use super::format::{PRIOR_TOKENS, Profile};
use super::learn::Lesson;
use super::learner::ModelLayers;
use crate::tracker::Phase;

/// Models that are remembered. A profile of 100 layers of 512 experts takes 1.6 MiB.
const N_MODELS_MAX: usize = 8;
/// What people read that it is.
const NAME: &str = "this run";

/// Profiles of what was learnt in this process, one for each model. The one that was learnt from last is the last.
#[derive(Debug, Default)]
pub struct Memory(Vec<Profile>);

impl Memory {
    /// The model is freed: `lesson` is all that it has picked since it was loaded, by layer of the engine.
    pub fn learn(&mut self, layers_of_model: &ModelLayers, lesson: &Lesson) {
        if Phase::ALL.iter().all(|&phase| lesson.tokens.of(phase) == 0) {
            return;
        }
        let at = self.position(layers_of_model);
        let mut profile = match at {
            Some(at) => self.0.remove(at),
            None => Profile::new(
                NAME,
                layers_of_model.model.clone(),
                &layers_of_model.n_experts,
            ),
        };
        profile.learn(&layers_of_model.whole(lesson));
        self.0.push(profile);
        if self.0.len() > N_MODELS_MAX {
            self.0.remove(0);
        }
    }

    /// What was learnt of this model.
    pub fn of(&self, layers_of_model: &ModelLayers) -> Option<&Profile> {
        self.position(layers_of_model).map(|at| &self.0[at])
    }

    fn position(&self, layers_of_model: &ModelLayers) -> Option<usize> {
        let is_it = |profile: &Profile| {
            profile.model == layers_of_model.model
                && profile.n_experts() == layers_of_model.n_experts
        };
        self.0.iter().position(is_it)
    }
}

/// What such a profile weighs beside others of this weight together: what those say is worth [`PRIOR_TOKENS`], and this
/// was seen.
pub fn weight_beside(profile: &Profile, others: f64) -> f64 {
    let n_tokens: u64 = Phase::ALL.iter().map(|&p| profile.tokens.of(p)).sum();
    others * n_tokens as f64 / f64::from(PRIOR_TOKENS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::Fingerprint;

    fn layers(name: &str, n_experts: u32) -> ModelLayers {
        ModelLayers {
            model: Fingerprint {
                architecture: "test".to_string(),
                name: name.to_string(),
                n_layers: 2,
                n_experts,
                top_k: 1,
            },
            n_experts: vec![n_experts; 2],
            // The engine has the second layer only.
            numbers: vec![1],
        }
    }

    fn lesson(n_tokens: u64, n_experts: usize) -> Lesson {
        let mut lesson = Lesson::new(&[n_experts as u32]);
        lesson.tokens.generation = n_tokens;
        lesson.layers[0][Phase::Decode as usize][2] = n_tokens;
        lesson
    }

    #[test]
    fn a_model_that_comes_back_goes_on() {
        let mut memory = Memory::default();
        let [a, b] = [layers("a", 3), layers("b", 3)];
        assert!(memory.of(&a).is_none());
        memory.learn(&a, &lesson(0, 3));
        assert!(memory.of(&a).is_none(), "nothing was computed");
        for n_tokens in [5, 7] {
            memory.learn(&a, &lesson(n_tokens, 3));
        }
        let learnt = memory.of(&a).unwrap();
        assert_eq!(learnt.tokens.generation, 12);
        assert_eq!(learnt.layers[1].generation.count, [0, 0, 12]);
        assert_eq!(learnt.layers[0].generation.count, [0; 3]);
        assert!(memory.of(&b).is_none() && memory.of(&layers("a", 4)).is_none());
        assert_eq!(weight_beside(learnt, 2.0), 2.0 * 12.0 / 64.0);
    }

    /// The one of which nothing was heard for longest is forgotten.
    #[test]
    fn few_models_are_remembered() {
        let mut memory = Memory::default();
        let all: Vec<_> = (0..30).map(|n| layers(&n.to_string(), 3)).collect();
        for layers in &all {
            memory.learn(layers, &lesson(1, 3));
            memory.learn(&all[0], &lesson(1, 3));
        }
        let known = all.iter().map(|layers| memory.of(layers).is_some());
        let known: Vec<_> = known.collect();
        assert_eq!(known.iter().filter(|k| **k).count(), N_MODELS_MAX);
        assert!(known[0] && known[29] && !known[1], "{known:?}");
    }
}
