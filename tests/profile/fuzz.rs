//! Thousands of damaged files: each is refused, or is a profile that can be used and written.

use super::mutant::{Grammar, rng};
use super::random;
use hotset::profile::{Blend, Lesson, Profile, merge, similarity};
use hotset::tracker::Phase;
use std::fs;

const PROFILE: Grammar = Grammar {
    bytes: b" \n,{}[]\"0:-.e\xff\0",
    numbers: &[
        "0",
        "1",
        "2",
        "3",
        "-1",
        "-0",
        "1.5",
        "1e300",
        "1e999",
        "5e-324",
        "9007199254740992",
        "9007199254740993",
        "18446744073709551615",
        "18446744073709551616",
    ],
    end: b',',
};

/// What every profile that was accepted can be used for.
fn is_useful(profile: &Profile) {
    let model = &profile.model;
    assert_eq!(profile.layers.len(), model.n_layers as usize);
    assert!((1..=model.n_experts).contains(&model.top_k));
    for phase in Phase::ALL {
        for layer in &profile.layers {
            let heat = layer.heat(phase);
            assert_eq!(heat.weight.len(), heat.count.len());
            assert!((1..=model.n_experts as usize).contains(&heat.weight.len()));
            assert!(heat.weight.iter().all(|&w| w >= 0.0) && heat.total().is_finite());
        }
        let alike = similarity(profile, profile, phase);
        assert!(alike.is_none_or(|s| s > 0.999_999), "{alike:?}");
    }
    let mixed = Blend::of(&[(profile, 1.0), (profile, 2.0)]);
    let shares = mixed.layers.iter().flatten();
    assert!(
        shares
            .into_iter()
            .all(|share| (0.0..=1.000_001).contains(share))
    );
    let mut merged = merge("merged", &[(profile, 1.0), (profile, 0.5)]).unwrap();
    let n_experts: Vec<u32> = profile
        .layers
        .iter()
        .map(|l| l.prompt.count.len() as u32)
        .collect();
    merged.learn(&Lesson::new(&n_experts));
    let totals = merged.layers.iter().map(|l| l.prompt.total());
    assert!(totals.into_iter().all(f64::is_finite));
}

#[test]
fn damaged_text() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("damaged.json");
    let valid = [random(&[3, 1], 1), random(&[2, 2, 4], 2)];
    let (mut n_accepted, mut n_refused) = (0, 0);
    for (number, profile) in valid.iter().enumerate() {
        is_useful(profile);
        let text = serde_json::to_vec(profile).unwrap();
        for seed in 0..20_000 {
            let mut below = rng(seed * 2 + number as u64);
            let mut damaged = text.clone();
            for _ in 0..1 + below(3) {
                PROFILE.mutate(&mut damaged, &mut below);
            }
            fs::write(&path, &damaged).unwrap();
            match Profile::read(&path) {
                Err(error) => {
                    assert!(error.to_string().contains("damaged.json: "), "{error}");
                    n_refused += 1;
                }
                Ok(profile) => {
                    is_useful(&profile);
                    if n_accepted % 20 == 0 {
                        profile.write(&path).unwrap();
                        assert_eq!(Profile::read(&path).unwrap().tokens, profile.tokens);
                    }
                    n_accepted += 1;
                }
            }
        }
    }
    assert!(
        n_accepted > 2000 && n_refused > 20_000,
        "{n_accepted} and {n_refused}"
    );
}

/// A bit that is flipped in compressed data either does not matter or is found.
#[test]
fn damaged_gzip() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("some.json.gz");
    let profile = random(&[3, 2], 3);
    profile.write(&path).unwrap();
    let whole = fs::read(&path).unwrap();
    let mut n_accepted = 0;
    for bit in 0..8 * whole.len() {
        let mut damaged = whole.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        fs::write(&path, damaged).unwrap();
        if let Ok(read) = Profile::read(&path) {
            assert_eq!(read, profile, "bit {bit}");
            n_accepted += 1;
        }
    }
    // Those of the time, the system and the like in the head of the file.
    assert!(n_accepted < 80, "{n_accepted} bits do not matter");
}
