//! A file that others write, too: what is no profile of the model is left alone, and several processes that learn into
//! one file all count.

use super::child::{Ended, completion, polyglot, run};
use super::runner::{Options, Runner, take_hook, tokens};
use super::{Bench, config, text, tiny};
use hotset::config::Config;
use hotset::profile::{Heat, Profile};
use std::path::Path;

/// The text of a run that learns into `path`.
fn learn(model: &Path, ram: &str, path: &Path) -> Ended {
    let vars = [("HOTSET_PROFILE_SAVE", text(path)), ("HOTSET_RAM", ram)];
    run(completion(model, &vars, &["-n", "4"]))
}

fn names(path: &Path) -> Vec<String> {
    let entries = path.parent().unwrap().read_dir().unwrap();
    let names = entries.map(|e| e.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.filter(|name| name.contains(".json")).collect();
    names.sort();
    names
}

/// What is not a profile of the model: the run computes what it always does, says one line, and learns beside it.
#[test]
fn what_is_no_profile_of_the_model_is_left_alone() {
    let bench = Bench::new(&tiny::all()[4]);
    let path = bench.file("run.json");
    let stock = run(completion(&bench.model, &[("HOTSET", "off")], &["-n", "4"]));
    learn(&bench.model, "30%", &path).text();
    let own = Profile::read(&path).unwrap();
    let json = serde_json::to_string(&own).unwrap();
    let changed = |change: fn(&mut Profile)| {
        let mut profile = own.clone();
        change(&mut profile);
        serde_json::to_string(&profile).unwrap()
    };
    let cases = [
        (
            changed(|p| p.model.architecture = "qwen3moe".to_string()),
            "architecture is qwen3moe",
        ),
        (changed(|p| p.model.top_k += 1), "model.top_k"),
        (
            changed(|p| {
                p.layers.pop();
                p.model.n_layers -= 1;
            }),
            "model.n_layers",
        ),
        (
            changed(|p| {
                p.layers[1].prompt = Heat::new(15);
                p.layers[1].generation = Heat::new(15);
            }),
            "its layers do not have",
        ),
        (json.replace("\"version\":1", "\"version\":9"), "version: 9"),
        (json[..json.len() / 2].to_string(), "EOF"),
        ("some other text".to_string(), "not a JSON object"),
    ];
    // Streamed and loaded as usual by turns.
    for ((old, why), ram) in cases.into_iter().zip(["30%", ""].into_iter().cycle()) {
        std::fs::write(&path, &old).unwrap();
        let mut beside = None;
        // The second run goes on with what the first has begun.
        for n_runs in 1..3 {
            let ended = learn(&bench.model, ram, &path);
            assert_eq!(ended.text(), stock.text(), "{why}");
            let mut lines = ended.said();
            lines.retain(|line| line.contains(text(&path)));
            assert_eq!(lines.len(), 1, "{}", ended.stderr);
            assert!(
                lines[0].contains(why) && lines[0].contains("left alone"),
                "{}",
                lines[0]
            );
            assert_eq!(std::fs::read_to_string(&path).unwrap(), old, "{why}");
            let found = names(&path);
            assert_eq!(found.len(), 2, "{found:?}");
            let name = found.iter().find(|name| *name != "run.json").unwrap();
            assert!(
                lines[0].ends_with(&*bench.file(name).to_string_lossy()),
                "{}",
                lines[0]
            );
            let profile = Profile::read(&bench.file(name)).unwrap();
            assert_eq!(profile.model, own.model);
            assert_eq!(profile.tokens.generation, n_runs * own.tokens.generation);
            beside = Some(bench.file(name));
        }
        std::fs::remove_file(beside.unwrap()).unwrap();
    }
}

/// Neither the name of a model with a name nor an own file that is damaged is in the way.
#[test]
fn there_is_always_another_name() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("chat.json");
    let beside = |name: &str| dir.path().join(name);
    for name in ["chat.json", "chat.polyglot-moe.json"] {
        std::fs::write(beside(name), "something else").unwrap();
    }
    learn(&polyglot(), "30%", &path).text();
    let found = names(&path);
    assert_eq!(
        found,
        [
            "chat.json",
            "chat.polyglot-moe.2.json",
            "chat.polyglot-moe.json"
        ]
    );
    Profile::read(&beside("chat.polyglot-moe.2.json")).unwrap();
    for name in ["chat.json", "chat.polyglot-moe.json"] {
        assert_eq!(std::fs::read(beside(name)).unwrap(), b"something else");
    }
}

#[test]
fn an_empty_file_is_begun() {
    let bench = Bench::new(&tiny::all()[0]);
    let path = bench.file("run.json");
    std::fs::write(&path, "").unwrap();
    let ended = learn(&bench.model, "30%", &path);
    ended.text();
    let lines = ended.stderr.lines().filter(|l| l.contains("it is empty"));
    assert_eq!(lines.count(), 1, "{}", ended.stderr);
    Profile::read(&path).unwrap();
    assert_eq!(names(&path), ["run.json"]);
}

/// One of them is loaded before and freed after the other. Neither saves what the other has learnt away.
#[test]
fn processes_that_learn_into_one_file_all_count() {
    let bench = Bench::new(&tiny::all()[0]);
    let path = bench.file("run.json");
    let config = Config {
        profile_save: Some(path.clone()),
        ..config(Some(30.0))
    };
    let n_tokens = || {
        let tokens = Profile::read(&path).unwrap().tokens;
        tokens.generation + tokens.prompt
    };
    let _hook = take_hook(Some(&config));
    let mut runner = Runner::load(&bench.model, Options::default()).expect("the model loads");
    runner.read(&tokens(5, tiny::N_VOCAB));
    learn(&bench.model, "30%", &path).text();
    let n_others = n_tokens();
    assert!(n_others > 5);
    drop(runner);
    assert_eq!(n_tokens(), n_others + 5);

    // What is put there meanwhile stays, and so does what is learnt.
    let mut runner = Runner::load(&bench.model, Options::default()).expect("the model loads");
    runner.read(&tokens(7, tiny::N_VOCAB));
    std::fs::write(&path, "something else").unwrap();
    drop(runner);
    assert_eq!(std::fs::read(&path).unwrap(), b"something else");
    let found = names(&path);
    assert_eq!(found.len(), 2, "{found:?}");
    let own = found.iter().find(|name| *name != "run.json").unwrap();
    let own = Profile::read(&bench.file(own)).unwrap().tokens;
    assert_eq!(own.generation + own.prompt, n_others + 5 + 7);
}
