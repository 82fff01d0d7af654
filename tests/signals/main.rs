//! Signals end the programs as they end llama.cpp's, and nothing of what a run leaves is lost then.

#![cfg(all(feature = "llama", feature = "cli", unix))]

mod chat;
#[path = "../child/mod.rs"]
mod child;
mod hosts;
mod programs;
#[cfg(feature = "rpc")]
#[path = "../rpc/mod.rs"]
mod rpc;
#[path = "../runner/mod.rs"]
mod runner;
mod server;
#[path = "../serving/mod.rs"]
mod serving;
mod terminal;

use child::{Ended, command, run};
use hotset::profile::Profile;
use std::path::PathBuf;
use tempfile::TempDir;

/// What a run may leave: a profile, counters and a trace.
struct Left(TempDir);

impl Left {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// The settings that say where.
    fn vars(&self) -> [(&str, String); 3] {
        let path = |name| self.path(name).to_str().unwrap().to_string();
        [
            ("HOTSET_PROFILE_SAVE", path("run.json")),
            ("HOTSET_STATS", path("stats.json")),
            ("HOTSET_TRACE", path("run.trace.gz")),
        ]
    }

    /// Fails unless the profile and the counters are there.
    fn assert_saved(&self, ended: &Ended) {
        self.assert_whole(ended);
        self.assert_counted(ended);
    }

    /// Fails unless the profile is there, and nothing is half-written.
    fn assert_whole(&self, ended: &Ended) {
        let profile = Profile::read(&self.path("run.json"));
        let profile = profile.unwrap_or_else(|e| panic!("{e}\n{}", ended.stderr));
        assert!(profile.tokens.prompt + profile.tokens.generation > 0);
        let names = self.0.path().read_dir().unwrap();
        let names = names.map(|e| e.unwrap().file_name().into_string().unwrap());
        let temporary: Vec<_> = names.filter(|n| n.ends_with(".tmp")).collect();
        assert_eq!(temporary, [""; 0], "{}", ended.stderr);
    }

    /// Fails unless the counters are there.
    fn assert_counted(&self, ended: &Ended) {
        let stats = std::fs::read(self.path("stats.json"));
        let stats = stats.unwrap_or_else(|e| panic!("{e}\n{}", ended.stderr));
        let stats: Vec<serde_json::Value> = serde_json::from_slice(&stats).unwrap();
        assert_eq!(stats.len(), 1, "{stats:#?}");
        assert!(child::count(&stats[0], "misses") > 0, "{stats:#?}");
    }

    /// Fails unless the trace has an end.
    fn assert_recorded(&self, ended: &Ended) {
        let mut replay = command(env!("CARGO_BIN_EXE_hotset"), &[]);
        replay.arg("replay").arg(self.path("run.trace.gz"));
        let replayed = run(replay);
        assert_eq!(replayed.code(), 0, "{}\n{}", replayed.stderr, ended.stderr);
    }
}

/// Borrows the values.
fn borrowed<'a>(vars: &'a [(&'a str, String)]) -> Vec<(&'a str, &'a str)> {
    vars.iter().map(|(name, value)| (*name, &**value)).collect()
}
