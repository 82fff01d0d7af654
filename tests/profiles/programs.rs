//! Programs with profiles: what ends them, folders, and what they say.

use super::child::{Ended, PROMPT, Running, command, completion, polyglot, run};
use super::{Bench, counted, made_up, text, tiny};
use hotset::profile::Profile;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// How [`ENDLESS`] begins.
const BEGIN: &str = "Il sistema operativo";
/// Continues a prompt for longer than any test lasts.
const ENDLESS: &[&str] = &["-p", BEGIN, "-n", "30000", "-c", "32768"];

fn signal(running: &Running, signal: libc::c_int) {
    #![allow(unsafe_code)]
    // SAFETY: a plain system call; the process is ours and has not been waited for.
    unsafe { libc::kill(running.id() as i32, signal) };
}

/// Ends a program by a signal when it has printed some tokens after `begin`.
fn end(command: Command, begin: &str, with: libc::c_int) -> Ended {
    let mut running = Running::start(command);
    let has_tokens = |r: &Running| {
        let text = String::from_utf8_lossy(&r.stdout()).into_owned();
        let after = text.split_once(begin).map(|(_, after)| after.len());
        after > Some(60)
    };
    running.wait_until("tokens", has_tokens);
    signal(&running, with);
    running.wait()
}

/// A whole profile, in which the first layer has picked 8 experts for each token, and the others, of which
/// the last leaves out most of a prompt, are one token behind where the signal came.
fn assert_whole(path: &Path) {
    let profile = Profile::read(path).unwrap();
    let n_tokens = profile.tokens.generation;
    assert!(n_tokens > 8, "{n_tokens} tokens");
    let [generation, _] = counted(&profile);
    let n_picks = generation.iter().map(|layer| layer.iter().sum::<u64>());
    let n_picks: Vec<_> = n_picks.collect();
    assert_eq!(n_picks[0], 8 * n_tokens);
    for n in &n_picks[1..5] {
        assert!(
            (8 * (n_tokens - 1)..=8 * n_tokens).contains(n),
            "{n_picks:?}"
        );
    }
    let folder = path.parent().unwrap().read_dir().unwrap();
    assert_eq!(folder.count(), 1, "no temporary file stays");
}

/// What programs do at a signal with a profile and without hotset, if they print `begin` before the text.
fn assert_saved(vars: &[(&str, &str)], begin: &str, make: impl Fn(&[(&str, &str)]) -> Command) {
    for with in [libc::SIGTERM, libc::SIGINT] {
        let stock = end(make(&[("HOTSET", "off")]), begin, with);
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run.json");
        let save = ("HOTSET_PROFILE_SAVE", text(&path));
        let ended = end(make(&[vars, &[save]].concat()), begin, with);
        assert_eq!(ended.status, stock.status, "{}", ended.stderr);
        assert_whole(&path);
    }
}

/// Streamed, loaded as usual, and with a thread that reports now and then.
#[test]
fn signals_end_completion_with_its_profile_saved() {
    let streamed = ("HOTSET_RAM", "30%");
    for vars in [&[streamed][..], &[], &[streamed, ("HOTSET_STATS", "1")]] {
        assert_saved(vars, "", |vars| completion(&polyglot(), vars, ENDLESS));
    }
}

#[test]
fn signals_end_the_chat_with_its_profile_saved() {
    let chat = |vars: &[(&str, &str)]| {
        let mut command = command(env!("CARGO_BIN_EXE_llama-cli"), vars);
        command.arg("-m").arg(polyglot()).args(ENDLESS);
        command.args(["--ignore-eos", "-st", "-t", "2", "-ngl", "0", "--no-repack"]);
        command
    };
    assert_saved(&[("HOTSET_RAM", "30%")], BEGIN, chat);
}

/// A server ends by itself, with what it has answered in its profile.
#[test]
fn signals_end_the_server_with_its_profile_saved() {
    for with in [libc::SIGTERM, libc::SIGINT] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run.json");
        let vars = [("HOTSET_RAM", "30%"), ("HOTSET_PROFILE_SAVE", text(&path))];
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = socket.local_addr().unwrap().port().to_string();
        drop(socket);
        let mut command = command(env!("CARGO_BIN_EXE_llama-server"), &vars);
        command.arg("-m").arg(polyglot());
        command.args(["--host", "127.0.0.1", "--port", &port, "--no-webui"]);
        command.args([
            "-t",
            "2",
            "-np",
            "1",
            "-c",
            "512",
            "-ngl",
            "0",
            "--no-repack",
        ]);
        let mut running = Running::start(command);
        let url = format!("http://127.0.0.1:{port}");
        running.wait_until("health", |_| {
            ureq::get(format!("{url}/health")).call().is_ok()
        });
        let body = serde_json::json!({ "prompt": PROMPT, "n_predict": 24, "ignore_eos": true });
        let answer = ureq::post(format!("{url}/completion")).send_json(&body);
        let answer: Value = answer.unwrap().into_body().read_json().unwrap();
        signal(&running, with);
        let ended = running.wait();
        assert_eq!(ended.code(), 0, "{}", ended.stderr);
        let tokens = Profile::read(&path).unwrap().tokens;
        // What the server tries at the start teaches nothing, and the last token is not computed.
        let n_tokens = answer["timings"]["prompt_n"].as_u64().unwrap() + 24 - 1;
        assert_eq!(tokens.prompt + tokens.generation, n_tokens, "{answer:#}");
        assert!(tokens.prompt > 32, "{answer:#}");
        assert_whole(&path);
    }
}

/// Its tokens are random.
#[test]
fn bench_teaches_nothing_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run.json");
    for ram in ["", "30%"] {
        let vars = [("HOTSET_PROFILE_SAVE", text(&path)), ("HOTSET_RAM", ram)];
        let mut command = command(env!("CARGO_BIN_EXE_llama-bench"), &vars);
        command.arg("-m").arg(polyglot());
        command.args(["-p", "0", "-n", "4", "-r", "1", "-t", "2", "-ngl", "0"]);
        let ended = run(command);
        ended.text();
        let said = "hotset: llama-bench computes no text, so it teaches no profile";
        assert_eq!(ended.stderr.matches(said).count(), 1, "{}", ended.stderr);
        assert!(!path.exists());
    }
}

const ITALIAN: &str = "La sera la famiglia si riunisce intorno alla tavola e parla della giornata: il \
    nonno racconta le storie della sua giovinezza, la madre prepara il pane e i bambini ascoltano in \
    silenzio. Fuori piove da tre giorni e il fiume cresce, ma nessuno ha paura, perche la casa e vecchia \
    e ha visto di peggio. Domani il padre andra al mercato con il carro e vendera le mele, le noci e il \
    formaggio che hanno fatto durante l'estate.";
const GERMAN: &str = "Am Abend sitzt die Familie um den Tisch und spricht ueber den Tag: der Grossvater \
    erzaehlt Geschichten aus seiner Jugend, die Mutter backt Brot und die Kinder hoeren schweigend zu. \
    Draussen regnet es seit drei Tagen und der Fluss steigt, aber niemand hat Angst, denn das Haus ist \
    alt und hat schon Schlimmeres gesehen. Morgen faehrt der Vater mit dem Wagen zum Markt und verkauft \
    die Aepfel, die Nuesse und den Kaese, den sie im Sommer gemacht haben.";

/// A folder with profiles of an Italian and a German text.
fn shelf() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, language) in [("italian", ITALIAN), ("german", GERMAN)] {
        let path = dir.path().join(format!("{name}.json"));
        // A token at a time: what is read at once teaches prompts.
        let vars = [("HOTSET_PROFILE_SAVE", text(&path))];
        let args = ["-p", language, "-n", "1", "-ub", "1", "-b", "1"];
        run(completion(&polyglot(), &vars, &args)).text();
    }
    dir
}

fn tell(shelf: &Path, prompt: &str) -> Ended {
    let vars = [("HOTSET_PROFILE", text(shelf)), ("HOTSET_RAM", "40%")];
    run(completion(&polyglot(), &vars, &["-p", prompt, "-n", "80"]))
}

fn others(shelf: &Path) -> [PathBuf; 2] {
    ["other.json.gz", "layers.json"].map(|name| shelf.join(name))
}

/// Of the profiles in a folder that of the text's language is found, and the text is as without it.
#[test]
fn of_a_folder_the_right_profile_is_found() {
    let dir = shelf();
    let shelf = dir.path();
    let mut profile = Profile::read(&shelf.join("german.json")).unwrap();
    // Hot everywhere else; of another model; of one that differs in one number.
    made_up(&profile, |_| true)
        .write(&shelf.join("flat.json"))
        .unwrap();
    let [other, layers] = others(shelf);
    profile.model.name = "another".to_string();
    profile.write(&other).unwrap();
    profile.model.name = "polyglot-moe".to_string();
    profile.model.top_k = 7;
    profile.write(&layers).unwrap();
    std::fs::write(shelf.join("README.txt"), "not a profile").unwrap();
    for (name, prompt) in [
        (
            "italian",
            "La nonna racconta ai bambini la storia della casa vecchia e il padre",
        ),
        (
            "german",
            "Die Grossmutter erzaehlt den Kindern die Geschichte vom alten Haus und der",
        ),
    ] {
        let ended = tell(shelf, prompt);
        let args = ["-p", prompt, "-n", "80"];
        let stock = run(completion(&polyglot(), &[("HOTSET", "off")], &args));
        assert_eq!(ended.text(), stock.text());
        let counted = format!(
            "hotset: 3 of 5 profiles in {} are of this model",
            shelf.display()
        );
        assert!(ended.stderr.contains(&counted), "{}", ended.stderr);
        let said = format!("hotset: the workload is like profile '{name}': ");
        assert_eq!(
            ended.stderr.matches("the workload is like").count(),
            1,
            "{}",
            ended.stderr
        );
        assert!(ended.stderr.contains(&said), "{}", ended.stderr);
    }
}

#[test]
fn a_damaged_profile_in_a_folder_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let damaged = dir.path().join("damaged.json");
    std::fs::write(&damaged, "{\"version\":1,\"name\":7}").unwrap();
    let ended = tell(dir.path(), "a");
    assert_eq!(ended.code(), 2, "{}", ended.stderr);
    assert!(
        ended.error_line().contains(text(&damaged)),
        "{}",
        ended.stderr
    );
    assert!(ended.error_line().contains("name"), "{}", ended.stderr);
}

/// One line says how much was read before the first token, and of which profiles.
#[test]
fn what_is_read_before_the_first_token_is_said() {
    let bench = Bench::new(&tiny::all()[0]);
    let path = bench.file("run.json");
    let save = [("HOTSET_PROFILE_SAVE", text(&path))];
    run(completion(&bench.model, &save, &["-n", "4"])).text();
    let stock = run(completion(&bench.model, &[("HOTSET", "off")], &[]));
    let both = format!("{0},{0}:2", path.display());
    for (prewarm, is_said) in [("", true), ("1", true), ("off", false)] {
        let vars = [
            ("HOTSET_PROFILE", &*both),
            ("HOTSET_RAM", "30%"),
            ("HOTSET_PREWARM", prewarm),
        ];
        let ended = run(completion(&bench.model, &vars, &[]));
        assert_eq!(ended.text(), stock.text());
        let said = "hotset: profile 'run, run': the hottest ";
        let n_said = ended.stderr.matches(said).count();
        assert_eq!(n_said, usize::from(is_said), "{}", ended.stderr);
    }
}
