//! Profiles mixed with one another.

use super::format;
use super::format::{Fingerprint, Heat, Profile};
use crate::error::{Error, Result};
use crate::tracker::Phase;

/// How often a token of a mix of workloads picks each expert.
#[derive(Debug, Clone, PartialEq)]
pub struct Blend {
    /// By layer and expert, each 0 to 1.
    pub layers: Vec<Vec<f32>>,
}

impl Blend {
    /// Mixes what `parts` pick while they generate (what their prompts pick in layers where they never have
    /// generated), each with its weight.
    ///
    /// A layer that no part knows is flat. Panics if there are no parts, if they are of different shapes, or if a
    /// weight is negative or not a number.
    pub fn of(parts: &[(&Profile, f64)]) -> Self {
        let (first, _) = parts.first().expect("a blend has parts");
        for (part, weight) in parts {
            assert!(weight.is_finite() && *weight >= 0.0, "a weight of {weight}");
            assert_eq!(part.n_experts(), first.n_experts());
        }
        let layer = |number| layer(parts, number);
        Self {
            layers: (0..first.layers.len()).map(layer).collect(),
        }
    }
}

fn layer(parts: &[(&Profile, f64)], number: usize) -> Vec<f32> {
    let (first, _) = parts[0];
    let n_experts = first.layers[number].generation.weight.len();
    let mut sum = vec![0.0; n_experts];
    let mut sum_weights = 0.0;
    for (part, weight) in parts {
        let layer = &part.layers[number];
        let heat = match layer.generation.total() > 0.0 {
            true => &layer.generation,
            false => &layer.prompt,
        };
        let total = heat.total();
        if total > 0.0 {
            sum_weights += weight;
            let scale = f64::from(part.model.top_k) / total;
            for (sum, picks) in sum.iter_mut().zip(&heat.weight) {
                *sum += weight * (picks * scale).min(1.0);
            }
        }
    }
    if sum_weights == 0.0 {
        let flat = f64::from(first.model.top_k) / n_experts as f64;
        return vec![flat.min(1.0) as f32; n_experts];
    }
    sum.iter().map(|sum| (sum / sum_weights) as f32).collect()
}

/// The profile `name` of all that `parts` know.
///
/// Counts and tokens add up. In the weights, each part has its share of each layer, however much it has seen, and
/// together they weigh as much as before. Panics if there are no parts or if a weight is negative or not a number.
///
/// Errors: [`Error::Setting`] if the parts are not of one model.
pub fn merge(name: &str, parts: &[(&Profile, f64)]) -> Result<Profile> {
    let (first, _) = parts.first().expect("a merged profile has parts");
    let mut merged = Profile::new(name, first.model.clone(), &first.n_experts());
    merged.created.clone_from(&first.created);
    for (part, weight) in parts {
        assert!(weight.is_finite() && *weight >= 0.0, "a weight of {weight}");
        check_same(first, part)?;
        complete(&mut merged.model, &part.model);
        merged.created = part.created.clone().min(merged.created);
        for phase in Phase::ALL {
            let n_tokens = merged.tokens.of_mut(phase);
            *n_tokens = n_tokens.saturating_add(part.tokens.of(phase));
        }
    }
    for phase in Phase::ALL {
        for (number, layer) in merged.layers.iter_mut().enumerate() {
            let heats = parts
                .iter()
                .map(|(part, weight)| (part.layers[number].heat(phase), *weight));
            add_up(heats, layer.heat_mut(phase));
        }
    }
    merged.updated = format::now();
    Ok(merged)
}

/// Merges the heats of a layer into `merged`, which is empty.
fn add_up<'a>(parts: impl Iterator<Item = (&'a Heat, f64)>, merged: &mut Heat) {
    let (mut sum_totals, mut sum_weights) = (0.0, 0.0);
    for (heat, weight) in parts {
        for (sum, &count) in merged.count.iter_mut().zip(&heat.count) {
            *sum = sum.saturating_add(count);
        }
        let total = heat.total();
        if total > 0.0 {
            sum_totals += total;
            sum_weights += weight;
            for (sum, picks) in merged.weight.iter_mut().zip(&heat.weight) {
                *sum += weight * (picks / total);
            }
        }
    }
    // Where all that is known weighs nothing, so does the result.
    if sum_weights > 0.0 {
        // In this order, so that a tiny sum of weights does not overflow.
        for sum in &mut merged.weight {
            *sum = *sum / sum_weights * sum_totals;
        }
    }
}

fn check_same(first: &Profile, other: &Profile) -> Result<()> {
    let why = match first.model.difference(&other.model) {
        Some(difference) => difference,
        None if first.n_experts() != other.n_experts() => {
            "its layers differ in their experts".to_string()
        }
        None => return Ok(()),
    };
    Err(Error::Mismatch {
        profile: first.name.clone(),
        why: format!(
            "its model {} is not {}, the model of the profile {}: {why}",
            full_name(&first.model),
            full_name(&other.model),
            other.name
        ),
    })
}

fn full_name(model: &Fingerprint) -> String {
    format!("{:?} ({})", model.name, model.architecture)
}

/// Takes what `known` does not say, as a profile of an importance matrix may not, from `other`.
fn complete(known: &mut Fingerprint, other: &Fingerprint) {
    for (known, other) in [
        (&mut known.architecture, &other.architecture),
        (&mut known.name, &other.name),
    ] {
        if known.is_empty() {
            known.clone_from(other);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model() -> Fingerprint {
        Fingerprint {
            architecture: "test".to_string(),
            name: "Small".to_string(),
            n_layers: 2,
            n_experts: 4,
            top_k: 2,
        }
    }

    /// Knows these weights of the first layer and nothing of the second, which has 2 experts.
    fn profile(prompt: [f64; 4], generation: [f64; 4]) -> Profile {
        let mut profile = Profile::new("part", model(), &[4, 2]);
        profile.layers[0].prompt.weight = prompt.to_vec();
        profile.layers[0].generation.weight = generation.to_vec();
        profile
    }

    #[test]
    fn a_blend_is_a_share_of_tokens() {
        let nothing = [0.0; 4];
        // Of 2 picks a token, in fours: more than one a token is one.
        let a = profile([9.0, 9.0, 9.0, 9.0], [1.0, 2.0, 0.0, 5.0]);
        let prompts = profile([0.0, 3.0, 3.0, 0.0], nothing);
        let unknown = profile(nothing, nothing);
        let of = |parts: &[(&Profile, f64)]| Blend::of(parts).layers[0].clone();
        assert_eq!(of(&[(&a, 0.1)]), [0.25, 0.5, 0.0, 1.0]);
        assert_eq!(of(&[(&prompts, 1.0)]), [0.0, 1.0, 1.0, 0.0]);
        assert_eq!(
            of(&[(&a, 3.0), (&prompts, 1.0)]),
            [0.1875, 0.625, 0.25, 0.75]
        );
        assert_eq!(of(&[(&a, 1.0), (&unknown, 5.0)]), [0.25, 0.5, 0.0, 1.0]);
        assert_eq!(of(&[(&unknown, 5.0), (&a, 0.0)]), [0.5; 4]);
        assert_eq!(Blend::of(&[(&a, 1.0)]).layers[1], [1.0; 2]);
    }

    #[test]
    #[should_panic(expected = "has parts")]
    fn a_blend_of_nothing() {
        Blend::of(&[]);
    }

    #[test]
    #[should_panic]
    fn a_blend_of_two_shapes() {
        let a = profile([1.0; 4], [1.0; 4]);
        Blend::of(&[(&a, 1.0), (&Profile::new("b", model(), &[4, 3]), 1.0)]);
    }

    #[test]
    fn a_long_recording_does_not_drown_a_short_one() {
        let mut long = profile([0.0; 4], [300.0, 100.0, 0.0, 0.0]);
        let mut short = profile([8.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 4.0]);
        long.created = "2026-02-01T00:00:00Z".to_string();
        short.created = "2025-12-01T00:00:00Z".to_string();
        long.tokens.generation = 200;
        short.tokens.generation = 2;
        short.tokens.prompt = 5;
        long.layers[0].generation.count = vec![301, 100, 7, 0];
        short.layers[0].generation.count = vec![0, 0, 1, 4];
        short.layers[0].prompt.count = vec![8, 0, 0, 2];
        let merged = merge("both", &[(&long, 1.0), (&short, 3.0)]).unwrap();
        assert_eq!(merged.name, "both");
        assert_eq!(merged.created, "2025-12-01T00:00:00Z");
        assert!(merged.updated > long.created, "{}", merged.updated);
        assert_eq!((merged.tokens.prompt, merged.tokens.generation), (5, 202));
        let layer = &merged.layers[0];
        // A quarter of 404 is shared out as the long one does, the rest as the short one does.
        assert_eq!(layer.generation.weight, [75.75, 25.25, 0.0, 303.0]);
        assert_eq!(layer.generation.count, [301, 100, 8, 4]);
        assert_eq!(layer.prompt.weight, [8.0, 0.0, 0.0, 0.0]);
        assert_eq!(layer.prompt.count, [8, 0, 0, 2]);
        assert_eq!(merged.layers[1].generation, Heat::new(2));
    }

    #[test]
    fn a_part_of_no_weight_adds_only_counts() {
        let known = profile([1.0; 4], [2.0, 0.0, 0.0, 0.0]);
        let mut other = profile([0.0; 4], [0.0, 6.0, 0.0, 0.0]);
        other.layers[0].generation.count = vec![1, 2, 3, 4];
        let merged = merge("both", &[(&known, 1.0), (&other, 0.0)]).unwrap();
        assert_eq!(merged.layers[0].generation.weight, [8.0, 0.0, 0.0, 0.0]);
        assert_eq!(merged.layers[0].generation.count, [1, 2, 3, 4]);
    }

    #[test]
    fn parts_of_two_models_are_refused() {
        let a = profile([1.0; 4], [1.0; 4]);
        let mut b = a.clone();
        b.name = "other".to_string();
        b.model.name = "Large".to_string();
        let error = |b: &Profile| merge("both", &[(&a, 1.0), (b, 1.0)]).unwrap_err();
        let text = error(&b).to_string();
        for part in ["profile=part", "Small", "other", "Large", "model.name"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        b = Profile::new("other", model(), &[4, 3]);
        assert!(error(&b).to_string().contains("differ in their experts"));
    }

    #[test]
    fn what_one_part_does_not_say_of_the_model_another_may() {
        let a = profile([1.0; 4], [1.0; 4]);
        let mut b = a.clone();
        b.model.architecture = String::new();
        b.model.name = String::new();
        for parts in [[(&a, 1.0), (&b, 1.0)], [(&b, 1.0), (&a, 1.0)]] {
            assert_eq!(merge("both", &parts).unwrap().model, model());
        }
    }
}
