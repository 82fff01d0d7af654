//! Profiles that are kept by themselves: made, used and saved without anybody having named a file.

use super::child::{Ended, command, completion, polyglot, run};
use super::runner::{Options, Runner, take_hook, tokens};
use super::serving::LlamaServer;
use super::{config, text, tiny};
use hotset::config::{Config, ProfileSource};
use hotset::profile::Profile;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

const AUTO: (&str, &str) = ("HOTSET_PROFILE", "auto");
const RAM: (&str, &str) = ("HOTSET_RAM", "30%");
/// How what is said of such a profile begins.
const LINE: &str = "hotset: profile /";

/// Settings.
type Vars<'a> = &'a [(&'a str, &'a str)];

/// A user's folder for data.
struct Data(TempDir);

impl Data {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// Below which the profiles are.
    fn folder(&self) -> PathBuf {
        self.0.path().join("share/hotset/profiles")
    }

    fn of_this_user(&self, mut command: Command) -> Command {
        command.env("XDG_DATA_HOME", self.0.path().join("share"));
        command
    }

    /// A short run.
    fn complete(&self, vars: &[(&str, &str)]) -> Ended {
        run(self.of_this_user(completion(&polyglot(), vars, &["-n", "4"])))
    }

    /// The files that were made, ascending.
    fn files(&self) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.folder()).into_iter().flatten();
        let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        files.sort();
        files
    }

    /// The only file.
    fn file(&self) -> PathBuf {
        let files = self.files();
        assert_eq!(files.len(), 1, "{files:?}");
        files[0].clone()
    }
}

/// The one line that was said of the profile.
#[track_caller]
fn line(ended: &Ended) -> &str {
    let mut lines = ended.said();
    lines.retain(|line| line.starts_with(LINE));
    assert_eq!(lines.len(), 1, "{}", ended.stderr);
    lines[0]
}

fn n_tokens(path: &Path) -> u64 {
    let tokens = Profile::read(path).unwrap().tokens;
    tokens.prompt + tokens.generation
}

#[test]
fn a_profile_is_made_and_used_by_itself() {
    let data = Data::new();
    let stock = run(completion(&polyglot(), &[("HOTSET", "off")], &["-n", "4"]));
    let first = data.complete(&[AUTO, RAM]);
    assert_eq!(first.text(), stock.text());
    assert!(line(&first).contains(": new, "), "{}", first.stderr);
    let path = data.file();
    assert!(line(&first).contains(text(&path)), "{}", first.stderr);
    let name = path.file_name().unwrap().to_str().unwrap();
    assert!(name.starts_with("polyglot-moe-"), "{name}");
    let n_once = n_tokens(&path);
    assert!(n_once > 4);
    for folder in [data.folder(), data.0.path().join("share")] {
        let mode = fs::metadata(&folder).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o700, "{}", folder.display());
    }

    let second = data.complete(&[AUTO, RAM]);
    assert_eq!(second.text(), stock.text());
    let used = format!(": used, has learnt from {n_once} tokens");
    assert!(line(&second).ends_with(&used), "{}", second.stderr);
    let warm = format!(
        "hotset: profile '{}': the hottest ",
        &name[..name.len() - 5]
    );
    assert!(second.stderr.contains(&warm), "{}", second.stderr);
    assert_eq!(n_tokens(&data.file()), 2 * n_once);

    // Nothing is read beforehand if that is not wanted, and it is learnt from all the same.
    let third = data.complete(&[AUTO, RAM, ("HOTSET_PREWARM", "off")]);
    assert!(!third.stderr.contains(": the hottest "), "{}", third.stderr);
    assert_eq!(n_tokens(&data.file()), 3 * n_once);
}

/// `hotset run` does it of what streams, unless something else was said.
#[test]
fn hotset_run_keeps_one_unless_told_otherwise() {
    let data = Data::new();
    let hotset = |vars: &[(&str, &str)], options: &[&str]| {
        let like = completion(&polyglot(), &[], &["-n", "4"]);
        let mut run_it = data.of_this_user(command(env!("CARGO_BIN_EXE_hotset"), &[]));
        run_it
            .env_remove("HOTSET_PROFILE")
            .envs(vars.iter().copied());
        run_it.arg("run").args(options).arg("--");
        match options.contains(&"bench") {
            true => run_it
                .arg("-m")
                .arg(polyglot())
                .args(["-p", "0", "-n", "4", "-r", "1"]),
            false => run_it.args(like.get_args()),
        };
        let ended = run(run_it);
        assert_eq!(ended.code(), 0, "{}", ended.stderr);
        ended
    };
    let streams = ["--ram", "30%", "--tool", "completion"];
    let quiet: [(Vars, &[&str]); 5] = [
        (&[], &["--tool", "completion"]),
        (
            &[],
            &["--ram", "30%", "--tool", "completion", "--profile", "off"],
        ),
        (&[("HOTSET_PROFILE", "off")], &streams),
        (&[], &["--ram", "30%", "--tool", "completion", "--off"]),
        (&[], &["--ram", "30%", "--tool", "bench"]),
    ];
    for (vars, options) in quiet {
        let ended = hotset(vars, options);
        assert!(
            !ended.stderr.contains("hotset: profile"),
            "{}",
            ended.stderr
        );
        assert!(!data.0.path().join("share").exists(), "{options:?}");
    }
    let explicit = data.0.path().join("mine.json");
    hotset(&[("HOTSET_PROFILE_SAVE", text(&explicit))], &streams);
    assert!(explicit.exists() && !data.folder().exists());
    let other = ["--profile", text(&explicit)];
    hotset(&[], &[&streams[..], &other].concat());
    assert!(!data.folder().exists());

    for n_runs in 1..3 {
        let ended = hotset(&[("HOTSET_PROFILE", "")], &streams);
        assert_eq!(line(&ended).contains(": new, "), n_runs == 1);
        assert_eq!(n_tokens(&data.file()), n_runs * n_tokens(&explicit));
    }
}

/// It starts its own program again for each model, with what it was told.
#[test]
fn what_a_router_starts_keeps_one_too() {
    let data = Data::new();
    let models = data.0.path().join("models");
    fs::create_dir(&models).unwrap();
    fs::copy(polyglot(), models.join("polyglot-moe.gguf")).unwrap();
    let mut router = data.of_this_user(command(env!("CARGO_BIN_EXE_hotset"), &[]));
    router.env_remove("HOTSET_PROFILE");
    router.args("run --tool server --ram 30% -- --models-dir".split(' '));
    router.arg(&models);
    let server = LlamaServer::start_with(router, &[]);
    server.complete("The kernel".into());
    server.stop();
    assert!(n_tokens(&data.file()) > 20);
}

/// Another file that was named has what is learnt; the one that is kept by itself is only used.
#[test]
fn a_file_that_was_named_has_what_is_learnt() {
    let data = Data::new();
    data.complete(&[AUTO, RAM]);
    let before = fs::read(data.file()).unwrap();
    let explicit = data.0.path().join("mine.json");
    let ended = data.complete(&[AUTO, RAM, ("HOTSET_PROFILE_SAVE", text(&explicit))]);
    assert!(line(&ended).contains(": used, "), "{}", ended.stderr);
    assert_eq!(fs::read(data.file()).unwrap(), before);
    assert_eq!(n_tokens(&explicit), n_tokens(&data.file()));

    fs::write(data.file(), "another thing").unwrap();
    let ended = data.complete(&[AUTO, RAM, ("HOTSET_PROFILE_SAVE", text(&explicit))]);
    assert_eq!(ended.stderr.matches("; it is not used").count(), 1);
    assert_eq!(n_tokens(&explicit), 2 * n_tokens_of(&before));
}

fn n_tokens_of(profile: &[u8]) -> u64 {
    let profile: Profile = serde_json::from_slice(profile).unwrap();
    profile.tokens.prompt + profile.tokens.generation
}

#[test]
fn what_is_there_and_is_none_of_the_model_is_left_alone() {
    let data = Data::new();
    data.complete(&[AUTO, RAM]);
    let path = data.file();
    let good = fs::read_to_string(&path).unwrap();
    let n_once = n_tokens(&path);
    let of_another = good.replace("\"top_k\":8", "\"top_k\":7");
    for damaged in [&good[..good.len() / 2], &of_another, "another thing"] {
        fs::write(&path, damaged).unwrap();
        for n_runs in 1..3 {
            let ended = data.complete(&[AUTO, RAM]);
            ended.text();
            let mut lines = ended.said();
            lines.retain(|line| line.contains("it is left alone"));
            assert_eq!(lines.len(), 1, "{}", ended.stderr);
            assert_eq!(fs::read_to_string(&path).unwrap(), damaged);
            let mut files = data.files();
            files.retain(|file| *file != path);
            assert_eq!(files.len(), 1, "{files:?}");
            assert_eq!(n_tokens(&files[0]), n_runs * n_once);
        }
        let mut files = data.files();
        files.retain(|file| *file != path);
        fs::remove_file(&files[0]).unwrap();
    }
}

/// One line, and the program goes on without.
#[test]
fn where_nothing_can_be_kept_a_program_goes_on() {
    let stock = run(completion(&polyglot(), &[("HOTSET", "off")], &["-n", "4"]));
    // No file is below a file.
    let sealed = Path::new("/dev/null/share");
    for (name, value, why) in [
        ("XDG_DATA_HOME", sealed, "its folder cannot be made: "),
        ("HOME", Path::new("."), "no folder for data of this user"),
    ] {
        let mut command = completion(&polyglot(), &[AUTO, RAM], &["-n", "4"]);
        command.env_remove("XDG_DATA_HOME").env(name, value);
        let ended = run(command);
        assert_eq!(ended.text(), stock.text());
        let mut lines = ended.said();
        lines.retain(|line| line.contains("HOTSET_PROFILE=auto"));
        assert_eq!(lines.len(), 1, "{}", ended.stderr);
        assert!(lines[0].contains(why), "{}", lines[0]);
        assert!(lines[0].ends_with("; what is learnt is not kept"));
        assert!(!ended.stderr.contains(LINE), "{}", ended.stderr);
    }
}

/// Its tokens are random: what is known is used, and nothing is learnt.
#[test]
fn bench_uses_it_and_teaches_nothing() {
    let data = Data::new();
    data.complete(&[AUTO, RAM]);
    let before = fs::read(data.file()).unwrap();
    let mut bench = command(env!("CARGO_BIN_EXE_llama-bench"), &[AUTO, RAM]);
    bench.arg("-m").arg(polyglot());
    bench.args(["-p", "0", "-n", "4,8", "-r", "1", "-t", "2", "-ngl", "0"]);
    let ended = run(data.of_this_user(bench));
    ended.text();
    assert!(
        ended.stderr.contains("it teaches no profile"),
        "{}",
        ended.stderr
    );
    assert!(
        !ended.stderr.contains("profile 'this run'"),
        "{}",
        ended.stderr
    );
    assert_eq!(fs::read(data.file()).unwrap(), before);
}

/// Two processes of one user, of which one is there while the other comes and goes; and models that are none of each
/// other's business.
#[test]
fn all_that_a_user_runs_counts() {
    let data = Data::new();
    data.complete(&[AUTO, RAM]);
    let n_once = n_tokens(&data.file());
    let other = tempfile::tempdir().unwrap();
    let other = tiny::write(&tiny::all()[0], other.path());
    let config = Config {
        profile: Some(ProfileSource::Auto(Some(data.folder()))),
        ..config(Some(30.0))
    };
    let _hook = take_hook(Some(&config));
    let load = |model: &Path| Runner::load(model, Options::default()).expect("the model loads");
    let (mut one, mut two) = (load(&polyglot()), load(&other));
    one.read(&tokens(5, 200));
    two.read(&tokens(7, 200));
    data.complete(&[AUTO, RAM]);
    drop((one, two));
    let mut counts: Vec<_> = data.files().iter().map(|path| n_tokens(path)).collect();
    counts.sort_unstable();
    assert_eq!(counts, [7, 2 * n_once + 5]);
}
