//! A file that is there already: a run goes on with it, or leaves it as it was; and stops only if it is to start from it.

use super::child::{Ended, completion, polyglot, run};
use super::runner::{Options, Runner, take_hook, tokens};
use super::{Bench, config, counted, text, tiny};
use hotset::config::{Config, ProfileSource};
use hotset::llama;
use hotset::profile::Profile;
use std::path::Path;

/// Computes `n` tokens of the model, which is loaded and freed.
fn compute(model: &Path, n: usize, config: &Config) {
    let _hook = take_hook(Some(config));
    let mut runner = Runner::load(model, Options::default()).expect("the model loads");
    runner.read(&tokens(n, tiny::N_VOCAB));
}

#[test]
fn a_run_goes_on_with_what_is_there() {
    for percent in [None, Some(30.0)] {
        let bench = Bench::new(&tiny::all()[0]);
        let path = bench.file("run.json");
        let config = Config {
            profile_save: Some(path.clone()),
            ..config(percent)
        };
        compute(&bench.model, 5, &config);
        let mut first = Profile::read(&path).unwrap();
        // Seen to be kept, and to fade.
        first.name = "mail".to_string();
        first.created = "2001-02-03T04:05:06Z".to_string();
        first.layers[0].prompt.weight[3] = 8.0;
        first.layers[0].generation.weight[3] = 9e6;
        first.write(&path).unwrap();
        for n_runs in 2..4 {
            compute(&bench.model, 5, &config);
            let profile = Profile::read(&path).unwrap();
            assert_eq!(profile.name, "mail");
            assert_eq!(profile.created, first.created);
            assert!(profile.updated >= first.updated);
            assert_eq!(profile.tokens.generation, 5 * n_runs);
            let once = counted(&first).map(|l| l.concat());
            let times = once.map(|layer| layer.iter().map(|n| n * n_runs).collect::<Vec<_>>());
            assert_eq!(counted(&profile).map(|l| l.concat()), times);
            // Only generation has gone on.
            assert_eq!(profile.layers[0].prompt.weight[3], 8.0);
            assert!(profile.layers[0].generation.weight[3] < 9e6);
        }
    }
}

/// A second model of the process, a draft model for example, has a file of its own, which goes on too.
#[test]
fn each_model_has_a_file_of_its_own() {
    let [bench, other] = [0, 1].map(|i| Bench::new(&tiny::all()[i]));
    let path = bench.file("run.json.gz");
    let config = Config {
        profile_save: Some(path.clone()),
        ..config(Some(30.0))
    };
    for n_runs in 1..3 {
        let _hook = take_hook(Some(&config));
        let load = |path| Runner::load(path, Options::default()).expect("the model loads");
        let (mut a, mut b) = (load(&bench.model), load(&other.model));
        a.read(&tokens(3, tiny::N_VOCAB));
        b.read(&tokens(4, tiny::N_VOCAB));
        drop((a, b));
        let second = Profile::read(&bench.file("run.2.json.gz")).unwrap();
        let first = Profile::read(&path).unwrap();
        assert_eq!(
            [3, 4],
            [&first, &second].map(|p| p.tokens.generation / n_runs)
        );
        assert_eq!([32, 16], [first, second].map(|p| p.model.n_experts));
    }
}

/// A profile of the bundled model, or of a tiny one.
fn profile_of(model: &Path, path: &Path) -> Profile {
    let config = Config {
        profile_save: Some(path.to_path_buf()),
        ..config(Some(30.0))
    };
    compute(model, 3, &config);
    Profile::read(path).unwrap()
}

/// The one line that names the file and the field, of a program that left the file alone.
#[track_caller]
fn assert_refused(ended: &Ended, path: &Path, bytes: &[u8], field: &str) {
    assert_eq!(ended.code(), 2, "{}", ended.stderr);
    let mut lines = ended.said();
    lines.retain(|line| line.contains(text(path)));
    assert_eq!(lines.len(), 1, "{}", ended.stderr);
    assert!(lines[0].contains(field), "{}", lines[0]);
    assert!(ended.stdout.is_empty(), "nothing is computed");
    assert_eq!(std::fs::read(path).unwrap(), bytes);
}

#[test]
fn damaged_files_are_refused_before_the_model_is_loaded() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run.json");
    let good = profile_of(&polyglot(), &path);
    let json = serde_json::to_string(&good).unwrap();
    let cut = &json[..json.len() / 2];
    let top_k = json.replace("\"top_k\":8", "\"top_k\":65");
    let negative = json.replacen("\"weight\":[", "\"weight\":[-1.0,", 1);
    for (damaged, field) in [
        (cut, "EOF"),
        (&*top_k, "model.top_k: 65"),
        (&*negative, "layers[0].prompt.weight"),
        ("", "JSON"),
    ] {
        std::fs::write(&path, damaged).unwrap();
        let vars = [("HOTSET_PROFILE", text(&path)), ("HOTSET_RAM", "30%")];
        let ended = run(completion(&polyglot(), &vars, &["-n", "4"]));
        ended.error_line();
        assert_refused(&ended, &path, damaged.as_bytes(), field);
    }
}

/// Said when the model is known, streamed or not.
#[test]
fn profiles_of_other_models_are_refused() {
    let bench = Bench::new(&tiny::all()[4]);
    let path = bench.file("run.json");
    let mut profile = profile_of(&bench.model, &path);
    let own = Profile::read(&path).unwrap().model;
    let name = "qwen3moe".to_string();
    profile.model = hotset::profile::Fingerprint {
        architecture: name,
        ..own.clone()
    };
    let mut narrow = profile.clone();
    narrow.model = own;
    narrow.layers[1].prompt = hotset::profile::Heat::new(15);
    narrow.layers[1].generation = hotset::profile::Heat::new(15);
    for (profile, field) in [
        (&profile, "model.architecture is qwen3moe"),
        (&narrow, "its layers do not have"),
    ] {
        profile.write(&path).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        let vars = [("HOTSET_PROFILE", text(&path)), ("HOTSET_RAM", "30%")];
        let ended = run(completion(&bench.model, &vars, &["-n", "4"]));
        assert_refused(&ended, &path, &bytes, field);
    }
}

/// In a process that goes on, the next model is not in the way of what was refused.
#[test]
fn a_refused_load_leaves_the_process_sound() {
    let [bench, other] = [0, 1].map(|i| Bench::new(&tiny::all()[i]));
    let path = bench.file("run.json");
    profile_of(&bench.model, &path);
    let config = Config {
        profile: Some(ProfileSource::Files(vec![(path, 1.0)])),
        ..config(Some(30.0))
    };
    let _hook = take_hook(Some(&config));
    assert!(Runner::load(&other.model, Options::default()).is_none());
    assert_eq!(llama::stats().len(), 0);
    let mut runner = Runner::load(&bench.model, Options::default()).expect("the model loads");
    runner.read(&tokens(3, tiny::N_VOCAB));
    assert_eq!(llama::stats().len(), 1);
}
