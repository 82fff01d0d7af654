//! Profiles of runs with llama.cpp: they are what was routed, they change no bit of the output, and what
//! is wrong with one is said before anything is computed.

#![cfg(all(feature = "llama", feature = "cli"))]

mod auto;
#[path = "../child/mod.rs"]
mod child;
mod kept;
mod killed;
mod learning;
mod output;
mod programs;
mod record;
#[path = "../runner/mod.rs"]
mod runner;
#[path = "../serving/mod.rs"]
mod serving;
mod shared;
mod sleeping;
#[path = "../tiny/mod.rs"]
mod tiny;

use hotset::config::{Config, Ram, StatsTo};
use hotset::profile::Profile;
use hotset::tracker::Phase;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// A folder with one model and room for profiles.
struct Bench {
    dir: TempDir,
    model: PathBuf,
}

impl Bench {
    fn new(spec: &tiny::Spec) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let model = tiny::write(spec, dir.path());
        Self { dir, model }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

/// Streams this share of the experts, or none of them.
fn config(percent: Option<f64>) -> Config {
    Config {
        ram: percent.map(Ram::Percent),
        stats: StatsTo::Off,
        // A guess that is right is a hit, and how many there are depends on time.
        prefetch: false,
        ..Config::default()
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Picks of each expert, by [`Phase`] and layer.
type Picks = [Vec<Vec<u64>>; 2];

/// What a profile has counted.
fn counted(profile: &Profile) -> Picks {
    let of = |phase| {
        let layers = profile.layers.iter();
        layers.map(|l| l.heat(phase).count.clone()).collect()
    };
    Phase::ALL.map(of)
}

/// A profile with the same picks of everything, so that any text is unlike it, but for the experts
/// `is_hot` chooses.
fn made_up(like: &Profile, is_hot: impl Fn(usize) -> bool) -> Profile {
    let mut profile = like.clone();
    for layer in &mut profile.layers {
        for phase in Phase::ALL {
            let heat = layer.heat_mut(phase);
            for (expert, weight) in heat.weight.iter_mut().enumerate() {
                *weight = if is_hot(expert) { 100.0 } else { 1.0 };
            }
        }
    }
    profile
}
