//! What profiles and caches have to do with one another: a profile learns from a cache, which starts as profiles
//! say, and recognises which one the workload is like.
//!
//! The layers of a profile are those layers of the cache that have experts.

use super::expert_cache::{Cache, sizes};
use crate::error::{Error, Result};
use crate::expert::ExpertId;
use crate::profile::recognizer::{Known, Recognizer};
use crate::profile::{
    self, Blend, Chooser, Fingerprint, Lesson, NAME_BYTES_MAX, PRIOR_TOKENS, Profile, Verdict,
    WEIGHT_MAX,
};
use crate::trace::Header;
use crate::tracker::Phase;

impl Cache {
    /// Adds to `profile` what committed plans have picked since the last call, whatever profile that
    /// was for.
    ///
    /// Errors, as of all functions here, change nothing: [`Error::Mismatch`] for a profile of another model,
    /// [`Error::State`] for a call that comes too early, [`Error::Setting`].
    pub fn learn_into(&mut self, profile: &mut Profile) -> Result<()> {
        self.check_fits(profile)?;
        let whole = self.lesson();
        if whole != self.learnt {
            profile.learn(&whole.since(&self.learnt));
            self.learnt = whole;
        }
        Ok(())
    }

    /// As [`Cache::prime`], with a mix of profiles: each has a weight, above 0 and at most 1000.
    pub fn prime_with(&mut self, parts: &[(&Profile, f64)]) -> Result<()> {
        check_weights(parts)?;
        let profiles: Vec<_> = parts.iter().map(|(profile, _)| *profile).collect();
        self.check_all_fit(&profiles)?;
        self.prime(&Blend::of(parts).layers.concat(), PRIOR_TOKENS)
    }

    /// Makes the experts that the latest prior has hottest resident in free slots, `n_max` at most.
    /// Returns them with their slots, hottest first: all these are to be read before the next plan.
    /// Not while a plan waits to be committed.
    pub fn warm(&mut self, n_max: usize) -> Result<Vec<(ExpertId, u32)>> {
        self.check_idle()?;
        let Some(prior) = &self.prior else {
            let why = "prior=none: nothing is known of the workload before it is primed";
            return Err(Error::State(why.to_string()));
        };
        let residency = &mut self.pools[0].residency;
        let shape = residency.shape();
        let is_absent = |&index: &usize| !residency.is_resident(shape.id(index));
        let order = residency.hottest_first(|id| prior[shape.index(id)]);
        let order: Vec<usize> = order.into_iter().filter(is_absent).take(n_max).collect();
        Ok(residency.fill_free(order))
    }

    /// From now on recognises which of `profiles` the committed plans are like, and primes the policy
    /// with it, again whenever that changes. Takes the place of an earlier call.
    pub fn follow(&mut self, profiles: &[&Profile]) -> Result<()> {
        self.check_all_fit(profiles)?;
        let sizes: Vec<u32> = self.n_experts_by_layer().collect();
        let known = profiles.iter().map(|profile| {
            let mut layers = Blend::of(&[(*profile, 1.0)]).layers.into_iter();
            // A layer without experts is in no profile.
            let of_layer = |&n: &u32| match n {
                0 => Vec::new(),
                _ => layers.next().unwrap_or_default(),
            };
            Known {
                name: profile.name.clone(),
                frequency: sizes.iter().map(of_layer).collect(),
                n_tokens: PRIOR_TOKENS,
            }
        });
        let numbers = sizes.iter().scan(0, |next, &n| {
            *next += usize::from(n > 0);
            Some(*next - usize::from(n > 0))
        });
        let recognizer =
            Recognizer::new(Chooser::new(profiles), known.collect(), numbers.collect());
        self.pools.recognize_with(Some(recognizer));
        Ok(())
    }

    /// What was recognised last, if anything was. An error unless profiles are followed.
    pub fn followed(&self) -> Result<Option<Verdict>> {
        match self.pools.recognizer() {
            Some(recognizer) => Ok(recognizer.verdict()),
            None => Err(Error::State(
                "n_profiles=0: no profiles are followed".to_string(),
            )),
        }
    }

    /// All that committed plans have picked.
    fn lesson(&self) -> Lesson {
        let all: Vec<u32> = self.n_experts_by_layer().collect();
        let mut lesson = Lesson::new(&sizes(&all));
        let layers = (0..).zip(all).filter(|(_, n)| *n > 0);
        for ((layer, n_experts), picks) in layers.zip(&mut lesson.layers) {
            for phase in Phase::ALL {
                let picks_of = |expert| {
                    let id = ExpertId { layer, expert };
                    self.pools[0].tracker.usage(phase, id).n_tokens
                };
                picks[phase as usize] = (0..n_experts).map(picks_of).collect();
                // Layers may have seen different numbers of tokens, the last one of a model does.
                let n_tokens = lesson.tokens.of_mut(phase);
                *n_tokens = (*n_tokens).max(self.pools[0].tracker.n_tokens(phase, layer));
            }
        }
        lesson
    }

    fn n_experts_by_layer(&self) -> impl Iterator<Item = u32> {
        let shape = self.pools[0].residency.shape();
        (0..shape.n_layers()).map(|layer| shape.n_experts(layer))
    }

    fn check_fits(&self, profile: &Profile) -> Result<()> {
        let all: Vec<u32> = self.n_experts_by_layer().collect();
        let (of_cache, of_profile) = (sizes(&all), profile.n_experts());
        match of_cache == of_profile {
            true => Ok(()),
            false => Err(Error::Mismatch {
                profile: profile.name.clone(),
                why: "its layers do not have the cache's numbers of experts".to_string(),
            }),
        }
    }

    /// Whether there are profiles, all of them of one model, which can be the cache's.
    fn check_all_fit(&self, profiles: &[&Profile]) -> Result<()> {
        check_any(profiles)?;
        for profile in profiles {
            self.check_fits(profile)?;
            check_same(profiles[0], profile)?;
        }
        Ok(())
    }
}

/// A profile that knows nothing yet, of the workload `name`, on a model whose layers have so many
/// experts. Those that have none are left out.
pub fn begin_profile(
    name: &str,
    architecture: &str,
    model_name: &str,
    n_experts: &[u32],
    top_k: u32,
) -> Result<Profile> {
    check_name(name)?;
    let n_total: u64 = n_experts.iter().map(|&n| u64::from(n)).sum();
    let n_total_max = Header::N_TOTAL_MAX;
    if !(1..=n_total_max.into()).contains(&n_total) {
        let allowed = format!("1 to {n_total_max} in all");
        return Err(Error::setting("n_experts", n_total, allowed));
    }
    let n_max = n_experts.iter().copied().max().unwrap_or(0);
    if !(1..=n_max).contains(&top_k) {
        let allowed = format!("must be in 1..={n_max}, the experts of a layer");
        return Err(Error::setting("top_k", top_k, allowed));
    }
    let sizes = sizes(n_experts);
    let model = Fingerprint {
        architecture: architecture.to_string(),
        name: model_name.to_string(),
        n_layers: sizes.len() as u32,
        n_experts: n_max,
        top_k,
    };
    Ok(Profile::new(name, model, &sizes))
}

/// [`profile::merge`], for parts and weights that may be wrong.
pub fn merge_profiles(name: &str, parts: &[(&Profile, f64)]) -> Result<Profile> {
    check_name(name)?;
    check_any(parts)?;
    check_weights(parts)?;
    profile::merge(name, parts)
}

/// [`profile::similarity`], for profiles that may be of different models or know nothing.
pub fn profile_similarity(a: &Profile, b: &Profile, phase: Phase) -> Result<f64> {
    check_same(a, b)?;
    profile::similarity(a, b, phase).ok_or_else(|| {
        let (a, b) = (&a.name, &b.name);
        Error::State(format!(
            "profile={a}: there is no layer where {b} knows it too"
        ))
    })
}

fn check_name(name: &str) -> Result<()> {
    if (1..=NAME_BYTES_MAX).contains(&name.len()) && !name.contains(char::is_control) {
        return Ok(());
    }
    let allowed = format!("must have 1 to {NAME_BYTES_MAX} bytes and no control characters");
    Err(Error::setting("name", name.escape_debug(), allowed))
}

fn check_any<T>(profiles: &[T]) -> Result<()> {
    match profiles.is_empty() {
        true => Err(Error::setting(
            "n_profiles",
            0,
            "must be at least 1".to_string(),
        )),
        false => Ok(()),
    }
}

fn check_weights(parts: &[(&Profile, f64)]) -> Result<()> {
    // Not a number is in no range.
    let is_wrong = |weight: f64| !(weight > 0.0 && weight <= WEIGHT_MAX);
    match parts.iter().find(|(_, weight)| is_wrong(*weight)) {
        Some((profile, weight)) => {
            let allowed = format!(
                "the weight of {} must be above 0 and at most {WEIGHT_MAX}",
                profile.name
            );
            Err(Error::setting("weight", weight, allowed))
        }
        None => Ok(()),
    }
}

fn check_same(first: &Profile, other: &Profile) -> Result<()> {
    let why = match first.model.difference(&other.model) {
        Some(why) => why,
        None if first.n_experts() != other.n_experts() => {
            "its layers differ in their experts".to_string()
        }
        None => return Ok(()),
    };
    Err(Error::Mismatch {
        profile: first.name.clone(),
        why: format!("is not of the model of the profile {}: {why}", other.name),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cache_without_news_leaves_a_profile_as_it_is() {
        let mut cache = Cache::new(&[0, 8], None, 8, "lru").unwrap();
        let mut profile = begin_profile("test", "", "", &[8], 1).unwrap();
        profile.updated = "long ago".to_string();
        cache.learn_into(&mut profile).unwrap();
        assert_eq!(profile.updated, "long ago");
        cache.plan(1, 1, &[3], &mut []).unwrap();
        cache.commit();
        cache.learn_into(&mut profile).unwrap();
        assert_ne!(profile.updated, "long ago");
        assert_eq!(profile.layers[0].generation.count[3], 1);
    }

    /// As the last layer of a model often has fewer: the outputs that nobody wants are left out.
    #[test]
    fn a_lesson_has_the_tokens_of_the_layer_that_saw_most() {
        let mut cache = Cache::new(&[8, 8], None, 8, "lru").unwrap();
        for (layer, n_tokens) in [(0, 40), (1, 1), (0, 3), (1, 1)] {
            cache.plan(layer, n_tokens, &[3], &mut []).unwrap();
            cache.commit();
        }
        let tokens = cache.lesson().tokens;
        assert_eq!((tokens.prompt, tokens.generation), (40, 3));
    }
}
