//! A server that routes between models starts a process for each, all with the same settings.

#![cfg(all(feature = "llama", feature = "cli"))]
#![allow(unsafe_code)]

mod child;
mod serving;

use child::{command, polyglot, run, widen};
use hotset::memory::division::Member;
use hotset::profile::Profile;
use hotset::sharing::{self, Entry, Ledger};
use hotset::trace::Trace;
use serde_json::{Value, json};
use serving::LlamaServer;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;

const MIB: u64 = 1 << 20;
/// Less than what the experts of one of the models take.
const SIZE: u64 = 12 * MIB;

/// Two models of one name in their files and of two in the router's, and one of another shape.
struct Router {
    dir: TempDir,
}

impl Router {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let models = dir.path().join("models");
        fs::create_dir(&models).unwrap();
        fs::create_dir(dir.path().join("run")).unwrap();
        for name in ["one", "two"] {
            fs::copy(polyglot(), models.join(name).with_extension("gguf")).unwrap();
        }
        widen("2", &models.join("wide.gguf"));
        Self { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn start(&self, vars: &[(&str, &str)]) -> LlamaServer {
        let mut router = command(env!("CARGO_BIN_EXE_llama-server"), vars);
        router.env("XDG_RUNTIME_DIR", self.path("run"));
        router.args(["--models-max", "4", "--models-dir"]);
        router.arg(self.path("models"));
        LlamaServer::start_with(router, &["-c", "512"])
    }

    /// What the processes of the only router that runs say of themselves.
    fn entries(&self) -> Vec<Entry> {
        let ledgers = fs::read_dir(self.path("run")).unwrap();
        let user = ledgers.flatten().next().map(|entry| entry.path());
        let folders = user.and_then(|user| fs::read_dir(user).ok());
        let folder = folders.into_iter().flatten().flatten().next();
        let Some(folder) = folder.map(|entry| entry.path()) else {
            return Vec::new();
        };
        let watcher = Ledger::join(&folder, Entry::default());
        watcher.and_then(|w| w.others()).unwrap_or_default()
    }

    fn held(&self) -> Vec<u64> {
        let mut held: Vec<u64> = self.entries().iter().map(|e| e.held / MIB).collect();
        held.sort_unstable();
        held
    }
}

fn wait_for(what: &str, is_so: impl Fn() -> bool) {
    let begin = Instant::now();
    while !is_so() {
        assert!(begin.elapsed() < Duration::from_secs(30), "no {what}");
        thread::sleep(Duration::from_millis(50));
    }
}

fn json_of(path: &Path) -> Value {
    let text = fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_str(&text).unwrap()
}

#[test]
fn each_model_has_files_of_its_own_and_goes_on_with_them() {
    let router = Router::new();
    let [profile, trace, stats] =
        ["p.json", "t.trace.gz", "s.json"].map(|n| router.path(n).display().to_string());
    let size = format!("{SIZE}B");
    let mut vars = vec![
        ("HOTSET_RAM", size.as_str()),
        ("HOTSET_PROFILE_SAVE", profile.as_str()),
        ("HOTSET_TRACE", trace.as_str()),
        ("HOTSET_STATS", stats.as_str()),
    ];
    let first_profile = router.path("p.one.json");
    let first = first_profile.display().to_string();
    let mut tokens = 0;
    for session in 0..2 {
        let server = router.start(&vars);
        for name in ["one", "two", "wide"] {
            let body =
                json!({"model": name, "prompt": "Il disco", "n_predict": 24, "temperature": 0});
            server.post("completion", &body);
        }
        // The router prints what its processes report.
        let log = server.end().text().into_owned();
        for name in ["one", "two", "wide"] {
            assert!(log.contains(&format!("hotset: model {name} has ")), "{log}");
            let of = |start: &str, end: &str| router.path(&format!("{start}.{name}.{end}"));
            let read = Profile::read(&of("p", "json")).unwrap();
            let is_wide = read.model.name.ends_with("-x2");
            assert_eq!(is_wide, name == "wide", "{}", read.model.name);
            Trace::open(&of("t", "trace.gz"), u32::MAX).unwrap();
            let counters = json_of(&of("s", "json"));
            let model = counters[0]["model"].as_str().unwrap();
            assert!(model.contains(name), "{counters:#}");
            if name == "one" {
                let sum = read.tokens.generation + read.tokens.prompt;
                assert!(sum > tokens, "session {session} has learnt nothing");
                tokens = sum;
            }
        }
        for name in ["p.json", "t.trace.gz", "s.json"] {
            assert!(!router.path(name).exists(), "{name} is of nobody");
        }
        // In the next session all start with the profile of one, which the third cannot use.
        vars.push(("HOTSET_PROFILE", &first));
        assert_eq!(
            log.contains("does not start with it"),
            session == 1,
            "{log}"
        );
    }
}

#[test]
fn a_size_is_shared_by_those_who_live() {
    let router = Router::new();
    let size = format!("{SIZE}B");
    let server = router.start(&[("HOTSET_RAM", &size)]);
    let ask = |name: &str| {
        server.post(
            "completion",
            &json!({"model": name, "prompt": "Il disco", "n_predict": 8}),
        );
    };
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        // More than the size for no longer than a second.
        let watcher = scope.spawn(|| {
            let mut since = None;
            while !is_over.load(Ordering::Relaxed) {
                let sum: u64 = router.entries().iter().map(|e| e.held).sum();
                let now = Instant::now();
                since = (sum > SIZE).then(|| since.unwrap_or(now));
                let for_long = since.is_some_and(|t| now - t > Duration::from_secs(1));
                assert!(!for_long, "{sum} bytes of {SIZE}");
                thread::sleep(Duration::from_millis(100));
            }
        });
        ask("one");
        wait_for("whole size for one", || router.held() == [11]);
        ask("two");
        wait_for("half for each of two", || router.held() == [5, 5]);
        ask("wide");
        wait_for("third for each", || router.held() == [3, 3, 3]);
        ["one", "two", "wide"].into_iter().for_each(ask);
        server.post("models/unload", &json!({"model": "two"}));
        wait_for("half for each that stays", || router.held() == [5, 5]);
        kill_one(server.id());
        wait_for("whole size for the last one", || router.held() == [11]);
        ["one", "two", "wide"].into_iter().for_each(ask);
        is_over.store(true, Ordering::Relaxed);
        watcher.join().unwrap();
    });
    server.stop();
}

/// The models of `auto` that tell each other below `base` what they have.
fn members(base: &Path) -> Vec<Member> {
    let users = fs::read_dir(base).into_iter().flatten().flatten();
    let groups = users.flat_map(|user| fs::read_dir(user.path()).into_iter().flatten().flatten());
    let autos = groups.filter(|group| group.file_name().to_string_lossy().starts_with("auto-"));
    autos
        .flat_map(|group| sharing::living(&group.path()))
        .collect()
}

#[test]
fn models_of_auto_know_each_other() {
    let router = Router::new();
    let run = router.path("run");
    let server = router.start(&[("HOTSET_RAM", "auto")]);
    for (name, n) in [("one", 1), ("two", 2)] {
        let body = json!({"model": name, "prompt": "Il disco", "n_predict": 8});
        server.post("completion", &body);
        wait_for("member", || members(&run).len() == n);
    }
    wait_for("memory of both", || {
        members(&run).iter().all(|m| m.held > 0)
    });
    let both = members(&run);
    assert_ne!(both[0].process, both[1].process, "{both:?}");
    assert!(
        both.iter().all(|m| m.busy_at > 0 && m.told_at >= m.busy_at),
        "{both:?}"
    );
    kill_one(server.id());
    wait_for("end of one", || members(&run).len() == 1);
    server.stop();
    assert!(members(&run).is_empty());
}

/// Where no folder can be used, a line says so, and all else is as ever.
#[test]
fn without_a_folder_models_of_auto_are_alone() {
    let router = Router::new();
    let [bad, good] = ["bad", "good"].map(|name| router.path(name));
    for dir in [&bad, &good] {
        fs::create_dir(dir).unwrap();
    }
    let user = user_number();
    fs::write(bad.join(format!("hotset-{user}")), "no folder").unwrap();
    for (temporary, is_alone) in [(&good, false), (&bad, true)] {
        let mut server = command(
            env!("CARGO_BIN_EXE_llama-server"),
            &[("HOTSET_RAM", "auto")],
        );
        server.env("XDG_RUNTIME_DIR", &bad).env("TMPDIR", temporary);
        server.arg("-m").arg(polyglot());
        let mut server = LlamaServer::start_with(server, &["-c", "512"]);
        let warning = "in other processes are not told";
        match is_alone {
            true => server.wait_for(warning, 1),
            false => wait_for("member", || members(&good).len() == 1),
        }
        server.complete("Il disco".into());
        let said = server.stop();
        assert_eq!(
            said.matches(warning).count(),
            usize::from(is_alone),
            "{said}"
        );
    }
}

/// Who runs this.
fn user_number() -> u32 {
    std::os::unix::fs::MetadataExt::uid(&fs::metadata("/proc/self").unwrap())
}

/// Kills a process that the router has started.
fn kill_one(router: u32) {
    let children = format!("/proc/{router}/task/{router}/children");
    let mut all = Vec::new();
    for task in fs::read_dir(format!("/proc/{router}/task"))
        .unwrap()
        .flatten()
    {
        let text = fs::read_to_string(task.path().join("children")).unwrap_or_default();
        all.extend(
            text.split_whitespace()
                .map(|pid| pid.parse::<i32>().unwrap()),
        );
    }
    let pid = all
        .first()
        .unwrap_or_else(|| panic!("nobody in {children}"));
    // SAFETY: a plain system call.
    unsafe { libc::kill(*pid, libc::SIGKILL) };
}

/// Which only the model can tell, and which ends its program as any other setting does that is wrong.
#[test]
fn a_size_below_one_expert_is_refused() {
    let mut completion = child::completion(&polyglot(), &[("HOTSET_RAM", "2KiB")], &[]);
    let ended = run({
        completion.args(["-n", "1"]);
        completion
    });
    assert_eq!(ended.code(), 2, "{}", ended.stderr);
    let parts = [
        "HOTSET_RAM=2KiB: one expert of this model takes ",
        " bytes are the least",
    ];
    for part in parts {
        assert!(ended.stderr.contains(part), "{}", ended.stderr);
    }
}

/// Each process answers for its model; the page is the router's own, and loads no model.
#[test]
fn each_model_is_shown_and_steered_by_its_process() {
    let router = Router::new();
    let server = router.start(&[("HOTSET_RAM", "40%")]);
    let (status, page) = server.http("/hotset", None, None);
    assert!(
        status == 200 && page.starts_with("<!DOCTYPE html>"),
        "{page}"
    );
    assert_eq!(
        server.http("/hotset/stats", None, None).0,
        400,
        "of which model?"
    );
    for (model, policy) in [("one", "lru"), ("two", "lfu")] {
        let body = json!({"model": model, "name": policy}).to_string();
        let (status, text) = server.http("/hotset/policy", Some(&body), None);
        assert_eq!(status, 200, "{text}");
    }
    for (model, policy) in [("one", "lru"), ("two", "lfu")] {
        let stats = server.get(&format!("/hotset/stats?model={model}"));
        let name = stats[0]["model"].as_str().unwrap();
        assert!(name.ends_with(&format!("{model}.gguf")), "{name}");
        assert_eq!(stats[0]["policy"], policy);
        let (status, text) = server.http(&format!("/metrics?model={model}"), None, None);
        assert!(
            status == 501 || text.contains("moe_ram_hits_total"),
            "{text}"
        );
    }
    let body = json!({"model": "one", "ram": "12"}).to_string();
    let (status, text) = server.http("/hotset/budget", Some(&body), None);
    assert!(status == 400 && text.contains("HOTSET_RAM=12"), "{text}");
    server.stop();
}

/// A size that the models of a router share is the router's.
#[test]
fn a_shared_size_is_not_changed_by_one_of_them() {
    let router = Router::new();
    let server = router.start(&[("HOTSET_RAM", "12MiB")]);
    let body = json!({"model": "one", "ram": "6MiB"}).to_string();
    let (status, text) = server.http("/hotset/budget", Some(&body), None);
    assert!(status == 400 && text.contains("shares its size"), "{text}");
    server.stop();
}
