//! `hotset profile record`: a text is read with the model, and its profile has each of its tokens.

use super::child::{Ended, command, polyglot, run};
use super::{Bench, text, tiny};
use hotset::profile::Profile;
use hotset::tracker::Phase;
use std::path::Path;

fn record(model: &Path, file: &Path, out: &Path, args: &[&str]) -> Ended {
    let mut command = command(env!("CARGO_BIN_EXE_hotset"), &[]);
    command.args(["profile", "record", "--name", "mail"]);
    command.arg("--model").arg(model).arg("--file").arg(file);
    run({
        command.arg("--out").arg(out).args(args);
        command
    })
}

/// A tiny model's tokens are bytes, since no two of these are ever joined: so a text has as many tokens
/// as this says.
fn bytes(n: usize) -> String {
    "XYZ".chars().cycle().take(n).collect()
}

/// One batch; batches and windows of which the last would be short enough to look like generation.
#[test]
fn every_token_is_counted_in_every_layer() {
    let bench = Bench::new(&tiny::all()[4]);
    let (file, out) = (bench.file("a.txt"), bench.file("a.json"));
    for n in [33, 256, 257, 500, 2048 + 5, 2 * 2048 + 256 + 1] {
        std::fs::write(&file, bytes(n)).unwrap();
        for (phase, n_prompt, n_generated) in
            [("prompt", n, 0), ("generation", 0, n), ("both", n, n)]
        {
            let ended = record(&bench.model, &file, &out, &["--force", "--as", phase]);
            let said = format!("{}: {n} tokens of {}\n", out.display(), file.display());
            assert_eq!(ended.text(), said);
            let profile = Profile::read(&out).unwrap();
            assert_eq!(profile.name, "mail");
            assert_eq!(profile.layers.len(), 3, "one of four layers has no experts");
            for (phase, n) in [(Phase::Prefill, n_prompt), (Phase::Decode, n_generated)] {
                assert_eq!(profile.tokens.of(phase), n as u64);
                for layer in &profile.layers {
                    let n_picks: u64 = layer.heat(phase).count.iter().sum();
                    assert_eq!(n_picks, 4 * n as u64, "{n} tokens, {phase:?}");
                }
            }
        }
    }
}

/// The budget decides where experts are, not what is picked.
#[test]
fn the_bundled_model_with_any_budget() {
    let dir = tempfile::tempdir().unwrap();
    let [file, out] = ["a.txt", "a.json.gz"].map(|name| dir.path().join(name));
    std::fs::write(&file, super::child::PROMPT.repeat(3)).unwrap();
    let mut counts = Vec::new();
    for ram in ["20%", "auto"] {
        record(&polyglot(), &file, &out, &["--force", "--ram", ram]).text();
        let profile = Profile::read(&out).unwrap();
        assert_eq!(profile.model.name, "polyglot-moe");
        let [generation, prompts] = super::counted(&profile);
        let n_picks = prompts.iter().map(|layer| layer.iter().sum::<u64>());
        assert_eq!(n_picks.collect::<Vec<_>>(), [8 * profile.tokens.prompt; 6]);
        assert_eq!(generation, prompts, "as both");
        counts.push(prompts);
    }
    assert_eq!(counts[0], counts[1]);
}

#[test]
fn what_is_wrong_is_refused() {
    let bench = Bench::new(&tiny::all()[0]);
    let [short, file, out] = ["short.txt", "a.txt", "a.json"].map(|name| bench.file(name));
    std::fs::write(&short, bytes(32)).unwrap();
    std::fs::write(&file, bytes(40)).unwrap();
    let dense = Bench::new(&tiny::dense());
    let no = bench.file("no");
    for (model, file, args, why) in [
        (&bench.model, &no, &[][..], text(&no)),
        (&no, &file, &[], text(&no)),
        (&file, &file, &[], text(&file)),
        (&dense.model, &file, &[], "no experts"),
        (&bench.model, &short, &[], "the text has 32 tokens"),
        (&bench.model, &file, &["--ram", "lots"], "--ram"),
        (&bench.model, &file, &["--name", ""], "name"),
    ] {
        let ended = record(model, file, &out, args);
        assert_eq!(ended.code(), 2, "{why}: {}", ended.stderr);
        assert!(ended.stderr.contains(why), "{why}: {}", ended.stderr);
        assert!(ended.stdout.is_empty());
        assert!(!out.exists(), "{why}");
    }
    std::fs::write(&out, "mine").unwrap();
    let ended = record(&bench.model, &file, &out, &[]);
    assert_eq!(ended.code(), 2, "{}", ended.stderr);
    assert!(ended.stderr.contains(text(&out)), "{}", ended.stderr);
    assert!(ended.stderr.contains("--force"), "{}", ended.stderr);
    assert_eq!(std::fs::read(&out).unwrap(), b"mine");
}
