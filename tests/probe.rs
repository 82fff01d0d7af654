//! A server tries out each of its contexts with a few tokens: what these pick is in no counter, profile or recording.

#![cfg(all(feature = "llama", feature = "cli"))]

mod child;
mod serving;

use child::{StatsFile, count, polyglot};
use hotset::profile::Profile;
use hotset::trace::Trace;
use serving::{LlamaServer, prompts};
use std::path::Path;
use tempfile::TempDir;

/// Where a server writes what it saw.
struct Files {
    dir: TempDir,
    stats: StatsFile,
}

impl Files {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            stats: StatsFile::new(),
        }
    }

    fn path(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().unwrap().to_owned()
    }

    fn trace(&self) -> Trace {
        Trace::open(Path::new(&self.path("run.trace.gz")), u32::MAX).unwrap()
    }

    fn profile(&self) -> Profile {
        Profile::read(Path::new(&self.path("run.json"))).unwrap()
    }

    fn start(&self, vars: &[(&str, &str)]) -> LlamaServer {
        let (trace, profile) = (self.path("run.trace.gz"), self.path("run.json"));
        let stats = self.stats.path();
        let own = [
            ("HOTSET_TRACE", trace.as_str()),
            ("HOTSET_PROFILE_SAVE", &profile),
            ("HOTSET_STATS", &stats),
        ];
        LlamaServer::start(&polyglot(), &[&own, vars].concat(), &["-c", "512"])
    }
}

/// Settings of a model that streams, that holds all experts, that passes all through the ring, and that is loaded as
/// usual.
const CASES: &[&[(&str, &str)]] = &[
    &[("HOTSET_RAM", "30%")],
    &[("HOTSET_RAM", "100%")],
    &[("HOTSET_RAM", "1%")],
    &[],
];

#[test]
fn what_is_counted_is_the_request() {
    for vars in CASES {
        let files = Files::new();
        let server = files.start(vars);
        let answer = server.complete(prompts()[0].clone());
        let stderr = server.stop();
        let n_prompt = answer["tokens_evaluated"].as_u64().unwrap();
        // The last token is not computed.
        let n_tokens = n_prompt + answer["tokens_predicted"].as_u64().unwrap() - 1;

        assert_eq!(u64::from(files.trace().n_tokens()), n_tokens, "{vars:?}");
        let tokens = files.profile().tokens;
        assert_eq!(tokens.prompt + tokens.generation, n_tokens, "{vars:?}");
        if !vars.is_empty() {
            let stats = files.stats.read();
            assert_eq!(count(&stats, "tokens"), n_tokens, "{stderr}");
        }
    }
}

#[test]
fn a_server_that_nobody_asks_counts_nothing() {
    for vars in CASES {
        let files = Files::new();
        let mut server = files.start(vars);
        // Before that, a signal ends it at once.
        server.wait_for("listening on", 1);
        let stderr = server.stop();
        let trace = Path::new(&files.path("run.trace.gz")).exists();
        assert!(!trace || files.trace().n_tokens() == 0, "{vars:?}");
        if !vars.is_empty() {
            let stats = files.stats.read();
            let counters = ["events", "tokens", "hits", "misses"];
            assert!(counters.iter().all(|n| count(&stats, n) == 0), "{stats:#}");
            assert_eq!(stats["n_reads"], 0, "{stats:#}");
            assert!(stats["hindsight"].is_null(), "{stderr}");
        }
        if Path::new(&files.path("run.json")).exists() {
            let tokens = files.profile().tokens;
            assert_eq!(tokens.prompt + tokens.generation, 0, "{vars:?}");
        }
    }
}

/// The size of `auto` is known when a server tries out its context, and where all experts fit they are read then.
#[test]
fn auto_is_filled_before_a_server_is_ready() {
    let files = Files::new();
    let mut server = files.start(&[("HOTSET_RAM", "auto")]);
    // It is ready, and nobody has asked for anything.
    let stderr = server.running().stderr();
    assert!(stderr.contains("layers stream"), "{stderr}");
    server.complete(prompts()[0].clone());
    server.stop();
    let stats = files.stats.read();
    assert_eq!(stats["n_reads"], 0, "all was there: {stats:#}");
    assert_eq!(count(&stats, "misses"), 0, "{stats:#}");
}
